"""Packages that come with an extra of this one."""

import importlib
import importlib.util
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
