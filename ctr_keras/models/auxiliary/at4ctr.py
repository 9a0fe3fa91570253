"""Auxiliary match tasks on any base model."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from ctr_keras.api_export import export
from ctr_keras.layers.mlp import check_units
from ctr_keras.models.auxiliary.base_model import BaseTensors, check_losses_apart
from ctr_keras.models.auxiliary.leading import leading
from ctr_keras.models.auxiliary.next_item_prediction import NextItemPrediction
from ctr_keras.models.auxiliary.user_item_match import UserItemMatch
from ctr_keras.models.ctr_model import CTRModel
from ctr_keras.schema import Schema


@export
class AT4CTR(CTRModel):
    """Trains a base model with two contrastive match tasks: user-item match and next item.

        loss = ctr_loss + uim_weight * uim_loss + nip_weight * nip_loss

    Both work on the base's own embeddings and only while it trains: the probability, `predict` and
    the exported SavedModel are the base's, which shares its weights. A base without a history has
    the user-item match alone; auxiliary losses of the base itself stay. Sample weights weigh the
    clicks that are matched as they weigh `ctr_loss`; the next item, which is no matter of clicks,
    they leave alone.

    Args:
        base: Any model of this package, or any functional `keras.Model` whose inputs are the
            schema's features by name; then `schema` and `tensors` tell what it is made of.
        uim_weight: Weight of the user-item match; 0 leaves it out.
        nip_weight: Weight of the next-item prediction; 0 leaves it out. Large values hurt.
        uim_temperature: Temperature of the user-item match.
        nip_temperature: Temperature of the next-item prediction.
        units: Widths of the layers that project user and item before they are compared: ReLU
            between them, the last one linear.
        num_heads: Heads of the two self-attentions.
        rows: How many rows of a batch the tasks use, its first ones: their cost grows with the
            square of it. By default all, as in the paper.
        keep_repeats: Whether rows of the same item (user) stay negatives of a click's user (item),
            as in the paper. By default they are left out, being matches in truth. Items out of
            vocabulary, which share an embedding, are one item; users who are missing or out of
            vocabulary are each another.
        user_key: Feature that tells users apart; by default the first one of role `group`, else the
            user's id.
        schema: `ck.Schema` of a base that is not of this package.
        tensors: Which layers' outputs a base that is not of this package is made of: a dict from
            `"logit"`, `"user"`, `"item"`, `"history"`, `"history_mask"` to names of layers. `logit`
            `(batch, 1)` and `item` `(batch, I)` are needed, and one of `user` `(batch, U)` and
            `history` `(batch, length, W)`, which needs its bool mask.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Raises:
        ValueError: the base lacks a tensor that is needed, or a setting is out of range.

    Example:

    >>> base = ck.models.DIN(schema, embedding_dim=16)
    >>> model = ck.models.AT4CTR(base, uim_weight=0.1, nip_weight=0.01)
    >>> model.compile(ck.optimizers.LazyAdam(1e-3), metrics=["AUC"])

    Reference:
        [Liu et al., 2023: AT4CTR](https://arxiv.org/abs/2312.06683)
    """

    def __init__(
        self,
        base: keras.Model,
        uim_weight: float = 0.1,
        nip_weight: float = 0.01,
        uim_temperature: float = 0.07,
        nip_temperature: float = 0.1,
        units: Sequence[int] = (64, 32),
        num_heads: int = 1,
        rows: int | None = None,
        keep_repeats: bool = False,
        user_key: str | None = None,
        schema: Schema | None = None,
        tensors: dict[str, str] | None = None,
        **kwargs: Any,
    ):
        _check_settings(
            uim_weight=uim_weight, nip_weight=nip_weight,
            uim_temperature=uim_temperature, nip_temperature=nip_temperature, rows=rows,
        )  # fmt: skip
        parts = BaseTensors.of(base, schema, tensors)
        has_history = "history" in parts.tensors
        weights = {"uim_loss": uim_weight, "nip_loss": nip_weight if has_history else 0}
        weights = {name: weight for name, weight in weights.items() if weight}
        check_losses_apart(base, weights)
        super().__init__(
            parts.schema,
            base.input,
            parts.tensors["logit"],
            parts.tensors,
            {**parts.auxiliary_weights, **weights},
            **kwargs,
        )
        self.base = base
        self.uim_weight = uim_weight
        self.nip_weight = nip_weight
        self.uim_temperature = uim_temperature
        self.nip_temperature = nip_temperature
        self.units = tuple(check_units(units))
        self.num_heads = num_heads
        self.rows = rows
        self.keep_repeats = keep_repeats
        self.user_key = user_key
        self.base_tensors = None if tensors is None else dict(tensors)
        shapes = {name: tensor.shape for name, tensor in parts.tensors.items()}
        if "uim_loss" in weights:
            self.user_item_match = UserItemMatch(
                units, num_heads, uim_temperature, name="user_item_match"
            )
            self.user_item_match.build(shapes.get("user"), shapes["item"], shapes.get("history"))
        if "nip_loss" in weights:
            self.next_item_prediction = NextItemPrediction(
                num_heads, nip_temperature, name="next_item_prediction"
            )
            self.next_item_prediction.build(shapes["history"])

    def auxiliary_losses(self, x, y, tensors, sample_weight):
        losses = {}
        if isinstance(self.base, CTRModel):
            losses = self.base.auxiliary_losses(x, y, tensors, sample_weight)
        part = {name: self._rows_in_use(tensor) for name, tensor in tensors.items()}
        if sample_weight is not None:
            sample_weight = self._rows_in_use(ops.reshape(sample_weight, (-1,)))
        ids = {} if self.keep_repeats else self._ids(x)
        if "uim_loss" in self.auxiliary_weights:
            losses["uim_loss"] = self.user_item_match(
                part.get("user"),
                part["item"],
                part.get("history"),
                part.get("history_mask"),
                self._rows_in_use(ops.reshape(y, (-1,))) > 0.5,
                ids.get("user"),
                ids.get("item"),
                sample_weight,
            )
        if "nip_loss" in self.auxiliary_weights:
            losses["nip_loss"] = self.next_item_prediction(
                part["history"], part["history_mask"], ids.get("history")
            )
        return losses

    def _ids(self, x):
        """What tells users, items and past items apart, of the rows in use."""
        item = self.schema.key("item")
        groups = [feature.name for feature in self.schema.by_role("group")]
        histories = self.schema.by_role("history")
        past = [f.name for f in histories if item is not None and f.shares == item]
        names = {
            "user": self.user_key or next(iter(groups), self.schema.key("user")),
            "item": item,
            "history": next(iter(past), None),
        }
        missing = sorted({name for name in names.values() if name is not None} - set(x))
        if missing:
            raise ValueError(
                f"To tell repeated users and items apart the batch needs {missing}, as "
                "`ck.data.read` yields it; `keep_repeats=True` does without. "
                f"Received: `x={sorted(x)}`"
            )
        ids = {
            key: self._rows_in_use(ops.convert_to_tensor(x[name]))
            for key, name in names.items()
            if name is not None
        }
        if "user" in ids:
            ids["user"] = self._apart(names["user"], ids["user"])
        return ids

    def _apart(self, name, users):
        """The keys of users, each unknown one another: what they lack tells nothing of who."""
        users = ops.cast(users, "int64")
        # So low that no user's own key is there.
        others = ops.arange(ops.shape(users)[0], dtype="int64") + np.iinfo("int64").min
        return ops.where(self.schema.is_known(name, users), users, others)

    def _rows_in_use(self, tensor):
        if self.rows is None:
            return tensor
        return leading(tensor, 0, ops.minimum(ops.shape(tensor)[0], self.rows))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        if isinstance(self.base, CTRModel):
            del config["schema"]
        return {
            **config,
            "base": keras.saving.serialize_keras_object(self.base),
            "uim_weight": self.uim_weight,
            "nip_weight": self.nip_weight,
            "uim_temperature": self.uim_temperature,
            "nip_temperature": self.nip_temperature,
            "units": list(self.units),
            "num_heads": self.num_heads,
            "rows": self.rows,
            "keep_repeats": self.keep_repeats,
            "user_key": self.user_key,
            "tensors": self.base_tensors,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        base = keras.saving.deserialize_keras_object(config["base"], custom_objects)
        return super().from_config({**config, "base": base}, custom_objects)


def _check_settings(**settings: Any) -> None:
    for name, value in settings.items():
        if name.endswith("weight") and not value >= 0:
            raise ValueError(f"`{name}` must not be negative. Received: `{name}={value}`")
        if name.endswith("temperature") and not value > 0:
            raise ValueError(f"`{name}` must be positive. Received: `{name}={value}`")
    rows = settings["rows"]
    if rows is not None and not (isinstance(rows, int) and rows > 0):
        raise ValueError(f"`rows` must be a positive integer or None. Received: `rows={rows}`")
