"""Variants of a training step in one process, taking turns."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

_WARM_UP = 2


def take_turns(
    steps: Mapping[str, Callable],
    batches: Mapping[str, Sequence],
    base: str,
    rounds: int,
    count: int,
) -> dict[str, dict[str, float]]:
    """Median milliseconds of each variant's step, and their ratio to the base's.

    Args:
        steps: The step of each variant, which takes a batch.
        batches: The batches of each; they are used again once they are through.
        base: The variant the others are compared with.
        rounds: How often each has its turn.
        count: Timed steps a turn.

    Returns:
        By variant `ms`, and `ratio`: the median over rounds of the ratios of two neighbours.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(_median(step, batches[name], count))
    return {
        name: {
            "ms": statistics.median(found) * 1e3,
            "ratio": statistics.median(np.divide(found, times[base])),
        }
        for name, found in times.items()
    }


def _median(step: Callable, batches: Sequence, count: int) -> float:
    times = []
    for n in range(count + _WARM_UP):
        started = time.perf_counter()
        tf.nest.map_structure(np.asarray, step(batches[n % len(batches)]))  # until it is there
        times.append(time.perf_counter() - started)
    return statistics.median(times[_WARM_UP:])
