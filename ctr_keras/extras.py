"""Packages beside this one: those that come with an extra, and versions of any."""

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Iterable
from types import ModuleType


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import a module.

    Raises:
        ImportError: it is not installed; names the extra to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs {module}: `pip install 'ctr-keras[{extra}]'` ({error})"
        ) from error


def is_installed(module: str) -> bool:
    """Whether a package that comes with an extra is there; it is not imported."""
    return importlib.util.find_spec(module) is not None


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of those packages that are installed, by name."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
