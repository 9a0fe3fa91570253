import dataclasses
import os
import pathlib
import subprocess
import sys
import time
from typing import ClassVar

import pytest

from ctr_keras.experiments.jobs import code_digest, run_all

ROOT = pathlib.Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Nothing:
    pass


@dataclasses.dataclass(frozen=True)
class Sleep:
    """A job that tells its process and never ends."""

    key: str
    outcome_type: ClassVar[type] = Nothing

    def perform(self, work, keep):
        (keep / "process").write_text(str(os.getpid()))
        time.sleep(3600)


@dataclasses.dataclass(frozen=True)
class Fail:
    """A job that fails once another runs."""

    key: str
    other: str
    outcome_type: ClassVar[type] = Nothing

    def perform(self, work, keep):
        _wait_until((keep.parent / self.other / "process").exists)
        raise ValueError("this one")


def test_the_first_failure_ends_all(tmp_path):
    with pytest.raises(ValueError, match="this one"):
        run_all([Fail("a", "b"), *map(Sleep, "bcd")], tmp_path, jobs=2)
    worker = pathlib.Path("/proc", (tmp_path / "b" / "process").read_text())
    assert not worker.exists()
    assert not (tmp_path / "d").exists()


def test_workers_end_with_a_killed_parent(tmp_path):
    code = (
        "from ctr_keras.experiments.jobs import run_all\n"
        "from tests.experiments.test_jobs import Sleep\n"
        f"run_all([Sleep('a')], {str(tmp_path)!r}, jobs=2)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as parent:
        file = tmp_path / "a" / "process"
        _wait_until(lambda: file.exists() and file.read_text())
        parent.kill()
    worker = pathlib.Path("/proc", file.read_text())
    _wait_until(lambda: not worker.exists())


@dataclasses.dataclass(frozen=True)
class Environment:
    arenas: str | None
    mappings: str | None


@dataclasses.dataclass(frozen=True)
class TellEnvironment:
    """A job that tells how its process takes memory."""

    key: str
    outcome_type: ClassVar[type] = Environment

    def perform(self, work, keep):
        work.mkdir(parents=True)
        return Environment(*map(os.environ.get, ("MALLOC_ARENA_MAX", "MALLOC_MMAP_MAX_")))

    def describe(self, outcome):
        return self.key


def test_workers_alone_keep_memory_unless_the_user_says_how(tmp_path, monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "3")
    monkeypatch.delenv("MALLOC_MMAP_MAX_", raising=False)
    found = run_all([TellEnvironment("a"), TellEnvironment("b")], tmp_path, jobs=2)
    assert found == dict.fromkeys("ab", Environment("3", "0"))
    assert os.environ["MALLOC_ARENA_MAX"] == "3" and "MALLOC_MMAP_MAX_" not in os.environ


@pytest.mark.parametrize("content", ["{", "{}", '{"outcome": {"unknown": 1}}'])
def test_a_result_of_another_version_is_named(content, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/result.json").write_text(content)
    with pytest.raises(ValueError, match=r"a/result.json is no result of this version.*remove it"):
        run_all([Sleep("a")], tmp_path)


def _wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_code_that_counts():
    digests = [code_digest(*parts) for parts in ((), ("data",), ("experiments/relevance.py",))]
    assert len(set(digests)) == 3
    assert digests[0] == code_digest()
