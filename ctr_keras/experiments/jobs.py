"""Many jobs of an experiment: several at a time, each kept once it is done."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Protocol, TypeVar

from ctr_keras import files
from ctr_keras.extras import versions

Label = TypeVar("Label")
_RESULT_FILE = "result.json"
_LIBRARIES = ("tensorflow", "keras", "keras-hub", "tensorflow-text")
# Each step frees and takes blocks of megabytes. glibc gives those of any thread but the first back
# to the kernel, and having them zeroed anew took a fifth of the CPU of a training in one thread.
_KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
}


class Job(Protocol):
    """What `run_all` does: a frozen dataclass that tells what to do and how.

    Attributes:
        outcome_type: Dataclass of what it comes to, numbers and texts alone.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    outcome_type: ClassVar[type]

    @property
    def key(self) -> str:
        """What tells the job from others, whatever the path of its data: rows, settings, code."""

    def perform(self, work: pathlib.Path, keep: pathlib.Path) -> Any:
        """Do it, or go on where it was interrupted.

        Args:
            work: Folder for what is needed until it is done.
            keep: Folder for what is to stay.
        """

    def describe(self, outcome: Any) -> str:
        """A line on what it came to."""


def run_all(
    jobs_to_do: Iterable[Job],
    out: str | os.PathLike,
    *,
    jobs: int = 1,
    report: Callable[[str], Any] = lambda line: None,
) -> dict[str, Any]:
    """The outcome of each job by its key, from `out` where it was done before.

    Args:
        jobs_to_do: What to do. What occurs twice is done once.
        out: Folder that keeps outcomes. Called again after an interruption, what is done is read,
            and a job that was cut off goes on after its last complete epoch.
        jobs: How many at a time; several share the cores, each in a process of its own.
        report: Told of each job as it is done.
    """
    folder = pathlib.Path(out)
    wanted = {job.key: job for job in jobs_to_do}
    outcomes = {key: _kept(job, folder / key) for key, job in wanted.items()}
    missing = {key: wanted[key] for key, outcome in outcomes.items() if outcome is None}
    report(f"{len(wanted)} trainings, {len(wanted) - len(missing)} of them done before")
    finished = _in_workers(missing, folder, jobs) if jobs > 1 else _here(missing, folder)
    for number, (key, outcome) in enumerate(finished, start=1):
        outcomes[key] = outcome
        report(f"{number}/{len(missing)} {wanted[key].describe(outcome)}")
    return outcomes


def run_labelled(
    jobs_to_do: Mapping[Label, list],
    out: str | os.PathLike,
    *,
    jobs: int = 1,
    report: Callable[[str], Any] = lambda line: None,
) -> dict[Label, list]:
    """The outcomes of several lists of jobs, as `run_all` gets them."""
    every = [job for found in jobs_to_do.values() for job in found]
    outcomes = run_all(every, out, jobs=jobs, report=report)
    return {label: [outcomes[job.key] for job in found] for label, found in jobs_to_do.items()}


@functools.cache
def code_digest(*parts: str) -> str:
    """Of the source, so that results of other code are not taken for this one's.

    Args:
        *parts: Folders and files of the package. The modules beside them (the schema and the like)
            and the versions of the libraries count always, the command line never.
    """
    root = pathlib.Path(__file__).parents[1]
    modules = set(root.glob("*.py")) - {root / "cli.py"}
    for part in parts:
        modules.update((root / part).rglob("*.py") if (root / part).is_dir() else [root / part])
    content = b"".join(path.read_bytes() for path in sorted(modules))
    libraries = json.dumps(versions(_LIBRARIES))
    return hashlib.sha256(content + libraries.encode()).hexdigest()[:16]


def _here(missing: Mapping[str, Job], folder: pathlib.Path) -> Iterator[tuple[str, Any]]:
    """One after the other, in this process."""
    for key, job in missing.items():
        yield key, _done(job, folder / key)


def _in_workers(
    missing: Mapping[str, Job], folder: pathlib.Path, jobs: int
) -> Iterator[tuple[str, Any]]:
    """Several at a time, each with its share of the cores, as they are done.

    The first that fails ends them all, as an interruption does: they go on where they stopped.
    """
    with contextlib.suppress(RuntimeError):  # Of a GPU that computes here already.
        _share_gpus()
    others = multiprocessing.active_children()
    pool = concurrent.futures.ProcessPoolExecutor(
        jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(max((os.cpu_count() or 1) // jobs, 1),),
    )
    try:
        with _environment(_KEEP_MEMORY):  # Read as a process starts: on the submits.
            futures = {
                pool.submit(_done_in_worker, job, folder / key): key for key, job in missing.items()
            }
        for future in concurrent.futures.as_completed(futures):
            yield futures[future], future.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        # The pool would wait for what runs, and for as many jobs again that already queue.
        workers = [p for p in multiprocessing.active_children() if p not in others]
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()
        raise
    pool.shutdown()


@contextlib.contextmanager
def _environment(defaults: Mapping[str, str]) -> Iterator[None]:
    """Variables for the processes that start meanwhile; those that are set stay as they are."""
    new = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]


def _done_in_worker(job: Job, folder: pathlib.Path) -> Any:
    import keras

    keras.backend.clear_session()  # Of the job before.
    return _done(job, folder)


def _start_worker(threads: int) -> None:
    import tensorflow as tf

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all: the parent ends them.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _share_gpus()
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def _share_gpus() -> None:
    """Have this process take of a GPU's memory what it needs, where by default it takes all."""
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)


def _end_with_parent() -> None:
    """So that no worker trains on for nobody when the reproduction is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _done(job: Job, folder: pathlib.Path) -> Any:
    """Do a job and keep its outcome, unless another process has."""
    with files.locked(folder):  # Another reproduction may share the job.
        if (kept := _kept(job, folder)) is not None:
            return kept
        outcome = job.perform(folder / "work", folder)
        content = {"job": dataclasses.asdict(job), "outcome": dataclasses.asdict(outcome)}
        text = json.dumps(content, indent=1, sort_keys=True)
        files.write_atomic(folder / _RESULT_FILE, text.encode())
        shutil.rmtree(folder / "work")
        return outcome


def _kept(job: Job, folder: pathlib.Path) -> Any:
    file = folder / _RESULT_FILE
    try:
        return job.outcome_type(**json.loads(file.read_text())["outcome"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is no result of this version ({error}): remove it") from error
