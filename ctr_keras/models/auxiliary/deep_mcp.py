"""Deep matching, correlation and prediction."""

import functools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from ctr_keras.api_export import export
from ctr_keras.argument_checks import check_positive_integer
from ctr_keras.layers import MLP
from ctr_keras.layers.mlp import check_units
from ctr_keras.models.auxiliary.towers import tower
from ctr_keras.models.ctr_model import CTRModel
from ctr_keras.models.features import (
    Fields,
    ItemHistory,
    auxiliary_tensors,
    embed,
    joined,
    model_inputs,
    scaled,
)
from ctr_keras.models.other_items import OtherItems
from ctr_keras.schema import Schema


@export
class DeepMCP(CTRModel):
    """An MLP whose embeddings two more subnets train: matching and correlation.

        prediction:   logit = MLP([v_1, ..., v_F])
        matching:     s_ui = sigmoid(m_user . m_item),  m = tanh tower of the features of one side;
                      log loss against the click
        correlation:  m_t = tanh tower of the t-th past item;
                      mean_t [ -sum_s log sigmoid(m_t . m_s) - sum_q log sigmoid(-m_t . m_q) ]
                      for s within the window of t, and Q items q, each of another row's history
        loss        = ctr_loss + matching_weight * matching_loss
                      + correlation_weight * correlation_loss

    The features of the user's side are those of role `user` and the mean of the history. The
    subnets share the embeddings of the prediction, and serving computes the prediction alone.

    The correlation departs from skip-gram with negative sampling, which the paper takes over: the Q
    negatives are drawn once for each past item `t`, not for each of its pairs `(t, s)`, and the
    mean is that over the items that have a context, of all rows, not over pairs or rows. A drawn
    item that is that of `t` or one within its window is no negative and leaves the sum.

    Args:
        schema: `ck.Schema` with features of the target item, and a history that shares one.
        embedding_dim: Width of the embeddings.
        units: Widths of the prediction's layers.
        tower_units: Widths of each tower's layers, the last one with tanh.
        matching_weight: Weight of the matching loss; 0 leaves it out.
        correlation_weight: Weight of the correlation loss; 0 leaves it out.
        window: How many positions before and after an item are its context.
        negatives: Negatives for each past item, drawn from the other rows of the batch.
        activation: Activation of the prediction's layers.
        dropout: Share of the prediction's hidden outputs dropped in training.
        l2: Weight of the squared norm of the table rows that a batch touches.
        seed: Seed of the negatives.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Example:

    >>> model = ck.models.DeepMCP(schema, embedding_dim=16)
    >>> model.compile(ck.optimizers.LazyAdam(1e-3))

    Reference:
        [Ouyang et al., 2019: Representation Learning-Assisted Click-Through Rate
        Prediction](https://arxiv.org/abs/1906.04365)
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        units: Sequence[int] = (200, 80),
        tower_units: Sequence[int] = (64, 32),
        matching_weight: float = 0.1,
        correlation_weight: float = 0.1,
        window: int = 2,
        negatives: int = 4,
        activation: str = "relu",
        dropout: float = 0.0,
        l2: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ):
        check_positive_integer("window", window)
        check_positive_integer("negatives", negatives)
        schema = Schema.of(schema)
        inputs = model_inputs(schema)
        fields = embed(schema, scaled(schema, inputs), embedding_dim, "embedding", l2)
        history = ItemHistory.of(fields, "DeepMCP", crossed=False)
        deep = MLP(units, activation=activation, dropout=dropout, name="mlp")(fields.deep_input())
        logit = keras.layers.Dense(1, name="logit")(deep)
        pooled = [fields.pooled(name) for name in history.names]
        sides = {
            "user_side": joined([*fields.of_roles("user"), *pooled]),
            "item_side": joined(fields.of_roles("item")),
            "history_ids": _ids_of(fields, history),
        }
        weights = {"matching_loss": matching_weight, "correlation_loss": correlation_weight}
        super().__init__(
            schema,
            inputs,
            logit,
            {**auxiliary_tensors(fields), **sides},
            {name: weight for name, weight in weights.items() if weight},
            **kwargs,
        )
        self.embedding_dim = embedding_dim
        self.units = tuple(check_units(units))
        self.tower_units = tuple(check_units(tower_units, "tower_units"))
        self.matching_weight = matching_weight
        self.correlation_weight = correlation_weight
        self.window = window
        self.negatives = negatives
        self.activation = activation
        self.dropout = dropout
        self.l2 = l2
        self.seed = seed
        if matching_weight:
            self.user_tower = tower(tower_units, "user_tower", "tanh")
            self.user_tower.build(sides["user_side"].shape)
            self.item_tower = tower(tower_units, "item_tower", "tanh")
            self.item_tower.build(sides["item_side"].shape)
        if correlation_weight:
            self.past_item_tower = tower(tower_units, "past_item_tower", "tanh")
            self.past_item_tower.build(history.items.shape)
            self.other_items = OtherItems(seed, name="other_items")

    def auxiliary_losses(self, x, y, tensors, sample_weight):
        losses = {}
        if self.matching_weight:
            user, item = tensors["user_side"], tensors["item_side"]
            score = ops.sum(self.user_tower(user) * self.item_tower(item), axis=-1)
            label = ops.reshape(ops.cast(y, "float32"), (-1,))
            loss = _log_loss(ops.cast(score, "float32"), label)
            if sample_weight is not None:
                loss = loss * ops.reshape(ops.cast(sample_weight, "float32"), (-1,))
            # Over the number of rows whatever their weights, as Keras' mean of the click loss.
            losses["matching_loss"] = ops.mean(loss)
        if self.correlation_weight:
            past, mask = self.past_item_tower(tensors["history"]), tensors["history_mask"]
            ids, negatives = tensors["history_ids"], []
            for _ in range(self.negatives):
                (others, drawn), found = self.other_items([past, ids[..., None]], mask)
                found = ops.logical_and(found, is_elsewhere(drawn[..., 0], ids, self.window))
                negatives.append((others, found))
            losses["correlation_loss"] = skip_gram_loss(past, mask, self.window, negatives)
        return losses

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "embedding_dim": self.embedding_dim,
            "units": list(self.units),
            "tower_units": list(self.tower_units),
            "matching_weight": self.matching_weight,
            "correlation_weight": self.correlation_weight,
            "window": self.window,
            "negatives": self.negatives,
            "activation": self.activation,
            "dropout": self.dropout,
            "l2": self.l2,
            "seed": self.seed,
        }


def is_elsewhere(drawn, ids, window: int):
    """Where a drawn item is neither that of its position nor one within the window.

    Args:
        drawn: Numbers that tell the drawn items apart `(batch, length)`.
        ids: Those of the past items, 0 where padded.
        window: How many positions before and after an item are its context.

    Returns:
        Bool `(batch, length)`.
    """
    length = ids.shape[1]
    padded = ops.pad(ids, [[0, 0], [window, window]])
    around = [padded[:, n : n + length] for n in range(2 * window + 1)]
    return functools.reduce(ops.logical_and, [ops.not_equal(drawn, near) for near in around])


def skip_gram_loss(items, mask, window: int, negatives: list):
    """Mean over the unpadded items with a context of the loss of one item.

    Args:
        items: Vectors of the past items `(batch, length, width)`.
        mask: Where there is one: bool `(batch, length)`.
        window: How many positions before and after an item are its context.
        negatives: Pairs of vectors like `items` and of bool `(batch, length)`, where they count.

    Returns:
        Scalar: per item the sum over its context and its negatives.
    """
    items, mask = ops.cast(items, "float32"), ops.cast(mask, "float32")
    length = items.shape[1]
    distance = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
    context = ops.convert_to_tensor(((distance > 0) & (distance <= window)).astype("float32"))
    context = context * mask[:, :, None] * mask[:, None, :]
    scores = ops.matmul(items, ops.swapaxes(items, 1, 2))
    losses = ops.sum(context * ops.softplus(-scores), axis=-1)
    for others, found in negatives:
        against = ops.sum(items * ops.cast(others, "float32"), axis=-1)
        losses = losses + ops.softplus(against) * ops.cast(found, "float32")
    has_context = ops.cast(ops.sum(context, axis=-1) > 0, "float32")
    return ops.sum(losses * has_context) / ops.maximum(ops.sum(has_context), 1)


def _ids_of(fields: Fields, history: ItemHistory) -> keras.KerasTensor:
    """All ids of a past item as one number `(batch, length)`, 0 where padded."""
    number = 0
    # Vectors are told apart by the ids that they are of.
    for name in dict.fromkeys(fields.schema[name].of or name for name in history.names):
        vocabulary = fields.schema.vocabulary(name)
        assert vocabulary is not None
        number = number * vocabulary.size + ops.cast(fields.ids[name], "int64")
    return number


def _log_loss(logits, labels):
    return ops.softplus(logits) - labels * logits
