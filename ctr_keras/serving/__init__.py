"""Export to SavedModel, ranking with what was exported, and a server and a client of it."""

import importlib
from typing import Any

from ctr_keras.serving.catalog import Catalog
from ctr_keras.serving.check import Check, check
from ctr_keras.serving.export import export
from ctr_keras.serving.ranked_list import RankedList
from ctr_keras.serving.ranker import Ranker

__all__ = [
    "Catalog",
    "Check",
    "Client",
    "ClientOptions",
    "ModelConfig",
    "RankedList",
    "Ranker",
    "Server",
    "ServerConfig",
    "check",
    "client",
    "errors",
    "export",
    "server",
]

# These need the extra `serving`.
_ON_FIRST_USE = {
    "Client": "client",
    "ClientOptions": "client",
    "ModelConfig": "server",
    "Server": "server",
    "ServerConfig": "server",
    "errors": "",
    "client": "",
    "server": "",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module 'ctr_keras.serving' has no attribute {name!r}")
    room = _ON_FIRST_USE[name]
    module = importlib.import_module(f"ctr_keras.serving.{room or name}")
    return getattr(module, name) if room else module
