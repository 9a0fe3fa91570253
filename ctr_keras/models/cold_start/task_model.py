"""What MAML and MeLU have in common: a network whose weights are a good start for each task."""

import types
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import tensorflow as tf

from ctr_keras.argument_checks import check_positive_integer
from ctr_keras.layers.mlp import check_units
from ctr_keras.models.cold_start.adapted import Adapted, support_rows
from ctr_keras.models.cold_start.decision_layers import DecisionLayers, TaskSteps
from ctr_keras.models.cold_start.fast_weights import FastWeights
from ctr_keras.models.cold_start.task_batch import TaskRows, halves, joined_rows
from ctr_keras.models.cold_start.task_vectors import TaskVectors
from ctr_keras.models.ctr_model import CTRModel
from ctr_keras.models.features import (
    Fields,
    auxiliary_tensors,
    embed,
    joined,
    model_inputs,
    scaled,
)
from ctr_keras.schema import Schema


class TaskModel(CTRModel):
    """Embeddings and decision layers, trained to be good after a few steps on a task's support.

        logit = decision([v_1, ..., v_F])

    A subclass says by `moves_embeddings` whether an inner step moves the embeddings too. The inner
    loss is the log loss, averaged over the support rows of a task; the outer loss that of
    `compile`, averaged over the query rows of a task and then over the tasks that have any.

    Args:
        schema: `ck.Schema` of the features.
        embedding_dim: Width of the embeddings.
        units: Widths of the decision layers before the logit.
        activation: Activation between them.
        inner_learning_rate: Step size of the inner loop, plain gradient descent.
        inner_steps: Number of inner steps.
        first_order: Whether the outer gradient takes the inner one as a constant.
        l2: Weight of the squared norm of the table rows that a batch touches, in the outer loss.
        **kwargs: `name` and `trainable` of `keras.Model`.
    """

    learns_from_tasks = True
    moves_embeddings: ClassVar[bool]

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        units: Sequence[int] = (128, 32),
        activation: str = "relu",
        inner_learning_rate: float = 0.01,
        inner_steps: int = 1,
        first_order: bool = False,
        l2: float = 0.0,
        **kwargs: Any,
    ):
        if not inner_learning_rate > 0:
            raise ValueError(
                "`inner_learning_rate` must be positive. "
                f"Received: `inner_learning_rate={inner_learning_rate}`"
            )
        check_positive_integer("inner_steps", inner_steps)
        schema = Schema.of(schema)
        inputs = model_inputs(schema)
        values = scaled(schema, inputs)
        fields = embed(schema, values, embedding_dim, "embedding", l2, project_all=True)
        decision = DecisionLayers(units, activation, name="decision")
        logit = decision(joined(fields.all_pooled()))
        super().__init__(schema, inputs, logit, auxiliary_tensors(fields), **kwargs)
        self.embedding_dim = embedding_dim
        self.units = tuple(check_units(units))
        self.activation = activation
        self.inner_learning_rate = inner_learning_rate
        self.inner_steps = inner_steps
        self.first_order = first_order
        self.l2 = l2
        self._parts = types.SimpleNamespace(fields=fields, decision=decision)

    def train_step(self, data):
        support, query = halves(data, list(self.input))
        with tf.GradientTape() as tape:
            logit, loss = self._after_adapting(support, query)
            scaled_loss = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled_loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        tasks = tf.math.count_nonzero(tf.reduce_sum(query.weight, axis=1), dtype=tf.float32)
        self._loss_tracker.update_state(self._as_mean(loss), sample_weight=tasks)
        label, score, weight = map(query.unpadded, (query.label, tf.sigmoid(logit), query.weight))
        return self._training_logs(query.features, label, score[:, tf.newaxis], weight)

    def _after_adapting(self, support: TaskRows, query: TaskRows):
        """Logits `(tasks, rows)` of the query after the inner loop, and the outer loss."""
        tf.debugging.assert_positive(
            tf.size(support.positions) + tf.size(query.positions),
            "A batch of tasks needs a row whose weight is not 0.",
        )
        vectors = self._vectors(joined_rows(support, query), training=True)
        count = tf.shape(support.positions)[0]
        of_support = {name: x[:count] for name, x in vectors.items()}
        of_query = {name: x[count:] for name, x in vectors.items()}
        fast = self._inner_loop(support, of_support)
        logit = self._logit(query, of_query, fast)
        loss = self._ctr_loss(
            x=None,
            y=tf.reshape(query.label, [-1]),
            y_pred=keras.ops.sigmoid(tf.reshape(logit, [-1, 1])),  # Of which Keras finds logits.
            sample_weight=tf.reshape(query.mean_weight, [-1]),
        )
        return logit, loss

    def adapt(self, support: tuple) -> Adapted:
        """The model as it is after the inner steps on the support rows of some tasks.

        Args:
            support: `(features, label)` or `(features, label, weight)`: those of one task,
                features `(rows, ...)` and label `(rows,)`, or of several with an axis `tasks` in
                front, as `ck.data.read_tasks` yields them. A row of weight 0 is padding; a task
                without rows keeps the shared weights. A model that learned from a share of the
                negatives (`negative_ratio`) adapts to that share of them.

        Returns:
            An `Adapted`, whose `predict` takes rows of the same tasks in the same order. The model
            itself does not change.

        Raises:
            ValueError: a feature is missing, or label and weight are not `(tasks, rows)`.
        """
        rows, is_single = support_rows(support, list(self.input))
        fast = self._inner_loop(rows, self._vectors(rows.features, training=False))
        return Adapted(self, fast, is_single)

    def adapted_probability(self, rows: TaskRows, fast: FastWeights) -> tf.Tensor:
        """Click probabilities `(tasks, rows)` by the weights of each task."""
        logit = self._logit(rows, self._vectors(rows.features, training=False), fast)
        return tf.sigmoid(self._untracked.recalibration(logit))

    def _inner_loop(self, support: TaskRows, vectors: dict[str, tf.Tensor]) -> FastWeights:
        """The weights of each task after the inner steps."""
        fast = FastWeights([])
        if self.moves_embeddings:
            touched = TaskVectors.touched_by(self.schema, support)
            fast = FastWeights([], touched, touched.zeros(self.embedding_dim))
        for _ in range(self.inner_steps):
            fast = self._inner_step(support, vectors, fast)
        return fast

    def _inner_step(
        self, support: TaskRows, vectors: dict[str, tf.Tensor], fast: FastWeights
    ) -> FastWeights:
        widths = [*self.units, 1]
        shape = tf.shape(support.label)
        nudges = [tf.zeros(tf.concat([shape, [width]], axis=0)) for width in widths]
        values = nudges if fast.moves is None else [*nudges, fast.moves]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            joint = self._joint(support, vectors, fast)
            logit, entering = self._parts.decision.of_tasks(joint, fast.steps, nudges)
            losses = tf.nn.sigmoid_cross_entropy_with_logits(support.label, logit[..., 0])
            # A task's weights are in its own loss alone, so all tasks go at once.
            loss = tf.reduce_sum(support.mean(losses))
        gradients = tape.gradient(loss, values, unconnected_gradients="zero")
        gradients = [self.inner_learning_rate * gradient for gradient in gradients]
        if self.first_order:
            gradients, entering = tf.nest.map_structure(tf.stop_gradient, (gradients, entering))
        pairs = zip(entering, gradients[: len(widths)], strict=True)
        moves = None if fast.moves is None else fast.moves - gradients[-1]
        return fast.stepped([TaskSteps(*pair) for pair in pairs], moves)

    def _vectors(self, features: dict[str, tf.Tensor], training: bool) -> dict[str, tf.Tensor]:
        """Embeddings of each feature of rows `(rows, ...)`, float32."""
        fields = self._parts.fields
        # Made anew each time: as an attribute, Keras would save its layers a second time.
        graph = keras.Model(self.input, {**fields.scalars, **fields.sequences})
        vectors = graph(features, training=training)
        return {name: tf.cast(vector, tf.float32) for name, vector in vectors.items()}

    def _logit(self, rows: TaskRows, vectors: dict[str, tf.Tensor], fast: FastWeights) -> tf.Tensor:
        """Logits `(tasks, rows)`, each task's by its own weights."""
        joint = self._joint(rows, vectors, fast)
        return self._parts.decision.of_tasks(joint, fast.steps, [])[0][..., 0]

    def _joint(self, rows: TaskRows, vectors: dict[str, tf.Tensor], fast: FastWeights) -> tf.Tensor:
        """What goes into the decision layers: `(tasks, rows, width)`."""
        vectors = fast.moved(rows, vectors)
        fields = self._parts.fields
        joint = joined(
            Fields(
                self.schema,
                {name: rows.features[name] for name in fields.ids},
                {name: vectors[name] for name in fields.scalars},
                {name: vectors[name] for name in fields.sequences},
            ).all_pooled()
        )
        return rows.padded(joint)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "embedding_dim": self.embedding_dim,
            "units": list(self.units),
            "activation": self.activation,
            "inner_learning_rate": self.inner_learning_rate,
            "inner_steps": self.inner_steps,
            "first_order": self.first_order,
            "l2": self.l2,
        }
