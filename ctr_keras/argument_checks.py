"""Checks of arguments that every room shares."""

from typing import Any


def check_positive_integer(name: str, value: Any) -> int:
    """`value` if it is a positive integer, else a `ValueError` that names it."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer. Received: `{name}={value!r}`")
    return value


def check_positive_integers(settings: Any, *names: str) -> None:
    """Refuse attributes that are no positive integers, with a `ValueError` that names the first."""
    for name in names:
        check_positive_integer(name, getattr(settings, name))
