"""Many trainings of an experiment: several at a time, each kept once it is done."""

import concurrent.futures
import dataclasses
import fcntl
import functools
import hashlib
import json
import multiprocessing
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from ctr_keras import data, files, training
from ctr_keras.experiments.relevance import relevance
from ctr_keras.schema import Schema

Label = TypeVar("Label")

_RESULT_FILE = "result.json"
_CODE = ("data", "layers", "losses", "models", "optimizers", "training")


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
        tasks: Tasks a batch.
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
    tasks: int | None = None
    texts: tuple[str, ...] = ()
    few: int | None = None
    item_groups: int | None = None

    @functools.cached_property
    def key(self) -> str:
        """What tells the run from others, whatever the path of its data: rows, settings, code."""
        config = dataclasses.asdict(self)
        folder = config.pop("data")
        manifests = [data.Manifest.load(f"{folder}/{name}") for name in ("train", "valid", "test")]
        config["rows"] = [[manifest.digest, manifest.negative_ratio] for manifest in manifests]
        config["code"] = _code_digest()
        config["schema"] = Schema.load(folder).fingerprint
        if self.texts:
            config["encoder"] = data.VectorTable.of_texts(folder).encoder
        if training.takes_item_vectors(self.model):
            config["item_vectors"] = data.VectorTable.of_items(folder).encoder
        text = json.dumps(config, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


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


def run_all(
    runs: Iterable[Run],
    out: str | os.PathLike,
    *,
    jobs: int = 1,
    report: Callable[[str], Any] = lambda line: None,
) -> dict[str, Outcome]:
    """The outcome of each run by its key, from `out` where it was done before.

    Args:
        runs: What to train. Runs that occur twice are done once.
        out: Folder that keeps outcomes. Called again after an interruption, what is done is read,
            and a training that was cut off goes on after its last complete epoch.
        jobs: How many to train at a time; several share the cores, each in a process of its own.
        report: Told of each run as it is done.
    """
    folder = pathlib.Path(out)
    wanted = {run.key: run for run in runs}
    outcomes = {key: _kept(folder / key) for key in wanted}
    missing = [key for key, outcome in outcomes.items() if outcome is None]
    report(f"{len(wanted)} trainings, {len(wanted) - len(missing)} of them done before")
    tasks = {key: (wanted[key], str(folder / key)) for key in missing}
    finished = _in_workers(tasks, jobs) if jobs > 1 else _here(tasks)
    for number, (key, outcome) in enumerate(finished, start=1):
        outcomes[key] = outcome
        report(f"{number}/{len(missing)} {_describe(wanted[key], outcome)}")
    return {key: outcome for key, outcome in outcomes.items() if outcome is not None}


def run_labelled(
    runs: Mapping[Label, list[Run]],
    out: str | os.PathLike,
    *,
    jobs: int = 1,
    report: Callable[[str], Any] = lambda line: None,
) -> dict[Label, list[Outcome]]:
    """The outcomes of several lists of runs, as `run_all` gets them."""
    outcomes = run_all(
        [run for found in runs.values() for run in found], out, jobs=jobs, report=report
    )
    return {label: [outcomes[run.key] for run in found] for label, found in runs.items()}


def _here(tasks: dict[str, tuple[Run, str]]) -> Iterator[tuple[str, Outcome]]:
    """One after the other, in this process."""
    for key, task in tasks.items():
        yield key, _train(*task)


def _in_workers(tasks: dict[str, tuple[Run, str]], jobs: int) -> Iterator[tuple[str, Outcome]]:
    """Several at a time, each with its share of the cores, as they are done."""
    with concurrent.futures.ProcessPoolExecutor(
        jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_limit_threads,
        initargs=(max((os.cpu_count() or 1) // jobs, 1),),
    ) as pool:
        futures = {pool.submit(_train_in_worker, *task): key for key, task in tasks.items()}
        try:
            for future in concurrent.futures.as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _train_in_worker(run: Run, folder: str) -> Outcome:
    import keras

    keras.backend.clear_session()  # Of the run before.
    return _train(run, folder)


def _limit_threads(threads: int) -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def _train(run: Run, folder: str) -> Outcome:
    """Train, evaluate, keep the outcome and drop the model."""
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    with open(pathlib.Path(folder) / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Another reproduction may share the run.
        return _kept(pathlib.Path(folder)) or _train_anew(run, pathlib.Path(folder))


def _train_anew(run: Run, folder: pathlib.Path) -> Outcome:
    work = folder / "training"
    is_resumed = work.exists()
    settings = dataclasses.asdict(run)
    few, groups = settings.pop("few"), settings.pop("item_groups")
    config = training.TrainingConfig(out=str(work), **settings)
    started = time.perf_counter()
    trained = training.train(config, progress=False)
    seconds = time.perf_counter() - started
    model = training.load_model(trained.model)
    manifest = data.Manifest.load(f"{run.data}/train")
    outcome = Outcome(
        evaluation=training.evaluate(model, f"{run.data}/test").to_dict(),
        epochs=len(trained.history),
        best_epoch=trained.best_epoch + 1,
        seconds=None if is_resumed else seconds,
        rows=manifest.rows,
        train_bytes=sum(shard.bytes for shard in manifest.shards),
        relevance=relevance(model, f"{run.data}/test"),
        cold_start=None if few is None else _cold_start(model, run, few),
        by_frequency=None if groups is None else _by_frequency(model, run, groups),
        history=trained.history,
    )
    content = {"run": dataclasses.asdict(run), "outcome": dataclasses.asdict(outcome)}
    text = json.dumps(content, indent=1, sort_keys=True)
    files.write_atomic(folder / _RESULT_FILE, text.encode())
    shutil.rmtree(work)
    return outcome


def _cold_start(model: Any, run: Run, few: int) -> dict[str, Any]:
    found = training.evaluate_cold_start(
        model, f"{run.data}/train", f"{run.data}/test", few=few, adapt=run.task
    )
    return found.to_dict()


def _by_frequency(model: Any, run: Run, groups: int) -> dict[str, Any]:
    found = training.evaluate_by_frequency(
        model, f"{run.data}/train", f"{run.data}/test", groups=groups
    )
    return found.to_dict()


def _kept(folder: pathlib.Path) -> Outcome | None:
    try:
        content = json.loads((folder / _RESULT_FILE).read_text())
    except FileNotFoundError:
        return None
    return Outcome(**content["outcome"])


def _describe(run: Run, outcome: Outcome) -> str:
    seconds = "" if outcome.seconds is None else f", {outcome.seconds:.0f} s"
    options = {name: value for name, value in run.options.items() if name != "base_options"}
    return (
        f"{run.model} seed {run.seed}: AUC {outcome.evaluation['auc']:.4f}, "
        f"best epoch {outcome.best_epoch} of {outcome.epochs}{seconds}  {options}"
    )


@functools.cache
def _code_digest() -> str:
    """Of the package's own source, so that results of other code are not taken for this one's."""
    root = pathlib.Path(__file__).parents[1]
    parts = (path.read_bytes() for name in _CODE for path in sorted((root / name).rglob("*.py")))
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]
