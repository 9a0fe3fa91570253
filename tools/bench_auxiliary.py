"""What auxiliary tasks add to the training step of DIN, and what they leave of it when serving.

    python tools/bench_auxiliary.py

DIN is that of `bench_training.py`'s `din-100k`: 1024 rows, a history of up to 50, 100,000 ids. All
variants live in one process and take turns, batch by batch; a ratio is the median over rounds of
the medians of two neighbours' steps. With `rows=n` the tasks use n of the 1024 rows.
"""

import argparse
import json
import statistics
import tempfile
import time

import keras
import tensorflow as tf
from training_bench import synthetic, train_ours, turns
from training_bench.workload import WORKLOADS

import ctr_keras as ck

WORKLOAD = WORKLOADS["din-100k"]


def main() -> None:
    arguments = _arguments()
    batches = _batches()
    variants = _variants(arguments.variants)
    every = dict.fromkeys(variants, batches)
    result = turns.take_turns(variants, every, "DIN", arguments.rounds, arguments.steps)
    serving = _serving(batches[0][0])
    if arguments.json:
        print(json.dumps({"training": result, "serving": serving}, indent=1))
        return
    print(f"{'training step':<28}{'ms':>8}{'ratio':>8}")
    for name, line in result.items():
        print(f"{name:<28}{line['ms']:>8.1f}{line['ratio']:>8.2f}")
    print(f"\n{'SavedModel, 1024 rows':<28}{'ms':>8}{'ratio':>8}")
    for name, seconds in serving.items():
        print(f"{name:<28}{seconds * 1e3:>8.1f}{seconds / serving['DIN']:>8.2f}")


def _variants(names: list[str]) -> dict:
    choices = {
        "DIN": None,
        "UIM + NIP, rows=64": {"rows": 64},
        "UIM + NIP, rows=96": {"rows": 96},
        "UIM + NIP, rows=128": {"rows": 128},
        "UIM + NIP, rows=256": {"rows": 256},
        "UIM + NIP, all rows": {},
        "UIM, all rows": {"nip_weight": 0.0},
        "NIP, all rows": {"uim_weight": 0.0},
    }
    return {
        name: _step(options)
        for name, options in choices.items()
        if name == "DIN" or not names or name in names
    }


def _model(options: dict | None) -> keras.Model:
    keras.utils.set_random_seed(WORKLOAD.seed)
    base = train_ours.model_of(WORKLOAD)
    return base if options is None else ck.models.AT4CTR(base, **options)


def _step(options: dict | None):
    model = _model(options)
    model.compile(ck.optimizers.LazyAdam(1e-3), metrics=[])
    return tf.function(lambda batch: model.train_step(batch), reduce_retracing=True)


def _batches() -> list:
    features, labels = synthetic.batches(WORKLOAD)
    return [
        ({name: tf.constant(values[n]) for name, values in features.items()}, tf.constant(y))
        for n, y in enumerate(labels)
    ]


def _serving(features: dict, rounds: int = 30) -> dict[str, float]:
    """Median seconds of the exported model's signature, the two taking turns."""
    signatures = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, options in (("DIN", None), ("AT4CTR", {})):
            path = ck.serving.export(_model(options), f"{folder}/{name}")
            signatures[name] = tf.saved_model.load(str(path)).signatures["serving_default"]
    columns = {name: tf.cast(values, tf.int64) for name, values in features.items()}
    times = {name: [] for name in signatures}
    for _ in range(rounds):
        for name, signature in signatures.items():
            started = time.perf_counter()
            signature(**columns)
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(found[3:]) for name, found in times.items()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="timed steps a round")
    parser.add_argument("--variants", nargs="+", default=[], metavar="NAME", help="default: all")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
