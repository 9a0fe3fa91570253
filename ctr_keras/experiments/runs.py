"""One training of an experiment, and how good the model is on the test rows."""

import dataclasses
import functools
import pathlib
import time
from typing import Any, ClassVar

from ctr_keras import data, training
from ctr_keras.datasets import prepared
from ctr_keras.experiments import jobs
from ctr_keras.experiments.relevance import relevance
from ctr_keras.json_values import digest

_CODE = (
    "data", "layers", "losses", "metrics", "models", "optimizers", "pretraining", "training",
    "experiments/relevance.py",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        evaluation: Metrics on the test rows, as `training.Evaluation` names them.
        epochs: Epochs that were trained.
        best_epoch: The epoch whose model was evaluated, from 1.
        seconds: Time of the training, its validation included, beside other jobs if there were
            any; `None` where it went on after an interruption.
        rows: Training rows.
        train_bytes: Size of their files.
        relevance: `experiments.relevance.relevance` of the trained model.
        cold_start: `training.ColdStartEvaluation` as a dict, or `None`.
        by_frequency: `training.FrequencyEvaluation` as a dict, or `None`.
        history: Losses and metrics of each epoch, on the training and the validation rows.
    """

    evaluation: dict[str, Any]
    epochs: int
    best_epoch: int
    seconds: float | None
    rows: int
    train_bytes: int
    relevance: dict[str, Any] | None
    cold_start: dict[str, Any] | None = None
    by_frequency: dict[str, Any] | None = None
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)

    @property
    def is_at_cap(self) -> bool:
        """Whether the last epoch was the best: a training ends so only at the cap of epochs."""
        return self.best_epoch == self.epochs


@dataclasses.dataclass(frozen=True)
class Run:
    """One training and its evaluation on the test rows.

    Args:
        data: Prepared folder with `train`, `valid` and `test`.
        model: Name of a model in `ck.models`.
        options: Its arguments, as `training.build_model` takes them.
        epochs: Epochs at most.
        batch_size: Rows a batch.
        learning_rate: Of `LazyAdam`.
        patience: Epochs without a better validation AUC before training stops.
        seed: Of initial weights, dropout and the order of rows.
        task: For models that learn from tasks: the feature that makes them, to whose training rows
            the model adapts before it is evaluated on cold users and items.
        adapts: Whether it adapts to them.
        every_row: Whether an epoch goes through all rows of each task.
        texts: Texts that enter by their vectors, see `training.TrainingConfig`.
        few: From how many training rows on a user or an item is no longer cold; `None` to evaluate
            on all test rows alone.
        item_groups: How many groups of items, by their training rows, to evaluate on apart.
    """

    data: str
    model: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    epochs: int = 5
    batch_size: int = 1024
    learning_rate: float = 1e-3
    patience: int | None = 1
    seed: int = 1
    task: str | None = None
    adapts: bool = True
    every_row: bool = False
    texts: tuple[str, ...] = ()
    few: int | None = None
    item_groups: int | None = None

    outcome_type: ClassVar[type] = Outcome

    @functools.cached_property
    def key(self) -> str:
        """Of its rows, settings and code; see `jobs.Job`."""
        config = dataclasses.asdict(self)
        folder = config.pop("data")
        config["rows"] = prepared.rows_digest(folder)
        config["code"] = jobs.code_digest(*_CODE)
        if self.texts:
            config["text_vectors"] = data.VectorTable.of_texts(folder).digest
        if training.takes_item_vectors(self.model, self.options):
            config["item_vectors"] = data.VectorTable.of_items(folder).digest
        return digest(config)[:16]

    def perform(self, work: pathlib.Path, keep: pathlib.Path) -> Outcome:
        """Train and evaluate; nothing is kept but the outcome."""
        is_resumed = work.exists()
        settings = dataclasses.asdict(self)
        for name in ("adapts", "few", "item_groups"):
            del settings[name]
        started = time.perf_counter()
        trained = training.train(training.TrainingConfig(out=str(work), **settings), progress=False)
        seconds = time.perf_counter() - started
        model = training.load_model(trained.model)
        train, test = f"{self.data}/train", f"{self.data}/test"
        manifest = data.Manifest.load(train)
        cold = by_frequency = None
        if self.few is not None:
            cold = training.evaluate_cold_start(
                model, train, test, few=self.few, adapt=self.task if self.adapts else None
            ).to_dict()
        if self.item_groups is not None:
            by_frequency = training.evaluate_by_frequency(
                model, train, test, groups=self.item_groups
            ).to_dict()
        return Outcome(
            evaluation=training.evaluate(model, test).to_dict(),
            epochs=len(trained.history),
            best_epoch=trained.best_epoch + 1,
            seconds=None if is_resumed else seconds,
            rows=manifest.rows,
            train_bytes=sum(shard.bytes for shard in manifest.shards),
            relevance=relevance(model, test),
            cold_start=cold,
            by_frequency=by_frequency,
            history=trained.history,
        )

    def describe(self, outcome: Outcome) -> str:
        """A line on how good the model is."""
        seconds = "" if outcome.seconds is None else f", {outcome.seconds:.0f} s"
        options = {name: value for name, value in self.options.items() if name != "base_options"}
        return (
            f"{self.model} seed {self.seed}: AUC {outcome.evaluation['auc']:.4f}, "
            f"best epoch {outcome.best_epoch} of {outcome.epochs}{seconds}  {options}"
        )
