"""From the name of a model and its options to a model."""

import inspect
import os
from typing import Any

from ctr_keras import models, pretraining
from ctr_keras.schema import Schema

DEFAULT_BASE = "DIN"


def build_model(name: str, schema: Schema, options: dict[str, Any]) -> models.CTRModel:
    """The model `ck.models.<name>` on a schema.

    Args:
        name: Name of a model in `ck.models`.
        schema: What its features are.
        options: Its arguments. One that wraps another model takes that one as `base` (by default
            DIN): the model, or its name and its arguments as `base_options`. `encoder` and
            `max_tokens` may be what `ck.pretraining.TextEncoder.from_preset` takes. Models of item
            vectors take `width`, and `MAKE` an `extractor`, as their method `on` does.

    Raises:
        ValueError: there is no such model, or it does not take the options.
    """
    cls = model_class(name)
    options = dict(options)
    if isinstance(options.get("encoder"), (str, os.PathLike)):
        length = {name: options.pop(name) for name in ("max_tokens",) if name in options}
        options["encoder"] = pretraining.TextEncoder.from_preset(options["encoder"], **length)
    if _wraps_another(cls):
        base = options.pop("base", DEFAULT_BASE)
        base_options = _base_options(options)
        options.pop("base_options", None)
        if hasattr(cls, "on"):
            return _on(name, cls, base, schema, options, base_options)
        if not isinstance(base, models.CTRModel):
            _class("base", base)
            base = build_model(base, schema, base_options)
        return _new(name, cls, base, options)
    return _new(name, cls, schema, options)


def _on(
    name: str, cls: Any, base: str, schema: Schema, options: dict[str, Any], base_options: dict
) -> models.CTRModel:
    """A model that builds its base itself."""
    known = arguments(name) - {"model", "schema", "options"}
    _check_known(name, options, known)
    return cls.on(_class("base", base), schema, **options, **base_options)


def model_names() -> list[str]:
    """The names that `build_model` knows."""
    return sorted(set(models.__all__) - {"CTRModel"})


def model_class(name: str) -> type[models.CTRModel]:
    """The class `ck.models.<name>`.

    Raises:
        ValueError: there is none.
    """
    return _class("model", name)


def _class(argument: str, name: str) -> type[models.CTRModel]:
    known = model_names()
    if name not in known:
        raise ValueError(
            f"`{argument}` must be one of {', '.join(known)}. Received: `{argument}={name!r}`"
        )
    return getattr(models, name)


def arguments(name: str) -> set[str]:
    """What `build_model` takes for a model, those of its base apart."""
    cls = model_class(name)
    return set(inspect.signature(getattr(cls, "on", cls)).parameters)


def takes_item_vectors(name: str, options: dict[str, Any] | None = None) -> bool:
    """Whether a model has the vectors of items among its inputs.

    Args:
        name: As of `build_model`.
        options: Likewise; the model named as `base` may be the one that takes them.
    """
    if not arguments(name).isdisjoint({"width", "extractor"}):
        return True
    options = options or {}
    base = options.get("base")
    if not isinstance(base, str):
        return False
    _class("base", base)
    return takes_item_vectors(base, _base_options(options))


def with_width(name: str, options: dict[str, Any], width: int) -> dict[str, Any]:
    """Options with the width of item vectors where the model, or one that it wraps, takes it.

    Args:
        name: As of `build_model`.
        options: Likewise; a width among them stays.
        width: Of the vectors.
    """
    if "width" in arguments(name):
        options = {"width": width, **options}
    base = options.get("base")
    if isinstance(base, str):
        options = {**options, "base_options": with_width(base, _base_options(options), width)}
    return options


def _base_options(options: dict[str, Any]) -> dict[str, Any]:
    found = options.get("base_options", {})
    if not isinstance(found, dict):
        raise ValueError(f"`base_options` must be a dict. Received: `base_options={found!r}`")
    return found


def _wraps_another(cls: type) -> bool:
    return "base" in inspect.signature(cls).parameters


def _new(name: str, cls: type, first: Any, options: dict[str, Any]) -> models.CTRModel:
    # A model passes what it does not know itself to `CTRModel`.
    known = {*list(inspect.signature(cls).parameters)[1:], "name", "trainable"} - {"kwargs"}
    _check_known(name, options, known)
    return cls(first, **options)


def _check_known(name: str, options: dict[str, Any], known: set[str]) -> None:
    unknown = sorted(set(options) - known)
    if unknown:
        raise ValueError(
            f"{name} does not take the option {unknown[0]!r}, but {', '.join(sorted(known))}. "
            f"Received: `options={options}`"
        )
