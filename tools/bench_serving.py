"""One user with many candidate items: the signature `rank` against the same rows tiled.

    python tools/bench_serving.py

The exported model answers in this process, `rank` and `serving_default` taking turns, request by
request; the ratio is that of their medians. Ids are looked up in a vocabulary, as after
`ctr-keras prepare`. Beside the times on the clock stand those on the processor, which other jobs on
the machine disturb less. `products` are the matrix products that no way of computing the scores
can do without, by TensorFlow on the same numbers: the least that the arithmetic takes.
"""

import argparse
import json
import pathlib
import statistics
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
from training_bench.synthetic import zipf

import ctr_keras as ck

DIM, ATTENTION, UNITS = 16, (80, 40), (200, 80)


def main() -> None:
    arguments = _arguments()
    keras.utils.set_random_seed(7)
    lines = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.models:
            schema = _schema(pathlib.Path(folder), arguments, name)
            lines[name] = _measure(_exported(name, schema, folder), schema, name, arguments)
    if arguments.json:
        print(json.dumps(lines, indent=1))
        return
    print(f"{arguments.items} items, history {arguments.history}, {arguments.ids:,} ids")
    print(f"{'':<26}{'p50 ms':>9}{'p99 ms':>9}{'cpu ms':>9}{'tiled/this':>12}{'by cpu':>9}")
    for name, found in lines.items():
        for what, line in found.items():
            ratios = f"{line['ratio']:>12.2f}{line['cpu_ratio']:>9.2f}"
            times = f"{line['p50']:>9.2f}{line['p99']:>9.2f}{line['cpu']:>9.2f}"
            print(f"{name + ', ' + what:<26}{times}{ratios}")


def _schema(folder: pathlib.Path, arguments: argparse.Namespace, model: str) -> ck.Schema:
    """User, item and history; for models of many features the attributes of a user too."""
    ids = ck.Vocabulary.write(folder / "ids.txt", (10 * n + 7 for n in range(arguments.ids)))
    small = ck.Vocabulary.of_size(1000)
    features = [
        ck.Feature("user_id", "user", vocabulary=ids),
        ck.Feature("item_id", "item", vocabulary=ids),
    ]
    if model == "DIN":
        length = arguments.history
        features.append(ck.Feature("history_item_id", "history", length=length, shares="item_id"))
    else:
        scene = ck.Vocabulary.of_size(7)
        features.append(ck.Feature("scene", "scenario", vocabulary=scene))
        features += [ck.Feature(f"of_user_{n}", "user", vocabulary=small) for n in range(16)]
        features += [ck.Feature(f"of_item_{n}", "item", vocabulary=small) for n in range(10)]
    return ck.Schema([*features, ck.Feature("label", "label", kind="number")])


def _exported(name: str, schema: ck.Schema, folder: str):
    options = {"attention_units": ATTENTION} if name == "DIN" else {}
    options |= {} if name == "MMoE" else {"units": UNITS}
    model = getattr(ck.models, name)(schema, embedding_dim=DIM, **options)
    for weight in model.weights:
        if weight.path.endswith("alpha"):
            weight.assign(np.random.default_rng(1).uniform(0, 0.5, weight.shape))
    return tf.saved_model.load(str(ck.serving.export(model, f"{folder}/models/{name}"))).signatures


def _measure(signatures, schema, name: str, arguments: argparse.Namespace) -> dict:
    requests = [_request(schema, n, arguments) for n in range(arguments.requests)]
    steps = {
        "tiled": lambda x: signatures["serving_default"](**_tiled(schema, x))["probability"],
        "rank": lambda x: signatures["rank"](**x)["probability"],
    }
    if name == "DIN":
        steps["products"] = _products(arguments)
    first, second = (steps[which](requests[0]).numpy() for which in ("tiled", "rank"))
    assert np.abs(first - second).max() < 1e-6
    clock: dict[str, list[float]] = {which: [] for which in steps}
    processor: dict[str, list[float]] = {which: [] for which in steps}
    for request in [*requests[:3], *requests]:
        for which, step in steps.items():
            x = _tiled(schema, request) if which == "tiled" else request
            run = signatures["serving_default"] if which == "tiled" else None
            started, spent = time.perf_counter(), time.process_time()
            answer = run(**x)["probability"] if run is not None else step(x)
            np.asarray(answer)
            processor[which].append(time.process_time() - spent)
            clock[which].append(time.perf_counter() - started)
    return {
        which: {
            "p50": statistics.median(clock[which][3:]) * 1e3,
            "p99": float(np.percentile(clock[which][3:], 99)) * 1e3,
            "cpu": statistics.median(processor[which][3:]) * 1e3,
            "ratio": statistics.median(clock["tiled"][3:]) / statistics.median(clock[which][3:]),
            "cpu_ratio": statistics.median(processor["tiled"][3:])
            / statistics.median(processor[which][3:]),
        }
        for which in steps
    }
