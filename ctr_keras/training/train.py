"""Training a model of the package on a prepared folder, from scratch or where it stopped."""

import dataclasses
import pathlib
from typing import Any

import tensorflow as tf
from rich.console import Console

from ctr_keras import data, files, pretraining
from ctr_keras.data.describe import user_feature
from ctr_keras.data.tasks import check_key
from ctr_keras.models import CTRModel, MetaEmb
from ctr_keras.models.cold_start.task_model import TaskModel
from ctr_keras.negative_ratio import check_negative_ratio
from ctr_keras.optimizers import LazyAdam
from ctr_keras.schema import OUT_OF_VOCABULARY_ID, Schema
from ctr_keras.seed import set_seed
from ctr_keras.training.adapted_scores import AdaptedAUC, check_generated
from ctr_keras.training.build import (
    DEFAULT_BASE,
    arguments,
    build_model,
    model_class,
    takes_item_vectors,
    with_width,
)
from ctr_keras.training.checkpoint import Checkpoint, key_of
from ctr_keras.training.evaluate import load_model
from ctr_keras.training.progress import progress_bar


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """What a training depends on.

    Args:
        data: Prepared folder: `schema.json`, `train/` and `valid/`.
        out: Where checkpoints and the best model go.
        model: Name of a model in `ck.models`.
        options: Arguments of the model, such as `{"embedding_dim": 16}`; `base` and `base_options`
            name the model that `AT4CTR` or `CL4CTR` wraps. That of `MetaEmb` is trained before it
            by the same settings, in the folder `base` of `out`; so is the extractor of `MAKE`, in
            `extractor`, with the arguments `extractor` and for `extractor_epochs` (0 to train it
            with the ranker alone, with `joint`). The width of item vectors is that of the table in
            `data`.
        epochs: Number of epochs.
        batch_size: Rows a batch.
        learning_rate: Of `LazyAdam`.
        patience: Epochs without a better validation AUC before training stops, or `None`. The AUC
            of `MAML` and `MeLU` is that of the model as adapted to `support` training rows, that of
            `MetaEmb` as if all its users or items were new.
        seed: Of initial weights, dropout, the order of rows and which negatives are read.
        negative_ratio: Share of the negatives of the training rows to read, see `ck.data.read`;
            the model corrects its probabilities for it, validation rows stay whole.
        task: For models that learn from tasks, such as MAML: the feature whose values are the
            tasks, see `ck.data.read_tasks`. By default what tells users apart, the group or else
            the user's id; of `MetaEmb` what it generates embeddings for, and no other.
        support: Rows a task adapts to, at most.
        query: Rows a task is judged by, at most.
        texts: Texts that enter the model as the vectors that `ctr-keras encode` made of them, or
            that a `TunedTexts` encodes by itself.
        tasks: Tasks a batch; by default as many as have `batch_size` rows if none has fewer.
        every_row: Whether an epoch goes through all rows of each task, see `ck.data.read_tasks`.
    """

    data: str
    out: str
    model: str = "DIN"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    epochs: int = 3
    batch_size: int = 1024
    learning_rate: float = 1e-3
    patience: int | None = None
    seed: int = 0
    negative_ratio: float = 1.0
    task: str | None = None
    support: int = 16
    query: int = 16
    tasks: int | None = None
    texts: tuple[str, ...] = ()
    every_row: bool = False


@dataclasses.dataclass(frozen=True)
class Training:
    """What a training came to.

    Attributes:
        model: File of the best epoch's model.
        history: Loss and metrics of each epoch.
        best_epoch: Index of the epoch with the highest validation AUC.
    """

    model: str
    history: list[dict[str, float]]
    best_epoch: int

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def to_text(self) -> str:
        names = sorted(self.history[0])
        lines = ["epoch  " + "  ".join(f"{name:>10}" for name in names)]
        for epoch, logs in enumerate(self.history):
            best = "  best" if epoch == self.best_epoch else ""
            values = "  ".join(f"{logs[name]:>10.4f}" for name in names)
            lines.append(f"{epoch + 1:>5}  {values}{best}")
        return "\n".join([*lines, self.model])


def train(config: TrainingConfig, *, restart: bool = False, progress: bool = True) -> Training:
    """Train a model and keep the one with the best validation AUC.

    After each epoch everything is saved. Called again after a kill, it goes on after the last
    complete epoch and ends with the same weights as a training that was never interrupted: on a
    CPU, or on a GPU with `tf.config.experimental.enable_op_determinism()`.

    Args:
        config: What to train.
        restart: Whether to discard an earlier training in `config.out`.
        progress: Whether to show progress on standard error.

    Raises:
        ValueError: the data or a setting is not usable, `config.out` holds a training with other
            settings or another schema, or the loss of an epoch is not finite.
    """
    if progress and takes_item_vectors(config.model, config.options):
        _report_missing_vectors(config.data)
    return _train(config, restart, progress)


def _train(config: TrainingConfig, restart: bool, progress: bool) -> Training:
    schema = _schema(config)
    _check_tasks(config, schema)  # Before the parts of a model are trained.
    with files.locked(files.make_folder(config.out), wait=False):
        return _fit(config, schema, restart, progress)


def _fit(config: TrainingConfig, schema: Schema, restart: bool, progress: bool) -> Training:
    checkpoint = _checkpoint(config, schema)
    set_seed(config.seed)
    model = None if restart else checkpoint.restore()
    if model is None:
        model = _new_model(config, schema, checkpoint, restart, progress)
        checkpoint.discard()  # Once all settings are known to be of use.
    epoch = len(checkpoint.history)
    rows = _training_rows(config, model, epoch)
    valid = _validation_rows(config, model)
    if epoch < config.epochs and not checkpoint.is_over:
        # The checkpoint, which may end training by an error, comes when the bar has stopped.
        with progress_bar(rows, progress) as bar:
            callbacks = [*bar, checkpoint]
            if isinstance(model, TaskModel):
                adapted = AdaptedAUC(config.data, _task_key(config, schema), config.support)
                callbacks.insert(0, adapted)  # The checkpoint goes by it.
            model.fit(
                rows,
                validation_data=valid,
                initial_epoch=epoch,
                epochs=config.epochs,
                callbacks=callbacks,
                verbose=0,
                shuffle=False,  # The reader shuffles.
            )
    return Training(str(checkpoint.best_file), checkpoint.history, checkpoint.best_epoch)


def _schema(config: TrainingConfig) -> Schema:
    """That of the data, with the texts that are to be encoded."""
    schema = Schema.load(config.data)
    given = bool(config.texts) and "encoder" in config.options
    if "encoder" in arguments(config.model) and not given:
        raise ValueError(
            f"{config.model} encodes texts by itself: it needs `texts` (`--text`), and `encoder` "
            "among its options (`--set encoder=…`): what `ck.pretraining.TextEncoder.from_preset` "
            f"takes. Received: `texts={config.texts}`, `options={config.options}`"
        )
    if not config.texts:
        return schema
    encoder = config.options.get("encoder")
    if encoder is not None:  # The model encodes by itself.
        return schema.with_encoded_texts(config.texts, pretraining.encoder_width(encoder))
    return schema.with_encoded_texts(config.texts, data.VectorTable.of_texts(config.data).width)


def _validation_rows(config: TrainingConfig, model: CTRModel) -> tf.data.Dataset:
    rows = data.read(pathlib.Path(config.data) / "valid", model.schema, config.batch_size)
    if not isinstance(model, MetaEmb):
        return rows
    # A known id has the embedding that it learned: what the generator learns shows in new ones.
    key = _task_key(config, model.schema)
    return rows.map(lambda x, y: ({**x, key: tf.ones_like(x[key]) * OUT_OF_VOCABULARY_ID}, y))


def _training_rows(config: TrainingConfig, model: CTRModel, epoch: int) -> tf.data.Dataset:
    """Shuffled batches of rows, or of tasks where the model learns from such."""
    schema = model.schema
    path = pathlib.Path(config.data) / "train"
    ratio, seed = config.negative_ratio, config.seed
    if not model.learns_from_tasks:
        return data.read(
            path,
            schema,
            config.batch_size,
            shuffle=True,
            seed=seed,
            epoch=epoch,
            negative_ratio=ratio,
        )
    return data.read_tasks(
        path,
        schema,
        _task_key(config, schema),
        support=config.support,
        query=config.query,
        tasks=max(config.batch_size // (config.support + config.query), 1)
        if config.tasks is None
        else config.tasks,
        every_row=config.every_row,
        shuffle=True,
        seed=seed,
        epoch=epoch,
        negative_ratio=ratio,
    )


def _check_tasks(config: TrainingConfig, schema: Schema) -> None:
    """Refuse settings of tasks that do not fit the model."""
    if model_class(config.model).learns_from_tasks:
        check_key(schema, _task_key(config, schema))
        return
    of_tasks = {name: getattr(config, name) for name in ("task", "tasks", "every_row")}
    for name, value in of_tasks.items():
        if value not in (None, False):
            raise ValueError(
                f"{config.model} learns from rows, not from tasks. Received: `{name}={value!r}`"
            )


def _task_key(config: TrainingConfig, schema: Schema) -> str:
    """The feature whose values are the tasks."""
    generates = issubclass(model_class(config.model), MetaEmb)
    role = config.options.get("key", "item") if generates else "user"
    # What MAML adapts to is a user, also one whose id the vocabulary lacks.
    key = config.task or (schema.key(role) if generates else user_feature(schema))
    if key is None:
        raise ValueError(
            f"No feature tells {role}s apart: `task` must name one whose values are the tasks of "
            f"{config.model}. Received: `features={schema.names}`"
        )
    if generates:
        check_generated(schema, role, key)
    return key


def _checkpoint(config: TrainingConfig, schema: Schema) -> Checkpoint:
    key = {**key_of(config), "schema": schema.fingerprint}
    # What the model corrects for: the same rows may be another share of all.
    prepared = data.Manifest.load(f"{config.data}/train").negative_ratio
    key["negative_ratio"] = prepared * check_negative_ratio("negative_ratio", config.negative_ratio)
    tables = {}
    if config.texts and "encoder" not in config.options:
        tables["encoder"] = data.VectorTable.of_texts(config.data)
    if takes_item_vectors(config.model, config.options):
        tables["item_vectors"] = data.VectorTable.of_items(config.data)
    # Who made them is for whoever evaluates or serves the model, on whatever rows.
    key |= {name: table.encoder for name, table in tables.items()}
    if tables:
        key["vectors"] = {name: table.digest for name, table in tables.items()}
    return Checkpoint(pathlib.Path(config.out), key, config.patience)


def _report_missing_vectors(folder: str) -> None:
    found = data.vector_coverage(f"{folder}/train", data.VectorTable.of_items(folder))
    if found.missing_items:
        Console(stderr=True, soft_wrap=True, highlight=False).print(
            f"item vectors: {found.to_text()}"
        )


def _new_model(
    config: TrainingConfig, schema: Schema, checkpoint: Checkpoint, restart: bool, progress: bool
) -> CTRModel:
    """A model to train; the parts that it needs trained are trained first, in folders of `out`."""
    if config.epochs < 1:
        raise ValueError(f"`epochs` must be positive. Received: `epochs={config.epochs}`")
    cls, options = model_class(config.model), dict(config.options)
    takes = arguments(config.model)
    if takes_item_vectors(config.model, options):
        width = data.VectorTable.of_items(config.data).width
        options = with_width(config.model, options, width)
    first: dict[str, dict[str, Any]] = {}
    if cls.needs_trained_base:
        first["base"] = {
            "model": options.pop("base", DEFAULT_BASE),
            "options": options.pop("base_options", {}),
            "task": None,
            "tasks": None,
            "every_row": False,
        }
    if "extractor" in takes:
        first["extractor"] = _of_extractor(config, options)
    for name, changes in first.items():
        if changes.get("epochs") == 0:
            options[name] = _untrained_extractor(config, schema, changes["options"])
            continue
        # Interrupted from here on, it must not take the earlier training for its own.
        checkpoint.discard()
        part = dataclasses.replace(config, out=str(pathlib.Path(config.out) / name), **changes)
        options[name] = load_model(_train(part, restart, progress).model)
    set_seed(config.seed)
    model = build_model(config.model, schema, options)
    model.compile(LazyAdam(config.learning_rate))
    return model


def _of_extractor(config: TrainingConfig, options: dict[str, Any]) -> dict[str, Any]:
    """What the training of an extractor changes in that of its ranker."""
    settings = options.pop("extractor", {})
    if not isinstance(settings, dict):
        raise ValueError(
            "`extractor` must be a dict of arguments of `KnowledgeExtractor`, which is trained "
            f"first. Received: `extractor={settings!r}`"
        )
    epochs = options.pop("extractor_epochs", config.epochs)
    if not isinstance(epochs, int) or epochs < 0:
        raise ValueError(
            "`extractor_epochs` must be 0 or a positive integer. Received: "
            f"`extractor_epochs={epochs!r}`"
        )
    return {"model": "KnowledgeExtractor", "options": settings, "epochs": epochs}


def _untrained_extractor(
    config: TrainingConfig, schema: Schema, options: dict[str, Any]
) -> CTRModel:
    if not config.options.get("joint"):
        raise ValueError(
            "An extractor of no epoch learns with the ranker: set `joint` too. "
            f"Received: `extractor_epochs=0`, `joint={config.options.get('joint')}`"
        )
    width = {"width": data.VectorTable.of_items(config.data).width}
    return build_model("KnowledgeExtractor", schema, {**width, **options})
