"""The rows that every implementation trains on: the same arrays from the same seed."""

import numpy as np

from training_bench.workload import RESERVED_IDS, Workload

HASH_PRIME = 2_654_435_761


def batches(workload: Workload) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Features `(steps, batch)` or `(steps, batch, history)` as int32, labels as float32.

    No batch comes twice: repeated ones would keep the rows that they touch in the cache, which
    flatters whoever updates touched rows alone.
    """
    rng = np.random.default_rng(workload.seed)
    shape = (workload.warm_up + workload.steps, workload.batch)
    features = {name: zipf(rng, size, shape) for name, size in workload.ids}
    labels = (rng.random(shape) < np.where(features["item_id"] % 2, 0.6, 0.2)).astype("float32")
    if workload.history:
        size = dict(workload.ids)["item_id"]
        features["history_item_id"] = _history(rng, size, (*shape, workload.history))
    return features, labels


def _history(rng: np.random.Generator, size: int, shape: tuple[int, ...]) -> np.ndarray:
    lengths = rng.integers(1, shape[-1] + 1, (*shape[:-1], 1))
    return np.where(np.arange(shape[-1]) < lengths, zipf(rng, size, shape), 0).astype("int32")


def zipf(rng: np.random.Generator, size: int, shape: tuple[int, ...]) -> np.ndarray:
    """Ids whose frequency falls as 1 / rank, scattered over the table.

    Ids sorted by frequency would put the popular rows side by side in the cache.
    """
    known = size - RESERVED_IDS
    rank = np.floor(known ** rng.random(shape)).astype("int64")
    return (RESERVED_IDS + rank * HASH_PRIME % known).astype("int32")
