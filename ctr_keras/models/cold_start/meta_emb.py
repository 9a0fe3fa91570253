"""Initial embeddings of new ids, generated from the features that describe them."""

import types
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import KerasTensor, ops

from ctr_keras.api_export import export
from ctr_keras.models.cold_start.adapted import Adapted, support_rows
from ctr_keras.models.cold_start.dropout_net import IdDropout
from ctr_keras.models.cold_start.embedding_generator import (
    EmbeddingGenerator,
    side_features,
    side_vectors,
)
from ctr_keras.models.cold_start.id_vectors import check_base, id_tables, with_id_vectors
from ctr_keras.models.cold_start.task_batch import TaskRows, halves, joined_rows
from ctr_keras.models.ctr_model import CTRModel
from ctr_keras.models.wrapping_model import WrappingModel
from ctr_keras.negative_ratio import negative_ratio_of
from ctr_keras.schema import OUT_OF_VOCABULARY_ID

_INITIAL = "initial_embedding"


@export
class MetaEmb(WrappingModel):
    """Learns from which embedding a new item (or user) should start, for a base that is trained.

        phi  = scale * tanh(W mean_f v_f + b)        v_f: embeddings of the item's other features
        phi' = phi - inner_learning_rate * grad_phi loss_a(phi)
        loss = alpha * loss_a(phi) + (1 - alpha) * loss_b(phi')

    Each known item plays a new one: its id embedding is `phi`, `loss_a` and `loss_b` are those of
    two mini-batches of its rows. So `phi` is good at once and better after a step of learning. Only
    `W` and `b`, the generator, learn; the base computes as in inference and stays as it is, also
    the embeddings `v_f`. Where the base embeds ids in several tables (the linear part of DeepFM),
    the generator makes one vector for each.

    It learns from batches of tasks, `ck.data.read_tasks` with the item's (user's) id as the key:
    the support is mini-batch a, the query b. A task without rows in b has a part in `loss_a` alone.

    In `predict`, `evaluate` and the exported SavedModel an id that the vocabulary lacks (id 1) has
    `phi`, any other its own embedding. (A hashed id is never unknown.)
    `adapt(support).predict(features)` takes each task for a new id after a step on its support:
    `phi'`. A new id that gets a row in the base's tables starts at `initial_embeddings` and learns
    by ordinary training.

    Args:
        base: A model of this package, trained.
        key: `"item"` or `"user"`: whose embeddings to generate.
        alpha: Weight of `loss_a`.
        inner_learning_rate: Step size of the inner step.
        scale: Bound of what is generated.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Raises:
        ValueError: the base has no id with role `key`, or no other feature that describes it, or a
            setting is out of range.

    Example:

    >>> model = ck.models.MetaEmb(base, key="item")
    >>> model.compile(ck.optimizers.LazyAdam(1e-3))
    >>> model.fit(ck.data.read_tasks("tf_data/movielens/train", schema, "item_id", shuffle=True))
    >>> vectors = model.initial_embeddings(features)["embedding"]
    >>> base.get_layer("embedding").assign_rows("item_id", vectors, ids)

    Reference:
        [Pan et al., 2019: Warm Up Cold-start Advertisements](https://arxiv.org/abs/1904.11547)
    """

    learns_from_tasks = True
    needs_trained_base = True

    def __init__(
        self,
        base: CTRModel,
        key: str = "item",
        alpha: float = 0.1,
        inner_learning_rate: float = 0.1,
        scale: float = 5.0,
        **kwargs: Any,
    ):
        if key not in ("item", "user"):
            raise ValueError(f'`key` must be "item" or "user". Received: `key={key!r}`')
        if not 0 <= alpha <= 1:
            raise ValueError(f"`alpha` must be in [0, 1]. Received: `alpha={alpha}`")
        for name, value in {"inner_learning_rate": inner_learning_rate, "scale": scale}.items():
            if not value > 0:
                raise ValueError(f"`{name}` must be positive. Received: `{name}={value}`")
        feature = check_base(base, key)
        if any(isinstance(layer, IdDropout) for layer in base._flatten_layers()):
            raise ValueError(
                "A `DropoutNet` fills in the embedding of new ids itself, in the place of what "
                f"`MetaEmb` generates; give the model that it wraps. Received: `base={base!r}`"
            )
        widths = {
            name: table.compute_output_shape({feature: ()})[feature][-1]
            for name, table in id_tables(base, feature).items()
        }
        side = side_features(base, key, feature)
        generator = EmbeddingGenerator(sum(widths.values()), scale, name="generator")
        initial = _by_table(generator(side_vectors(base, side)), widths)

        def of_unknown(table: str, vectors: KerasTensor) -> KerasTensor:
            is_unknown = ops.equal(base.input[feature], OUT_OF_VOCABULARY_ID)
            value = ops.cast(initial[table], vectors.dtype)
            return ops.where(ops.expand_dims(is_unknown, -1), value, vectors)

        tensors = with_id_vectors(base, {feature: of_unknown})
        super().__init__(base.schema, base.input, tensors["logit"], tensors, **kwargs)
        self.base = base
        self.key = key
        self.alpha = alpha
        self.inner_learning_rate = inner_learning_rate
        self.scale = scale
        self._graphs = types.SimpleNamespace(
            initial=keras.Model({f.name: base.input[f.name] for f in side}, initial),
            cold=_cold_graph(base, feature, widths),
        )

    @property
    def trainable_variables(self):
        return self.get_layer("generator").trainable_variables

    @property
    def trainable_weights(self):
        return self.get_layer("generator").trainable_weights

    def fit(self, x=None, *args, **kwargs):
        """As `CTRModel.fit`, on rows with as many of the negatives as the base learned from."""
        ratio = negative_ratio_of(x)
        if ratio is not None and abs(ratio - self.negative_ratio) > 1e-6:
            raise ValueError(
                f"The base was trained on {self.negative_ratio} of the negatives, and so must the "
                f"generator be. Received: `x.negative_ratio={ratio}`"
            )
        return super().fit(x, *args, **kwargs)

    def train_step(self, data):
        first, second = halves(data, list(self.input))
        with tf.GradientTape() as tape:
            start = self._initial_of_tasks(first, second)
            before, move = self._inner_step(first, start)
            after = self._logit(second, tf.gather(start + move, second.task))
            loss = self.alpha * self._mean_loss(first, before)
            loss += (1 - self.alpha) * self._mean_loss(second, after)
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        tasks = tf.shape(first.label)[0]
        self._loss_tracker.update_state(self._as_mean(loss), sample_weight=tasks)
        parts = (second.label, tf.sigmoid(after), second.weight)
        label, score, weight = map(second.unpadded, parts)
        return self._training_logs(second.features, label, score[:, tf.newaxis], weight)

    def _initial_of_tasks(self, first: TaskRows, second: TaskRows) -> tf.Tensor:
        """What is generated for each task: `(tasks, width)`.

        The features describe the task's key, so all its rows say the same; where they differ it is
        their mean.
        """
        vectors = self._initial(joined_rows(first, second))
        task = tf.concat([first.task, second.task], axis=0)
        return tf.math.unsorted_segment_mean(vectors, task, tf.shape(first.label)[0])

    def _initial(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """What is generated for each row: `(rows, width)`."""
        inputs = {name: features[name] for name in self._graphs.initial.input}
        vectors = list(self._graphs.initial(inputs, training=False).values())
        return tf.cast(tf.concat(vectors, axis=1), tf.float32)

    def _inner_step(self, rows: TaskRows, start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Logits `(tasks, rows)`, and how far a step on them moves each task's embedding.

        Args:
            rows: The support.
            start: Where each task starts: `(tasks, width)`.
        """
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(start)
            logit = self._logit(rows, tf.gather(start, rows.task))
            losses = tf.nn.sigmoid_cross_entropy_with_logits(rows.label, logit)
            # An embedding is in the loss of its own task alone, so all tasks go at once.
            total = tf.reduce_sum(rows.mean(losses))
        gradient = tf.convert_to_tensor(tape.gradient(total, start))
        return logit, -self.inner_learning_rate * gradient

    def _logit(self, rows: TaskRows, embedding: tf.Tensor) -> tf.Tensor:
        """Logits `(tasks, rows)`, the id embedding of each row one of `(unpadded, width)`."""
        inputs = {**rows.features, _INITIAL: embedding}
        logit = self._graphs.cold(inputs, training=False)
        return rows.padded(tf.cast(logit, tf.float32))[..., 0]

    def _mean_loss(self, rows: TaskRows, logit: tf.Tensor) -> tf.Tensor:
        return self._ctr_loss(
            x=None,
            y=tf.reshape(rows.label, [-1]),
            y_pred=ops.sigmoid(tf.reshape(logit, [-1, 1])),  # Of which Keras finds the logits.
            sample_weight=tf.reshape(rows.mean_weight, [-1]),
        )

    def adapt(self, support: tuple) -> Adapted:
        """The model as it is for new items (users) after an inner step on their first rows.

        Args:
            support: As `MAML.adapt` takes it. A task without rows stays at what is generated.

        Returns:
            An `Adapted`, whose `predict` takes rows of the same tasks in the same order and gives
            each the id embedding of its task, whatever its id.
        """
        rows, is_single = support_rows(support, list(self.input))
        tasks = tf.shape(rows.label)[0]
        start = tf.math.unsorted_segment_mean(self._initial(rows.features), rows.task, tasks)
        return Adapted(self, self._inner_step(rows, start)[1], is_single)

    def adapted_probability(self, rows: TaskRows, moves: tf.Tensor) -> tf.Tensor:
        """Click probabilities `(tasks, rows)`, each task's embedding moved by `(tasks, width)`."""
        embedding = self._initial(rows.features) + tf.gather(moves, rows.task)
        return tf.sigmoid(self._untracked.recalibration(self._logit(rows, embedding)))

    def initial_embeddings(self, features: dict[str, Any]) -> dict[str, np.ndarray]:
        """What new items (or users) with these features start from.

        Args:
            features: Dict of arrays `(rows, ...)` with at least the features that describe them.

        Returns:
            Dict from the name of each `FeatureEmbedding` of the base to `(rows, width)`.
        """
        graph = self._graphs.initial
        missing = [name for name in graph.input if name not in features]
        if missing:
            raise ValueError(
                f"The generator needs the feature {missing[0]!r}. "
                f"Received: `features={sorted(features)}`"
            )
        inputs = {name: ops.convert_to_tensor(features[name]) for name in graph.input}
        found = graph(inputs, training=False)
        return {name: ops.convert_to_numpy(value) for name, value in found.items()}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "key": self.key,
            "alpha": self.alpha,
            "inner_learning_rate": self.inner_learning_rate,
            "scale": self.scale,
        }


def _by_table(vector: KerasTensor, widths: dict[str, int]) -> dict[str, KerasTensor]:
    """A part of a vector for each table."""
    stops = np.cumsum(list(widths.values())).tolist()
    parts = zip(widths.items(), stops, strict=True)
    return {name: vector[:, stop - width : stop] for (name, width), stop in parts}


def _cold_graph(base: CTRModel, feature: str, widths: dict[str, int]) -> keras.Model:
    """From the base's inputs and the id embedding of each row to the logit."""
    given = keras.Input((sum(widths.values()),), dtype="float32", name=_INITIAL)
    parts = _by_table(given, widths)

    def replace(table: str, vectors: KerasTensor) -> KerasTensor:
        return ops.cast(parts[table], vectors.dtype)

    inputs = {**base.input, _INITIAL: given}
    return keras.Model(inputs, with_id_vectors(base, {feature: replace}, inputs)["logit"])
