"""Values that JSON can hold."""

import hashlib
import json
import math
from typing import Any


def finite(value: Any) -> Any:
    """`value` with NaN and infinity as null, which JSON has no word for."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def digest(value: Any) -> str:
    """Hexadecimal SHA-256 of a value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, default=_of_numpy)
    return hashlib.sha256(text.encode()).hexdigest()


def _of_numpy(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"JSON cannot hold this. Received: `value={value!r}`")
