"""Deep match to rank."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from ctr_keras.api_export import export
from ctr_keras.argument_checks import check_positive_integer
from ctr_keras.layers import MLP, FeatureEmbedding
from ctr_keras.layers.mlp import check_units
from ctr_keras.models.auxiliary.recency_attention import RecencyAttention
from ctr_keras.models.ctr_model import CTRModel
from ctr_keras.models.features import (
    ItemHistory,
    auxiliary_tensors,
    embed,
    model_inputs,
    scaled,
)
from ctr_keras.models.saved_seed import SavedSeed
from ctr_keras.schema import RESERVED_IDS, Schema


@export
class DMR(CTRModel):
    """Deep match to rank: relevance of user and item by two networks, as features of an MLP.

        user-to-item:  u = PReLU(W sum_t softmax_t(a_t) e_t);   r = u . v'_target
        item-to-item:  u^ = sum_t softmax_t(b_t) e_t;           r^ = sum_t b_t
        logit        = MLP([v_1, ..., v_F, u^, r, r^])
        match_loss   = -log softmax(u_(T-1) . v')_T             sampled softmax
        loss         = ctr_loss + match_weight * match_loss

    where `a_t` scores past item `t` by its embedding and its position from the end, `b_t` also by
    the target item, and `v'` is a second table of item embeddings. The auxiliary loss predicts the
    last past item from those before it.

    Args:
        schema: `ck.Schema` whose history shares the target item's id.
        embedding_dim: Width of the embeddings.
        units: Widths of the MLP's layers.
        attention_units: Width of the hidden layer of both attentions.
        match_weight: Weight of the match loss; 0 leaves it out.
        negatives: Items the softmax is sampled over, drawn evenly from the vocabulary once a
            batch; all items where there are not more.
        activation: Activation of the MLP.
        dropout: Share of the MLP's outputs dropped in training.
        l2: Weight of the squared norm of the table rows that a batch touches, those aside that the
            match loss alone does.
        seed: Seed of the negatives.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Example:

    >>> model = ck.models.DMR(schema, embedding_dim=16)
    >>> model.compile(ck.optimizers.LazyAdam(1e-3))

    Reference:
        [Lyu et al., 2020: Deep Match to Rank Model](https://doi.org/10.1609/aaai.v34i01.5346)
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        units: Sequence[int] = (200, 80),
        attention_units: int = 32,
        match_weight: float = 0.1,
        negatives: int = 2000,
        activation: str = "relu",
        dropout: float = 0.0,
        l2: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ):
        check_positive_integer("negatives", negatives)
        schema = Schema.of(schema)
        inputs = model_inputs(schema)
        fields = embed(schema, scaled(schema, inputs), embedding_dim, "embedding", l2)
        history = ItemHistory.of(fields, "DMR")
        of_user_alone = ItemHistory.of(fields, "DMR", crossed=False)
        item_id, past_item = _item_ids(schema, history.names)
        vocabulary = schema.vocabulary(item_id)
        size = 0 if vocabulary is None else vocabulary.size

        of_user = RecencyAttention(attention_units, name="user_to_item_attention")
        pooled, _ = of_user(of_user_alone.items, of_user_alone.mask)
        to_user = keras.Sequential(
            [keras.layers.Dense(embedding_dim), keras.layers.PReLU()], name="user_vector"
        )
        outputs = FeatureEmbedding({item_id: size}, embedding_dim, l2=l2, name="output_embedding")
        target_out = outputs({item_id: inputs[item_id]})[item_id]
        relevance = ops.sum(to_user(pooled) * target_out, axis=-1, keepdims=True)

        interest, scores = RecencyAttention(attention_units, name="item_to_item_attention")(
            history.items, history.mask, history.target
        )
        intensity = ops.sum(scores, axis=-1, keepdims=True)
        joint = fields.deep_input(interest, relevance, intensity, without=history.names)
        deep = MLP(units, activation=activation, dropout=dropout, name="mlp")(joint)
        logit = keras.layers.Dense(1, name="logit")(deep)
        super().__init__(
            schema,
            inputs,
            logit,
            {**auxiliary_tensors(fields), "past_items": inputs[past_item]},
            {"match_loss": match_weight} if match_weight else {},
            **kwargs,
        )
        self.embedding_dim = embedding_dim
        self.units = tuple(check_units(units))
        self.attention_units = attention_units
        self.match_weight = match_weight
        self.negatives = negatives
        self.activation = activation
        self.dropout = dropout
        self.l2 = l2
        self.seed = seed
        self.num_items = size
        if match_weight:
            self.random = SavedSeed(seed, name="random")

    def auxiliary_losses(self, x, y, tensors, sample_weight):
        if not self.match_weight:
            return {}
        ids, mask = tensors["past_items"], tensors["history_mask"]
        before = ops.concatenate([mask[:, 1:], ops.zeros_like(mask[:, :1])], axis=1)
        pooled, _ = self.get_layer("user_to_item_attention")(tensors["history"], before)
        user = self.get_layer("user_vector")(pooled, training=True)
        last = ops.where(mask, ids, 0)
        position = ops.sum(ops.cast(before, "int32"), axis=1, keepdims=True)
        last = ops.take_along_axis(last, ops.cast(position, "int32"), axis=1)[:, 0]
        return {"match_loss": self._sampled_softmax(user, last, ops.any(before, axis=1))}

    def _sampled_softmax(self, user, item, there):
        """Mean over the rows that are `there` of the loss of their item among the drawn ones."""
        drawn = self._draw()
        table = self.get_layer("output_embedding")
        (name,) = table.sizes
        own = ops.sum(user * table({name: item})[name], axis=-1, keepdims=True)
        others = ops.matmul(user, ops.transpose(table({name: drawn})[name]))
        own, others = ops.cast(own, "float32"), ops.cast(others, "float32")
        is_own = ops.equal(ops.cast(item, "int32")[:, None], drawn[None, :])
        others = ops.where(is_own, -1e9, others)
        losses = ops.logsumexp(ops.concatenate([own, others], axis=1), axis=1) - own[:, 0]
        there = ops.cast(there, "float32")
        return ops.sum(losses * there) / ops.maximum(ops.sum(there), 1)

    def _draw(self):
        if self.num_items - RESERVED_IDS <= self.negatives:
            return ops.arange(RESERVED_IDS, self.num_items, dtype="int32")
        return tf.random.stateless_uniform(
            (self.negatives,), self.random.next(), RESERVED_IDS, self.num_items, dtype=tf.int32
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "embedding_dim": self.embedding_dim,
            "units": list(self.units),
            "attention_units": self.attention_units,
            "match_weight": self.match_weight,
            "negatives": self.negatives,
            "activation": self.activation,
            "dropout": self.dropout,
            "l2": self.l2,
            "seed": self.seed,
        }


def _item_ids(schema: Schema, histories: tuple[str, ...]) -> tuple[str, str]:
    """The target item's id and the history of it."""
    item = schema.key("item")
    for name in histories:
        if item is not None and schema[name].shares == item:
            return item, name
    raise ValueError(
        f"DMR needs a history that shares the target item's id. Received: `features={schema.names}`"
    )
