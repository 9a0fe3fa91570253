"""What rankers with item representations have in common: a base that takes what is made of them."""

import dataclasses

from keras import KerasTensor, ops

from ctr_keras.models.ctr_model import CTRModel
from ctr_keras.models.features import model_inputs
from ctr_keras.models.wrapping_model import tensors_through
from ctr_keras.schema import Feature, Schema

_SUFFIX = "_vector"


@dataclasses.dataclass(frozen=True)
class ItemVectors:
    """The representations of the target item and of the past items, as inputs of a model.

    Attributes:
        schema: The features of the rows, those vectors among them.
        inputs: All inputs, by name.
        target: `(batch, width)`.
        history: `(batch, length, width)`.
        mask: Where there is a past item: bool `(batch, length)`.
    """

    schema: Schema
    inputs: dict[str, KerasTensor]
    target: KerasTensor
    history: KerasTensor
    mask: KerasTensor

    @classmethod
    def of(cls, schema: Schema, width: int, model: str) -> "ItemVectors":
        """Of rows with these features, and vectors of this width.

        Raises:
            ValueError: the schema has no history of items.
        """
        key, past = history_of(schema, model)
        schema = schema.with_item_vectors(width)
        inputs = model_inputs(schema)
        return cls(
            schema,
            inputs,
            inputs[key + _SUFFIX],
            inputs[past + _SUFFIX],
            ops.not_equal(inputs[past], 0),
        )

    @property
    def known(self) -> KerasTensor:
        """Where there is a past item with a vector: bool `(batch, length)`."""
        return ops.logical_and(self.mask, ops.any(ops.not_equal(self.history, 0), axis=-1))

    def through(self, base: CTRModel, made: dict[str, KerasTensor]) -> dict[str, KerasTensor]:
        """The tensors of a base, some inputs of which are made of the representations."""
        return tensors_through(base, {**self.inputs, **made})


def history_of(schema: Schema, model: str) -> tuple[str, str]:
    """The id of the target item and the feature with those of past items."""
    key = schema.key("item")
    past = [f.name for f in schema.by_role("history") if key is not None and f.shares == key]
    if key is None or not past:
        raise ValueError(
            f"{model} needs an id of items and a history that shares it, such as "
            '`Feature("history_item_id", role="history", length=50, shares="item_id")`. '
            f"Received: `features={schema.names}`"
        )
    return key, past[0]


def without(schema: Schema, names: set[str], model: str) -> Schema:
    """The features of the rows: those of a base but what is made of representations.

    Raises:
        ValueError: the base does not take it.
    """
    missing = sorted(names - set(schema.names))
    if missing:
        raise ValueError(
            f"The base of {model} must take {missing[0]!r}; `{model}.on` builds one that does. "
            f"Received: a base with `features={schema.names}`"
        )
    return Schema(tuple(f for f in schema if f.name not in names))


def made_vector(name: str, width: int, projected: bool) -> Feature:
    """The feature of a base that is made of the target's and the past items' representations."""
    return Feature(
        name, "item", kind="vector", width=width, crossed=True, unprojected=not projected
    )


def extended(schema: Schema, *features: Feature) -> Schema:
    """The features of a base, with what is made of representations."""
    return Schema((*Schema.of(schema), *features))
