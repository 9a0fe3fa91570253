"""Runs the workers in turn, so that a slow minute of the machine hits all alike."""

import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping

from training_bench.implementations import Implementation
from training_bench.interference import wait_for_quiet
from training_bench.workload import Workload

QUIET = 0.1  # share of the machine that others may use
# Temporaries as large as a table else go back to the kernel in every step, and fetching them again
# costs PyTorch a third of its time at a million ids. It is the same for all.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 34)}
TOOLS = pathlib.Path(__file__).resolve().parent.parent


@dataclasses.dataclass(frozen=True)
class Run:
    """One worker's answer, or the error that came instead."""

    workload: str
    implementation: str
    variant: str
    round: int
    measured: dict | None
    error: str | None = None

    @property
    def step_ms(self) -> float:
        return statistics.median(self.measured["step_ms"]) if self.measured else float("inf")

    @property
    def disturbed(self) -> float:
        """Share of the machine that other processes used meanwhile."""
        return self.measured["disturbed"] if self.measured else 0.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        implementations: For each workload, who runs it.
        pythons: Interpreter of each implementation, or the error that left it without one.
        rounds: How often.
        timeout: Seconds that one worker may take.
        retries: How often a run that others disturbed is repeated; the least disturbed counts.
        patience: Seconds to wait, before each run, for the others to pause.
    """

    implementations: Mapping[Workload, tuple[Implementation, ...]]
    pythons: Mapping[str, pathlib.Path | str]
    rounds: int
    timeout: float
    retries: int
    patience: float


def run_all(plan: Plan) -> Iterator[Run]:
    """Every round visits every workload and, within it, every implementation in turn."""
    fastest: dict[tuple[str, str], str] = {}
    for number in range(1, plan.rounds + 1):
        for workload, implementations in plan.implementations.items():
            first = number % len(implementations)
            for implementation in implementations[first:] + implementations[:first]:
                key = (workload.name, implementation.name)
                variants = (fastest[key],) if key in fastest else implementation.variants
                runs = [_undisturbed(plan, workload, implementation, v, number) for v in variants]
                fastest[key] = min(runs, key=lambda run: run.step_ms).variant
                yield from runs


def _undisturbed(plan: Plan, *what) -> Run:
    runs: list[Run] = []
    while len(runs) <= plan.retries and not any(run.disturbed < QUIET for run in runs):
        wait_for_quiet(plan.patience, QUIET)
        runs.append(_run(plan, *what))
    return min(runs, key=lambda run: run.disturbed)


def _run(
    plan: Plan, workload: Workload, implementation: Implementation, variant: str, number: int
) -> Run:
    python = plan.pythons[implementation.name]
    run = Run(workload.name, implementation.name, variant, number, measured=None)
    if isinstance(python, str):
        return dataclasses.replace(run, error=python)
    command = [str(python), "-m", f"training_bench.{implementation.module}"]
    command += ["--workload", workload.to_json(), "--variant", variant]
    try:
        done = subprocess.run(
            command, env=_environment(), capture_output=True, text=True, timeout=plan.timeout
        )
    except subprocess.TimeoutExpired:
        return dataclasses.replace(run, error=f"took longer than {plan.timeout:g} s")
    answers = [line for line in done.stdout.splitlines() if line.startswith('{"step_ms"')]
    if done.returncode or not answers:
        return dataclasses.replace(run, error=_failure(done))
    return dataclasses.replace(run, measured=json.loads(answers[-1]))


def _environment() -> dict[str, str]:
    paths = os.pathsep.join((str(TOOLS), str(TOOLS.parent)))
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **quiet, **KEEP_MEMORY, "PYTHONPATH": paths}


def _failure(done: subprocess.CompletedProcess) -> str:
    lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
    return f"exit status {done.returncode}: {lines[-1].strip()}"


def show_progress(run: Run, rounds: int):
    what = f"{run.workload} {run.implementation}/{run.variant}"
    result = run.error or f"{run.step_ms:.1f} ms a step, {run.disturbed:.0%} disturbed"
    print(f"round {run.round}/{rounds}  {what}: {result}", file=sys.stderr, flush=True)
