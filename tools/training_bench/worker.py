"""Runs in an implementation's own environment: trains, times each step, prints one JSON line."""

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable

from training_bench.interference import Interference
from training_bench.synthetic import batches
from training_bench.workload import Workload

# Takes the workload, its features, its labels and the variant's name; gives a function that does
# one step and returns what `float` makes its loss.
Build = Callable[..., Callable[[], object]]


def main(build: Build, versions: dict[str, str]):
    """Command line of a worker; `build` is the implementation."""
    parser = argparse.ArgumentParser(description="Time one implementation's training step.")
    parser.add_argument("--workload", required=True, help="the workload as JSON")
    parser.add_argument("--variant", required=True, help="how the implementation is set up")
    arguments = parser.parse_args()
    workload = Workload.from_json(arguments.workload)
    step = build(workload, *batches(workload), arguments.variant)
    print(json.dumps({**_time(step, workload), "versions": versions}))
    sys.stdout.flush()


def _time(step: Callable[[], object], workload: Workload) -> dict:
    started = time.perf_counter()
    for _ in range(workload.warm_up):
        step()
    warm_up_s = time.perf_counter() - started
    watch, step_ms, losses = Interference(), [], []
    for _ in range(workload.steps):
        started = time.perf_counter()
        loss = step()
        step_ms.append(1e3 * (time.perf_counter() - started))
        losses.append(float(loss))
    return {
        "step_ms": [round(value, 3) for value in step_ms],
        "rows_per_s": 1e3 * workload.batch / statistics.median(step_ms),
        "final_loss": statistics.mean(losses[-5:]),
        "disturbed": watch.share(),
        "warm_up_s": warm_up_s,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
