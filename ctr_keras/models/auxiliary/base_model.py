"""What an auxiliary task needs to know of the model it is added to."""

import dataclasses
from collections.abc import Iterable

import keras
from keras import KerasTensor

from ctr_keras.models.ctr_model import CTRModel
from ctr_keras.schema import Schema

NAMES = ("logit", "user", "item", "history", "history_mask")


@dataclasses.dataclass(frozen=True)
class BaseTensors:
    """A base model's schema, its tensors by name, and the weights of its own auxiliary losses."""

    schema: Schema
    tensors: dict[str, KerasTensor]
    auxiliary_weights: dict[str, float]

    @classmethod
    def of(
        cls, base: keras.Model, schema: Schema | None = None, names: dict[str, str] | None = None
    ) -> "BaseTensors":
        """Of a model of this package, or of a functional model whose layers `names` points to.

        Raises:
            TypeError: `base` is no functional model.
            ValueError: it lacks a tensor for user and item, or a named layer.
        """
        if isinstance(base, CTRModel):
            if schema is not None or names is not None:
                raise ValueError(
                    "A model of this package knows its schema and tensors. Received: "
                    f"`schema={schema!r}`, `tensors={names!r}`"
                )
            found = cls(base.schema, base.tensors, base.auxiliary_weights)
        else:
            found = cls(*_of_functional(base, schema, names), {})
        _check(base, found.tensors)
        return found


def check_losses_apart(base: keras.Model, names: Iterable[str]) -> None:
    """Refuse a base that has an auxiliary loss of one of these names already."""
    taken = sorted(set(getattr(base, "auxiliary_weights", {})) & set(names))
    if taken:
        raise ValueError(
            f"The base has the auxiliary losses {taken} already. Received: `base={base.name!r}`"
        )


def _of_functional(base, schema, names) -> tuple[Schema, dict[str, KerasTensor]]:
    if not isinstance(base, keras.Model) or not isinstance(getattr(base, "input", None), dict):
        raise TypeError(
            "`base` must be a model of ctr_keras, or a functional `keras.Model` whose inputs are "
            f"a dict keyed by feature name. Received: `base={base!r}`"
        )
    if schema is None or names is None:
        raise ValueError(
            "A base that is not of ctr_keras needs `schema`, and `tensors` to name the layers of "
            f"{', '.join(NAMES)}. Received: `schema={schema!r}`, `tensors={names!r}`"
        )
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        raise ValueError(f"`tensors` takes {', '.join(NAMES)}. Received: `tensors` with {unknown}")
    schema = Schema.of(schema)
    missing = sorted(set(base.input) - {feature.name for feature in schema.inputs})
    if missing:
        raise ValueError(
            f"The schema lacks inputs of the base: {missing}. Received: `schema={schema.names}`"
        )
    layers = {layer.name: layer for layer in base.layers}
    tensors = {}
    for key, name in names.items():
        if name not in layers:
            raise ValueError(
                f"`tensors[{key!r}]` must name a layer of the base: one of {sorted(layers)}. "
                f"Received: `{name!r}`"
            )
        tensors[key] = layers[name].output
    return schema, tensors


def _check(base: keras.Model, tensors: dict[str, KerasTensor]) -> None:
    def needs(what: str):
        raise ValueError(
            f"The base must have {what}: a feature of that role in its schema, or a layer named "
            f"in `tensors`. Received: `base={base.name!r}` with {sorted(tensors)}"
        )

    if "logit" not in tensors:
        needs("a tensor `logit`, (batch, 1)")
    if "item" not in tensors:
        needs("a tensor `item`, (batch, width)")
    if "user" not in tensors and "history" not in tensors:
        needs("a tensor `user`, (batch, width), or `history`, (batch, length, width)")
    if "history" in tensors and "history_mask" not in tensors:
        needs("a tensor `history_mask`, bool (batch, length)")
