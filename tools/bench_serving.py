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
_WARM_UP = 5


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
    """Of each way the times of all requests, the ways taking turns."""
    ways = {"tiled": signatures["serving_default"], "rank": signatures["rank"]}
    if name == "DIN":
        ways["products"] = _products(arguments)
    clock: dict[str, list[float]] = {way: [] for way in ways}
    processor: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(-_WARM_UP, arguments.requests):
        request = _request(schema, number + _WARM_UP, arguments)
        inputs = {"tiled": _tiled(schema, request, arguments.items), "rank": request}
        answers = {}
        for way, function in ways.items():
            started, spent = time.perf_counter(), time.process_time()
            answers[way] = function(**inputs.get(way, {}))["probability"].numpy()
            if number >= 0:
                processor[way].append(time.process_time() - spent)
                clock[way].append(time.perf_counter() - started)
        assert np.abs(answers["tiled"] - answers["rank"]).max() < 1e-6
    return {way: _line(clock[way], processor[way], clock, processor) for way in ways}


def _line(clock: list, processor: list, clocks: dict, processors: dict) -> dict[str, float]:
    return {
        "p50": statistics.median(clock) * 1e3,
        "p99": float(np.percentile(clock, 99)) * 1e3,
        "cpu": statistics.median(processor) * 1e3,
        "ratio": statistics.median(clocks["tiled"]) / statistics.median(clock),
        "cpu_ratio": statistics.median(processors["tiled"]) / statistics.median(processor),
    }


def _request(schema: ck.Schema, seed: int, arguments: argparse.Namespace) -> dict:
    """A user with a full history of distinct items, and items."""
    rng = np.random.default_rng(seed)
    columns = {}
    for feature in schema.inputs:
        rows = arguments.items if schema.is_of_item(feature.name) else 1
        size = schema.vocabulary(feature.name).size
        if feature.length is not None:
            ids = rng.choice(size - 2, (1, feature.length), replace=False) + 2
        else:
            ids = zipf(rng, size, (rows,)).astype("int64")
        is_looked_up = not schema.vocabulary(feature.name).is_encoded
        columns[feature.name] = tf.constant(10 * (ids - 2) + 7 if is_looked_up else ids, tf.int64)
    return columns


def _tiled(schema: ck.Schema, request: dict, items: int) -> dict:
    return {
        name: x if schema.is_of_item(name) else tf.repeat(x, items, axis=0)
        for name, x in request.items()
    }


def _products(arguments: argparse.Namespace):
    """The products alone: each query with each key's matrix, the attention's second layer, DNN."""
    pairs = arguments.items * arguments.history
    shapes = [
        ((arguments.items, DIM + 1), (DIM + 1, arguments.history * ATTENTION[0])),
        ((pairs, ATTENTION[0]), ATTENTION),
        ((arguments.items, 2 * DIM), (2 * DIM, UNITS[0])),
        ((arguments.items, UNITS[0]), UNITS),
    ]
    operands = [[tf.Variable(tf.random.normal(shape)) for shape in pair] for pair in shapes]

    @tf.function
    def multiply():
        parts = [tf.matmul(x, kernel)[0, 0] for x, kernel in operands]
        return {"probability": tf.add_n(parts)}

    return multiply


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["DIN", "DeepFM", "MMoE"], metavar="NAME")
    parser.add_argument("--items", type=int, default=1000, help="items a request")
    parser.add_argument("--history", type=int, default=50, help="past items of the user")
    parser.add_argument("--ids", type=int, default=100_000, help="users, and items")
    parser.add_argument("--requests", type=int, default=200, help="timed requests a model")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
