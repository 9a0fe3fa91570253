"""The common class of all models: features in, click probability out."""

import atexit
import difflib
import inspect
import pathlib
import shutil
import tempfile
import types
import warnings
from typing import Any, ClassVar

import keras
import tensorflow as tf
from keras import KerasTensor

from ctr_keras import metrics as ctr_metrics
from ctr_keras.models.inference_graph import InferenceGraph
from ctr_keras.models.recalibration import recalibrated
from ctr_keras.negative_ratio import check_negative_ratio, negative_ratio_of
from ctr_keras.optimizers import LazyAdam, LossScaleOptimizer
from ctr_keras.optimizers.build_first import build_optimizer
from ctr_keras.schema import MISSING_INT, Schema


class CTRModel(keras.Model):
    """Functional Keras model that maps features to a click probability.

    A subclass builds its graph in `__init__` and hands it over. What training needs beyond the
    probability is a named tensor of that graph; a subclass that trains on it names the weights of
    its auxiliary losses and computes them:

        loss = ctr_loss + sum_name weight[name] * auxiliary_loss[name]

    Each is logged by its name, together with `ctr_loss`, in training alone. The inference graph
    (`call`, `predict`, `evaluate`, export) never computes them.

    A model that is trained on a share of the negatives corrects itself: outside of training the
    probability is that of a click among all rows, see `negative_ratio`. `tensors["logit"]`, on
    which auxiliary tasks build, is not corrected.

    A layer that is frozen (`model.get_layer("embedding").trainable = False`) is so after saving and
    loading too.

    Args:
        schema: `ck.Schema` (or its dictionary) of the features.
        inputs: Dict of `keras.Input`s, keyed by feature name.
        logit: Tensor `(batch, 1)`.
        tensors: Dict of further tensors of the graph, for auxiliary losses: those of
            `auxiliary_tensors`, so that any auxiliary task can build on the model, and its own.
        auxiliary_weights: Dict of auxiliary loss name -> weight.
        name: Name of the model.
        trainable: Whether training changes its weights.
        **kwargs: None: what a subclass does not know and passes on is an error that names it.

    Call arguments:
        inputs: Dict of tensors as `ck.data.read` yields them; keys that are no input are ignored.

    Output shape:
        `(batch, 1)` probabilities, float32.

    Attributes:
        learns_from_tasks: Whether `fit` takes batches of tasks (`ck.data.read_tasks`).
        needs_trained_base: Whether it wraps a model that has been trained.
    """

    learns_from_tasks: ClassVar[bool] = False
    needs_trained_base: ClassVar[bool] = False

    def __init__(
        self,
        schema: Schema,
        inputs: dict[str, KerasTensor],
        logit: KerasTensor,
        tensors: dict[str, KerasTensor] | None = None,
        auxiliary_weights: dict[str, float] | None = None,
        name: str | None = None,
        trainable: bool = True,
        **kwargs: Any,
    ):
        if kwargs:
            raise TypeError(_unknown_argument(type(self), kwargs))
        for loss, weight in (auxiliary_weights or {}).items():
            if not weight >= 0:
                raise ValueError(f"The weight of {loss!r} must not be negative. Received: {weight}")
        # Under mixed precision the sigmoid still works in float32.
        activation = keras.layers.Activation("sigmoid", dtype="float32", name="probability")
        recalibration, click_logit = recalibrated(logit)
        super().__init__(inputs, activation(click_logit), name=name, trainable=trainable)
        self.schema = schema
        self.tensors = {"logit": logit, **(tensors or {})}
        self.auxiliary_weights = dict(auxiliary_weights or {})
        self._dtype_policy_name = keras.config.dtype_policy().name
        names = ["ctr_loss", *self.auxiliary_weights] if self.auxiliary_weights else []
        self._loss_trackers = [keras.metrics.Mean(name=name) for name in names]
        self._grouped = types.SimpleNamespace(plain=[], weighted=[])
        # It is one of the graph's layers: as an attribute, Keras would save it a second time.
        self._untracked = types.SimpleNamespace(recalibration=recalibration)

    @property
    def negative_ratio(self) -> float:
        """Share of the negatives that training saw, in (0, 1]; 1, as it is at first, for all.

        With `p` the probability among the rows of training, what `model(x)`, `predict`, `evaluate`
        and the exported SavedModel give is `p / (p + (1 - p) / negative_ratio)`; with
        `training=True` it is `p`. The ratio is a weight: it is saved and restored with the others.
        """
        weight = self._untracked.recalibration.negative_ratio
        # The shortest decimal that is this float32: 0.1 in place of 0.10000000149.
        return float(str(keras.ops.convert_to_numpy(weight)))

    @negative_ratio.setter
    def negative_ratio(self, value: float) -> None:
        value = check_negative_ratio("negative_ratio", value)
        self._untracked.recalibration.negative_ratio.assign(value)

    def auxiliary_losses(
        self, x: dict, y: tf.Tensor, tensors: dict[str, tf.Tensor], sample_weight: tf.Tensor | None
    ) -> dict[str, tf.Tensor]:
        """The scalar losses that `auxiliary_weights` names; a subclass with any overrides this.

        Args:
            x: The batch's features.
            y: Labels `(batch,)` or `(batch, 1)`.
            tensors: The named tensors of the training graph.
            sample_weight: Weights `(batch,)` or `(batch, 1)` of the click loss, or `None`. A task
                that looks at the clicks weighs its rows by them, so that its loss scales as the
                click loss does; one that does not takes all rows alike.
        """
        return {}

    def compile(
        self,
        optimizer: Any = None,
        loss: Any = "binary_crossentropy",
        metrics: list | None = None,
        *,
        weighted_metrics: list | None = None,
        jit_compile: bool | str = False,
        **kwargs: Any,
    ) -> None:
        """Configure training.

        Args:
            optimizer: Defaults to `ck.optimizers.LazyAdam()`.
            loss: Of the probability. Defaults to binary cross entropy.
            metrics: Defaults to AUC. `"AUC"` means `ck.metrics.AUC`, which unlike Keras' is exact
                for rare clicks. A metric with an attribute `group`, such as `ck.metrics.GAUC`, is
                given that feature of the batch as `groups`, in evaluation only. Rows without a
                group weigh 0 there, for GAUC also those of ids out of vocabulary; as Keras'
                metrics here, it leaves sample weights aside.
            weighted_metrics: The same, for metrics that take sample weights.
            jit_compile: XLA turns the sparse gradients of embedding tables dense, so the default
                is `False`.
            **kwargs: What else `keras.Model.compile` takes.
        """
        metrics = _named_metrics("metrics", ["AUC"] if metrics is None else metrics)
        if weighted_metrics is not None:
            weighted_metrics = _named_metrics("weighted_metrics", weighted_metrics)
        optimizer = LazyAdam() if optimizer is None else keras.optimizers.get(optimizer)
        scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        wanted = kwargs.get("auto_scale_loss", True)
        if self.dtype_policy.name == "mixed_float16" and wanted and not scaled:
            # Keras would wrap it too, but look for infinite gradients in whole tables.
            optimizer = LossScaleOptimizer(optimizer)
        plain, self._grouped.plain = self._split_by_group(metrics)
        if weighted_metrics is not None:
            weighted_metrics, self._grouped.weighted = self._split_by_group(weighted_metrics)
        else:
            self._grouped.weighted = []
        super().compile(
            optimizer=optimizer,
            loss=loss,
            metrics=plain,
            weighted_metrics=weighted_metrics,
            jit_compile=jit_compile,
            **kwargs,
        )

    def _split_by_group(self, metrics: list) -> tuple[list, list]:
        """The metrics that Keras updates, and those that also take groups."""
        grouped = [metric for metric in metrics if hasattr(metric, "group")]
        for metric in grouped:
            if metric.group not in self.schema:
                raise ValueError(
                    f"Metric {metric.name!r} groups by a feature that the schema lacks: it has "
                    f"{self.schema.names}. Received: `group={metric.group!r}`"
                )
        return [metric for metric in metrics if not hasattr(metric, "group")], grouped

    def fit(self, x=None, *args, **kwargs):
        """Train, as `keras.Model.fit` does.

        Where `x` has an attribute `negative_ratio`, as what `ck.data.read` returns has, the model
        takes it over, also through `map`, `take` and the like; otherwise its own stays. What is
        made of whole rows may have lost negatives on the way: there its own stays too. The loss
        and metrics of the training rows are those of the rows as sampled, the `val_` ones those of
        corrected probabilities, so validation rows must be whole.
        """
        self._take_ratio(x)
        validation_ratio = negative_ratio_of(kwargs.get("validation_data"))
        if validation_ratio not in (None, 1):
            warnings.warn(
                "The validation rows lack negatives, so log loss and calibration on them say "
                f"nothing of all rows. Received: `validation_data` with {validation_ratio=}",
                stacklevel=2,
            )
        with warnings.catch_warnings():
            # Keras says it at the end of each epoch of rows whose number is not known in advance.
            if kwargs.get("steps_per_epoch") is None:
                warnings.filterwarnings("ignore", "Your input ran out of data")
            return super().fit(x, *args, **kwargs)

    def _take_ratio(self, x: Any) -> None:
        """Take over the share of the negatives that training rows hold, where it can be told."""
        ratio = negative_ratio_of(x)
        if ratio is None:
            return
        if hasattr(x, "negative_ratio") or ratio < 1 or self.negative_ratio == 1:
            self.negative_ratio = ratio
            return
        warnings.warn(
            "Rows that are made of a whole data set may lack negatives or not, so the model goes "
            "on to correct for the share that it was told before: set the attribute "
            "`negative_ratio` of the rows to the one that they hold. "
            f"Received: `x` without it, `model.negative_ratio={self.negative_ratio}`",
            stacklevel=3,
        )

    def call(self, inputs, training=None, mask=None):
        missing = [name for name in self.input if name not in inputs]
        if missing:
            raise ValueError(
                f"The model needs the feature {missing[0]!r}. Received: `inputs={sorted(inputs)}`"
            )
        inputs = {name: inputs[name] for name in self.input}
        return super().call(inputs, training=training, mask=mask)

    @property
    def trainable_variables(self):
        return self._learned(super().trainable_variables)

    @property
    def trainable_weights(self):
        return self._learned(super().trainable_weights)

    def _learned(self, variables: list) -> list:
        """Without those of a part that is frozen in this model, though not by itself."""
        graphs = [part for part in self._flatten_layers() if isinstance(part, InferenceGraph)]
        frozen = {id(variable) for graph in graphs for variable in graph.variables}
        return [variable for variable in variables if id(variable) not in frozen]

    def make_train_function(self, force=False):
        build_optimizer(self)
        return super().make_train_function(force)

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            y_pred, loss, losses = self._forward(x, y, sample_weight)
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        rows = tf.shape(y)[0]
        self._loss_tracker.update_state(self._as_mean(loss), sample_weight=rows)
        for tracker in self._loss_trackers:
            tracker.update_state(losses[tracker.name], sample_weight=rows)
        return self._training_logs(x, y, y_pred, sample_weight)

    def _training_logs(self, x, y, y_pred, sample_weight):
        """The losses so far and the metrics, but those that only evaluation computes."""
        logs = super().compute_metrics(x, y, y_pred, sample_weight=sample_weight)
        return _without(logs, [*self._grouped.plain, *self._grouped.weighted])

    def test_step(self, data):
        # Evaluation does not compute the parts of the loss: their trackers would say 0.
        return _without(super().test_step(data), self._loss_trackers)

    def _get_metrics_result_or_logs(self, logs):
        # Where the logs leave out a metric, as those of both steps may, Keras would take what the
        # last step found, and GAUC has no value inside of a step.
        found = self.get_metrics_result()
        return {name: found.get(name, value) for name, value in logs.items()}

    def _forward(self, x, y, sample_weight):
        """Probability, total loss, and its named parts, in training."""
        inputs = {name: x[name] for name in self.input}
        if not self.auxiliary_weights:
            y_pred = self(inputs, training=True)
            return y_pred, self._ctr_loss(x, y, y_pred, sample_weight), {}
        # Made while tracing: as an attribute, Keras would save its layers a second time.
        graph = keras.Model(self.input, {"probability": self.outputs[0], **self.tensors})
        tensors = graph(inputs, training=True)
        y_pred = tensors.pop("probability")
        ctr_loss = self._ctr_loss(x, y, y_pred, sample_weight)
        losses = self.auxiliary_losses(x, y, tensors, sample_weight)
        if set(losses) != set(self.auxiliary_weights):
            raise ValueError(
                f"`auxiliary_losses` must return {sorted(self.auxiliary_weights)}. "
                f"Received: `{sorted(losses)}`"
            )
        total = ctr_loss
        for name, value in losses.items():
            total += self._as_share(self.auxiliary_weights[name] * tf.cast(value, total.dtype))
        return y_pred, total, {"ctr_loss": self._as_mean(ctr_loss), **losses}

    def _as_share(self, mean):
        """What a replica learns from of the mean over its rows, as the gradients are added up."""
        return mean / self.distribute_strategy.num_replicas_in_sync

    def _as_mean(self, share):
        """The mean over a replica's rows, of its share, as Keras' loss of `compile` is one."""
        return share * self.distribute_strategy.num_replicas_in_sync

    def _ctr_loss(self, x, y, y_pred, sample_weight):
        return self.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight)

    @property
    def metrics(self):
        return [*super().metrics, *self._grouped.plain, *self._grouped.weighted]

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        for metric in self._grouped.plain:
            self._update_grouped(metric, x, y, y_pred, None)
        for metric in self._grouped.weighted:
            self._update_grouped(metric, x, y, y_pred, sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def _update_grouped(self, metric, x, y, y_pred, sample_weight):
        groups = x[metric.group]
        # Rows without a group are not one group, nor are all users unknown to a vocabulary one.
        is_known = groups != MISSING_INT
        if getattr(metric, "leaves_out_unknown", False):
            is_known = self.schema.is_known(metric.group, groups)
        weight = tf.cast(is_known, "float32")
        if sample_weight is not None:
            weight *= tf.reshape(tf.cast(sample_weight, "float32"), tf.shape(weight))
        metric.update_state(y, y_pred, sample_weight=weight, groups=groups)

    def inference_model(self) -> keras.Model:
        """The graph from features to probability alone, sharing this model's weights."""
        return keras.Model(self.input, self.outputs[0], name=f"{self.name}_inference")

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "trainable": self.trainable,
            "schema": self.schema.to_config(),
            "dtype_policy": self._dtype_policy_name,
            "frozen": [layer.name for layer in self._own_layers() if not layer.trainable],
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        frozen = config.pop("frozen", [])
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(config.pop("dtype_policy", before))
        try:
            model = cls(**config)
        finally:
            keras.config.set_dtype_policy(before)
        # Before the optimizer is built: it has a state for what is trainable alone.
        for layer in model._own_layers():
            if layer.name in frozen:
                layer.trainable = False
        return model

    def _own_layers(self) -> list[keras.layers.Layer]:
        """The layers of the graph, and those that are attributes."""
        return self._flatten_layers(include_self=False, recursive=False)

    def get_compile_config(self):
        config = super().get_compile_config()
        for name, grouped in (
            ("metrics", self._grouped.plain), ("weighted_metrics", self._grouped.weighted)
        ):  # fmt: skip
            if config and grouped:
                found = [keras.saving.serialize_keras_object(metric) for metric in grouped]
                config[name] = [*(config.get(name) or []), *found]
        return config

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def save_assets(self, dir_path: str) -> None:
        """Keep the vocabulary files in the `.keras` archive, so that it stands alone."""
        for feature in self.schema:
            if feature.vocabulary is not None and feature.vocabulary.file is not None:
                feature.vocabulary.check_file()
                shutil.copyfile(feature.vocabulary.file, f"{dir_path}/{feature.name}.txt")

    def load_assets(self, dir_path: str) -> None:
        # Keras removes its folder after loading; the files are needed for as long as the model.
        folder = pathlib.Path(tempfile.mkdtemp(prefix="ctr_keras_"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        shutil.copytree(dir_path, folder / "vocabularies")
        self.schema = Schema.from_dict(
            self.schema.to_dict(), folder, source=f"{self.name}'s schema"
        )


def _unknown_argument(model: type, unknown: dict[str, Any]) -> str:
    """What to say of arguments that a subclass did not know and passed on."""
    name, value = next(iter(unknown.items()))
    known = [known for known in inspect.signature(model).parameters if known != "kwargs"]
    near = difflib.get_close_matches(name, known, n=1)
    advice = f"; did you mean `{near[0]}`?" if near else f", but {', '.join(known)}."
    return f"{model.__name__} does not take `{name}`{advice} Received: `{name}={value!r}`"


def _without(logs: dict[str, Any], metrics: list[keras.metrics.Metric]) -> dict[str, Any]:
    """The logs but those of some metrics."""
    names = {metric.name for metric in metrics}
    return {name: value for name, value in logs.items() if name not in names}


def _named_metrics(argument: str, metrics: list) -> list:
    if not isinstance(metrics, (list, tuple)):
        raise TypeError(
            f"`{argument}` must be a list: a model has one output. "
            f"Received: `{argument}={metrics!r}`"
        )
    return [ctr_metrics.AUC(name="auc") if m in ("AUC", "auc") else m for m in metrics]
