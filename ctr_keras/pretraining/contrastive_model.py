"""Training of an encoder on what people searched for and then took (SCL)."""

import math
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from ctr_keras.api_export import export
from ctr_keras.losses import info_nce, info_nce_with_bank, triplet_loss
from ctr_keras.optimizers.build_first import build_optimizer
from ctr_keras.pretraining.memory_bank import SIZE, MemoryBank

_LEAST_TEMPERATURE = 0.01


@export
class ContrastiveModel(keras.Model):
    """Semantic-aware contrastive learning: the vector of a query near that of the item it led to.

        loss = info_nce(q, k, keys of the bank; temperature) + triplet_weight * triplet(q, k, n)

    `q` is the encoder's vector of a query, `k` that of its item, `n` that of an item that looks
    alike and is not what was looked for. With a bank, `k` and `n` come from a copy of the encoder
    that follows it slowly and has no gradient, and every `k` joins the bank after the step, so that
    its own batch is not counted twice:

        copy <- momentum * copy + (1 - momentum) * encoder

    Without one (`bank_size` 0) the batch alone gives negatives, and the gradient flows into all.
    The temperature is learned, as CLIP does: `exp(-s)`, with `s` at most `log(100)`. An item that
    occurs again, in the batch or the bank, is no negative of itself; another item that the same
    query led to is one.

    Queries may be of another kind than items, such as titles of pictures: `query_encoder` makes
    their vectors then. The loss is CLIP's, the mean of that from queries to items and that from
    items to queries, without a bank: its keys would have no gradient, and the encoder no other.

    Batches are dicts: `query` and `item`, what their encoders take; `item_id`, integers that
    tell items apart; `negative`, unless `triplet_weight` is 0, and optionally `has_negative`, bool,
    where some rows have none. `read_pairs` makes such batches. Calling the model encodes.

    Args:
        encoder: A Keras model whose output is unit vectors `(batch, width)`, with an attribute
            `width` and a configuration, such as `TextEncoder` or `ImageEncoder`. Where only the
            last layers of a `TextEncoder` learn, its `head` does the same at a fraction of the
            work, with `encoder.states` of texts that are made beforehand.
        bank_size: Slots of the memory bank, or 0 for none, with which an encoder of random weights
            learns faster.
        momentum: Share of the copy that stays at each step.
        temperature: Where it starts.
        triplet_weight: Weight of the triplet loss, 0 for none, where batches have no `negative`.
        margin: Of the triplet loss.
        query_encoder: A built layer or model of queries, whose output is vectors of any length
            `(batch, width)`; by default `encoder` is.
        **kwargs: `name` of `keras.Model`.

    Raises:
        ValueError: a setting is out of range, a batch lacks what it needs, or a strategy has more
            than one replica.

    Example:

    >>> encoder = ck.pretraining.TextEncoder.from_preset()
    >>> encoder.train_last(2)
    >>> model = ck.pretraining.ContrastiveModel(encoder, bank_size=10_000)
    >>> model.compile(keras.optimizers.Adam(2e-5))
    >>> pairs = ck.pretraining.read_pairs("tf_data/home-depot/train", shuffle=True)
    >>> model.fit(pairs, shuffle=False)

    Reference:
        - [Sheng et al., 2024: Enhancing Taobao Display Advertising with Multimodal
          Representations](https://arxiv.org/abs/2407.19467), semantic-aware contrastive learning
        - [He et al., 2019: Momentum Contrast](https://arxiv.org/abs/1911.05722), algorithm 1
    """

    def __init__(
        self,
        encoder: keras.Model,
        bank_size: int = SIZE,
        momentum: float = 0.999,
        temperature: float = 0.07,
        triplet_weight: float = 1.0,
        margin: float = 0.2,
        query_encoder: keras.layers.Layer | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        replicas = self.distribute_strategy.num_replicas_in_sync
        if replicas > 1:
            raise ValueError(
                "The negatives and the bank are those of one device: make and train the model "
                f"outside of a strategy's scope. Received: a strategy of {replicas} replicas"
            )
        if not isinstance(bank_size, int) or bank_size < 0:
            raise ValueError(
                f"`bank_size` must be 0 or a positive integer. Received: `bank_size={bank_size!r}`"
            )
        if not 0 <= momentum < 1:
            raise ValueError(f"`momentum` must be in [0, 1). Received: `momentum={momentum}`")
        if not _LEAST_TEMPERATURE <= temperature:
            raise ValueError(
                f"`temperature` must be at least {_LEAST_TEMPERATURE}. "
                f"Received: `temperature={temperature}`"
            )
        if not triplet_weight >= 0:
            raise ValueError(
                "`triplet_weight` must not be negative. "
                f"Received: `triplet_weight={triplet_weight}`"
            )
        if not 0 <= margin < math.inf:
            raise ValueError(f"`margin` must not be negative. Received: `margin={margin}`")
        if query_encoder is not None and bank_size:
            raise ValueError(
                "`query_encoder` goes with `bank_size=0`, else nothing of `encoder` would learn. "
                f"Received: `bank_size={bank_size}`"
            )
        self.encoder = encoder
        self.bank_size = bank_size
        self.momentum = momentum
        self.temperature = temperature
        self.triplet_weight = triplet_weight
        self.margin = margin
        self.query_encoder = query_encoder
        self.sharpness = self.add_weight(
            name="sharpness",
            shape=(),
            initializer=keras.initializers.Constant(-math.log(temperature)),
            constraint=_AtMost(-math.log(_LEAST_TEMPERATURE)),
        )
        self.bank = self.slow_encoder = None
        if bank_size:
            self.bank = MemoryBank(encoder.width, bank_size, name="bank")
            self.slow_encoder = type(encoder).from_config(encoder.get_config())
            self.slow_encoder.trainable = False
            self.slow_encoder.set_weights(encoder.get_weights())
        self._names = ["info_nce", *(["triplet"] if triplet_weight else []), "temperature"]
        self._means = {name: keras.metrics.Mean(name=name) for name in ("loss", *self._names)}
        self.built = True

    def call(self, inputs, training=False):
        return self.encoder(inputs, training=training)

    def make_train_function(self, force=False):
        if self.encoder.built:
            build_optimizer(self)
        return super().make_train_function(force)

    def train_step(self, data):
        batch = keras.utils.unpack_x_y_sample_weight(data)[0]
        _check_batch(batch)
        with tf.GradientTape() as tape:
            losses, keys = self._pair_losses(batch, training=True)
            total = self._total(losses)
            scaled = self.optimizer.scale_loss(total)
        weights = self.trainable_weights
        gradients = tape.gradient(scaled, weights)
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        if self.bank is not None and self.slow_encoder is not None:
            self._follow(self.slow_encoder)
            # Once nothing needs the keys that are there, they are overwritten in place.
            with tf.control_dependencies([g for g in gradients if g is not None]):
                self.bank.add(keys, batch["item_id"])
        return self._logs(losses, total, batch)

    def test_step(self, data):
        batch = keras.utils.unpack_x_y_sample_weight(data)[0]
        _check_batch(batch)
        losses, _ = self._pair_losses(batch, training=False)
        return self._logs(losses, self._total(losses), batch)

    def _pair_losses(self, batch: dict, training: bool) -> tuple[dict[str, Any], Any]:
        """The losses by name, and the keys of the batch."""
        queries = (self.query_encoder or self.encoder)(batch["query"], training=training)
        keys = self._keys(batch["item"], training)
        temperature = ops.exp(-self.sharpness)
        ids = batch["item_id"]
        if self.query_encoder is not None:
            both = info_nce(queries, keys, temperature, query_ids=ids, key_ids=ids, symmetric=True)
            loss = both / 2
        elif self.bank is None:
            loss = info_nce(queries, keys, temperature, key_ids=ids)
        else:
            loss = info_nce_with_bank(
                queries, keys, self.bank.keys, temperature, bank_mask=self.bank.in_use,
                key_ids=tf.cast(ids, tf.int64), bank_ids=self.bank.ids,
            )  # fmt: skip
        losses = {"info_nce": loss}
        if self.triplet_weight:
            if "negative" not in batch:
                raise ValueError(
                    "The triplet loss needs `negative` in each batch; without hard negatives set "
                    f"`triplet_weight=0`. Received: a batch of {sorted(batch)}"
                )
            losses["triplet"] = self._triplet(queries, keys, batch, training)
        return losses, keys

    def _triplet(self, queries: Any, keys: Any, batch: dict, training: bool) -> Any:
        """Of the rows with a negative, the only ones that are encoded."""
        negatives = batch["negative"]
        if "has_negative" in batch:
            rows = tf.where(batch["has_negative"])[:, 0]
            queries, keys, negatives = (tf.gather(x, rows) for x in (queries, keys, negatives))
        return triplet_loss(queries, keys, self._keys(negatives, training), self.margin)

    def _keys(self, items: Any, training: bool) -> Any:
        if self.slow_encoder is None:
            return self.encoder(items, training=training)
        return ops.stop_gradient(self.slow_encoder(items, training=False))

    def _total(self, losses: dict[str, Any]) -> Any:
        return losses["info_nce"] + self.triplet_weight * losses.get("triplet", 0.0)

    def _follow(self, copy: keras.Model) -> None:
        """Move the copy a little towards the encoder."""
        for slow, fast in zip(copy.weights, self.encoder.weights, strict=True):
            if "float" in keras.backend.standardize_dtype(slow.dtype):
                slow.assign(self.momentum * slow + (1 - self.momentum) * fast)

    def _logs(self, losses: dict[str, Any], total: Any, batch: dict) -> dict[str, Any]:
        rows = tf.shape(batch["item_id"])[0]
        counts = {}
        if "has_negative" in batch:  # The triplet loss is the mean of these rows.
            counts["triplet"] = tf.reduce_sum(tf.cast(batch["has_negative"], tf.int32))
        values = {"loss": total, **losses, "temperature": ops.exp(-self.sharpness)}
        for name, value in values.items():
            self._means[name].update_state(value, sample_weight=counts.get(name, rows))
        return {name: metric.result() for name, metric in self._means.items()}

    @property
    def metrics(self):
        return list(self._means.values())

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "bank_size": self.bank_size,
            "momentum": self.momentum,
            "temperature": self.temperature,
            "triplet_weight": self.triplet_weight,
            "margin": self.margin,
            "query_encoder": keras.saving.serialize_keras_object(self.query_encoder),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        encoders = {
            name: keras.saving.deserialize_keras_object(config.get(name), custom_objects)
            for name in ("encoder", "query_encoder")
        }
        return cls(**{**config, **encoders})


class _AtMost(keras.constraints.Constraint):
    """Keeps a weight from growing beyond a bound."""

    def __init__(self, bound: float):
        self.bound = bound

    def __call__(self, w):
        return ops.minimum(w, self.bound)


def _check_batch(batch: Any) -> None:
    missing = [name for name in ("query", "item", "item_id") if name not in batch]
    if missing:
        raise ValueError(
            f"A batch needs `query`, `item` and `item_id`. Received: {sorted(batch)} without "
            f"`{missing[0]}`"
        )
