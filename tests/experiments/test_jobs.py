import dataclasses
import os
import pathlib
import subprocess
import sys
import time
from typing import ClassVar

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


def _wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
