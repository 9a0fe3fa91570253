"""Dropout of ids, so that content carries users and items that have none."""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from ctr_keras.api_export import export
from ctr_keras.models.cold_start.id_vectors import check_base, with_id_vectors
from ctr_keras.models.ctr_model import CTRModel
from ctr_keras.models.saved_seed import SavedSeed
from ctr_keras.models.wrapping_model import WrappingModel
from ctr_keras.schema import OUT_OF_VOCABULARY_ID

FILLS = ("zero", "mean")
_MEAN_MOMENTUM = 0.99


@export
class DropoutNet(WrappingModel):
    """Trains a base model on rows whose user or item has lost its id embedding.

        u <  user_rate:      the user's id embedding is replaced
        u >= 1 - item_rate:  the item's,                            u uniform in [0, 1), one a row

    Everything else of the row stays, so the model learns to rank by content and by the other
    side's id. An id that the vocabulary lacks (id 1) has the same input, in training, `predict` and
    the exported SavedModel alike. The paper replaces an embedding by zeros or by the mean of what
    the user or item interacted with; here `"mean"` is the mean over the rows of training, a moving
    one. Only the feature that tells users (items) apart is replaced: past items keep their ids, and
    a cross of that feature (`WideDeep`) still tells it. A hashed id is never unknown.

    The model shares its weights with the base and trains them; the base's own auxiliary losses
    stay. Of a base with an id of one side only, the other side's rate must be 0.

    Args:
        base: A model of this package.
        user_rate: Share of rows that lose the user's id embedding.
        item_rate: Share of rows that lose the item's.
        fill: What it is replaced by: `"zero"` or `"mean"`.
        seed: Seed of the draws; by default it follows `ck.set_seed`.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Raises:
        ValueError: the base embeds no id of a side whose rate is not 0, or a setting is out of
            range.

    Example:

    >>> model = ck.models.DropoutNet(ck.models.DeepFM(schema, embedding_dim=16))
    >>> model.compile(ck.optimizers.LazyAdam(1e-3))

    Reference:
        [Volkovs et al., 2017:
        DropoutNet](https://papers.nips.cc/paper/7081-dropoutnet-addressing-cold-start-in-recommender-systems)
    """

    def __init__(
        self,
        base: CTRModel,
        user_rate: float = 0.25,
        item_rate: float = 0.25,
        fill: str = "zero",
        seed: int | None = None,
        **kwargs: Any,
    ):
        if not (user_rate >= 0 and item_rate >= 0 and user_rate + item_rate <= 1):
            raise ValueError(
                "`user_rate` and `item_rate` must not be negative and sum to at most 1. "
                f"Received: `user_rate={user_rate}`, `item_rate={item_rate}`"
            )
        if fill not in FILLS:
            raise ValueError(f"`fill` must be one of {FILLS}. Received: `fill={fill!r}`")
        rates = {"user": user_rate, "item": item_rate}
        keys = {role: check_base(base, role) for role, rate in rates.items() if rate}
        first = base.input[next(iter(keys.values()))] if keys else None
        drawn = RowDraw(seed, name="row_draw")(first) if keys else None

        def replacement(role: str):
            start = 0.0 if role == "user" else 1 - item_rate

            def replace(table: str, vectors):
                layer = IdDropout(start, start + rates[role], fill, name=f"{table}_{role}_dropout")
                return layer(vectors, base.input[keys[role]], drawn)

            return replace

        tensors = with_id_vectors(base, {keys[role]: replacement(role) for role in keys})
        super().__init__(
            base.schema, base.input, tensors["logit"], tensors, base.auxiliary_weights, **kwargs
        )
        self.base = base
        self.user_rate = user_rate
        self.item_rate = item_rate
        self.fill = fill
        self.seed = seed

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "user_rate": self.user_rate,
            "item_rate": self.item_rate,
            "fill": self.fill,
            "seed": self.seed,
        }


@export
class RowDraw(keras.layers.Layer):
    """A number in [0, 1) a row in training, another one each time; -1 outside of it."""

    def __init__(self, seed: int | None = None, **kwargs: Any):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.random = SavedSeed(seed, name="random")

    def call(self, ids, training=False):
        if not training:
            return tf.fill(tf.shape(ids), -1.0)
        return tf.random.stateless_uniform(tf.shape(ids), self.random.next())

    def compute_output_spec(self, ids, training=False):
        return keras.KerasTensor(ids.shape, "float32")


@export
class IdDropout(keras.layers.Layer):
    """Replaces the id embedding of rows whose draw lies in an interval, or whose id is unknown.

    Args:
        start: Least draw that drops.
        stop: From where on a draw drops no more.
        fill: `"zero"`, or `"mean"` for the moving mean of the embeddings that training looks up,
            which begins at zero and moves a hundredth a batch.
    """

    def __init__(self, start: float, stop: float, fill: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.start = start
        self.stop = stop
        self.fill = fill

    def build(self, vectors_shape, ids_shape=None, drawn_shape=None):
        if self.fill == "mean":
            self.mean = self.add_weight(
                name="mean",
                shape=(vectors_shape[-1],),
                initializer="zeros",
                trainable=False,
                autocast=False,  # Small steps would vanish in less.
            )

    def call(self, vectors, ids, drawn, training=False):
        dropped = ops.logical_and(drawn >= self.start, drawn < self.stop)
        dropped = ops.logical_or(dropped, ids == OUT_OF_VOCABULARY_ID)
        if self.fill == "zero":
            return ops.where(dropped[:, None], ops.zeros((), vectors.dtype), vectors)
        if training:
            self._follow(vectors, ids)
        return ops.where(dropped[:, None], ops.cast(self.mean, vectors.dtype), vectors)

    def _follow(self, vectors, ids):
        known = ops.cast(ids > OUT_OF_VOCABULARY_ID, "float32")
        count = ops.sum(known)
        total = ops.sum(ops.cast(vectors, "float32") * known[:, None], axis=0)
        mean = ops.stop_gradient(total / ops.maximum(count, 1))
        share = (1 - _MEAN_MOMENTUM) * ops.cast(count > 0, "float32")
        self.mean.assign(self.mean + share * (mean - self.mean))

    def compute_output_shape(self, vectors_shape, ids_shape=None, drawn_shape=None):
        return vectors_shape
