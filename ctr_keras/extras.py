"""Packages that come with an extra of this one."""

import importlib
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
