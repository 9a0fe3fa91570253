"""What representations of items cost: SimTier, the memory bank, and looking vectors up.

    python tools/bench_multimodal.py

- SimTier on 1024 x 50 past items of 128 floats in 20 tiers, against a training step of the DIN of
  `bench_training.py`'s `din-100k`: the two take turns
- adding 256 keys to memory banks of several sizes
- reading batches of 1024 rows with a history of 50, with vectors of target and past items and
  without
"""

import argparse
import json
import statistics
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
from training_bench import synthetic, train_ours, turns
from training_bench.workload import WORKLOADS

import ctr_keras as ck

WORKLOAD = WORKLOADS["din-100k"]
WIDTH, TIERS, ITEMS, ROWS = 128, 20, 20_000, 102_400
BANKS = (1_000, 19_680, 196_800)


def main() -> None:
    arguments = _arguments()
    result = {
        "sim_tier": _sim_tier(arguments.rounds),
        "bank": {size: _bank(size) for size in BANKS},
        "reading": _reading(arguments.rounds),
    }
    if arguments.json:
        print(json.dumps(result, indent=1))
        return
    for name, line in result["sim_tier"].items():
        print(f"{name:<32}{line['ms']:>9.2f} ms{line['ratio']:>9.3f}")
    for size, seconds in result["bank"].items():
        print(f"{f'256 keys into a bank of {size:,}':<32}{seconds * 1e3:>9.2f} ms")
    for name, rows in result["reading"].items():
        print(f"{name:<32}{rows:>9,.0f} rows/s")


def _unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = rng.normal(size=shape).astype("float32")
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _sim_tier(rounds: int) -> dict:
    rng = np.random.default_rng(0)
    features, labels = synthetic.batches(WORKLOAD)
    model = train_ours.model_of(WORKLOAD)
    model.compile(ck.optimizers.LazyAdam(1e-3), metrics=[])
    rows = len(labels[0])
    vectors = tf.constant(_unit(rng, rows, WIDTH)), tf.constant(_unit(rng, rows, 50, WIDTH))
    batches = [
        ({name: tf.constant(values[n]) for name, values in features.items()}, tf.constant(y))
        for n, y in enumerate(labels)
    ]
    layer = ck.layers.SimTier(TIERS)
    steps = {
        "training step of DIN": tf.function(lambda batch: model.train_step(batch)),
        "SimTier": tf.function(lambda batch: layer(*vectors, batch[0]["history_item_id"] > 0)),
    }
    every = dict.fromkeys(steps, batches)
    return turns.take_turns(steps, every, "training step of DIN", rounds, 20)


def _bank(size: int) -> float:
    rng = np.random.default_rng(0)
    bank = ck.pretraining.MemoryBank(WIDTH, size)
    keys, ids = tf.constant(_unit(rng, 256, WIDTH)), tf.range(256, dtype=tf.int64)
    add = tf.function(lambda: bank.add(keys, ids))
    times = []
    for _ in range(50):
        started = time.perf_counter()
        add()
        times.append(time.perf_counter() - started)
    return statistics.median(times[5:])


def _reading(rounds: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    schema = ck.Schema(
        [
            ck.Feature("item_id", "item", vocabulary=ck.Vocabulary.of_size(ITEMS)),
            ck.Feature("history_item_id", "history", length=50, shares="item_id"),
            ck.Feature("label", "label", kind="number"),
        ]
    )
    with tempfile.TemporaryDirectory() as folder:
        rows = {
            "item_id": rng.integers(2, ITEMS, ROWS),
            "history_item_id": rng.integers(2, ITEMS, (ROWS, 50)),
            "label": rng.integers(0, 2, ROWS),
        }
        ck.data.write(f"{folder}/train", schema, rows)
        table = ck.data.VectorTable.create(f"{folder}/item_vectors", {"encoder": "random"}, WIDTH)
        table.extended(np.arange(2, ITEMS), _unit(rng, ITEMS - 2, WIDTH))
        schemas = {"without vectors": schema, "with vectors": schema.with_item_vectors(WIDTH)}
        found: dict[str, list[float]] = {name: [] for name in schemas}
        for _ in range(rounds):
            for name, each in schemas.items():
                started = time.perf_counter()
                for _ in ck.data.read(f"{folder}/train", each, 1024, shuffle=True, verify=False):
                    pass
                found[name].append(ROWS / (time.perf_counter() - started))
    return {f"read {name}": statistics.median(speeds) for name, speeds in found.items()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    main()
