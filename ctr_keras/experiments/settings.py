"""Settings of experiments: dataclasses, made from what a command line says."""

import dataclasses
from typing import Any


def settings_of(cls: type, options: dict[str, Any]) -> Any:
    """An instance of a settings dataclass from some of its values by name, the others by default.

    Raises:
        ValueError: there is no such setting.
    """
    known = [field.name for field in dataclasses.fields(cls)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"The settings are {', '.join(known)}. Received: `{unknown[0]}`")
    return cls(**options)


def check_positive(settings: Any, *names: str) -> None:
    """Refuse settings that are no positive integers."""
    for name in names:
        value = getattr(settings, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"`{name}` must be a positive integer. Received: `{name}={value!r}`")
