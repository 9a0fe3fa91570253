"""The training step of MAML and MeLU, against that of their network without an inner loop.

    python tools/bench_cold_start.py

The id features are those of a workload of `bench_training.py`, the network has 128-32 units. The
base is trained on the same rows, support and query, as one flat batch. All variants live in one
process and take turns; a ratio is the median over rounds of the medians of two neighbours' steps.
"""

import argparse
import json

import keras
import numpy as np
import tensorflow as tf
from training_bench import synthetic, train_ours, turns
from training_bench.workload import WORKLOADS

import ctr_keras as ck

VARIANTS = {
    "base": None,
    "MeLU": (ck.models.MeLU, {}),
    "MeLU, first order": (ck.models.MeLU, {"first_order": True}),
    "MAML": (ck.models.MAML, {}),
    "MAML, first order": (ck.models.MAML, {"first_order": True}),
}


def main() -> None:
    arguments = _arguments()
    wanted = {"base", *(arguments.variants or VARIANTS)}
    names = [name for name in VARIANTS if name in wanted]
    workload = WORKLOADS[arguments.workload]
    steps = {name: _step(workload, VARIANTS[name]) for name in names}
    batches = {name: _batches(workload, arguments, name == "base") for name in names}
    result = turns.take_turns(steps, batches, "base", arguments.rounds, arguments.steps)
    if arguments.json:
        print(json.dumps(result, indent=1))
        return
    rows = f"{arguments.tasks} tasks x ({arguments.support} + {arguments.query}) rows"
    print(f"{rows:<32}{'ms':>8}{'ratio':>8}")
    for name, line in result.items():
        print(f"{name:<32}{line['ms']:>8.1f}{line['ratio']:>8.2f}")


def _step(workload, variant):
    keras.utils.set_random_seed(workload.seed)
    cls, options = variant or (ck.models.MeLU, {})
    model = cls(train_ours.schema(workload), embedding_dim=workload.dim, units=(128, 32), **options)
    if variant is None:
        model = ck.models.CTRModel(model.schema, model.input, model.tensors["logit"])
    model.compile(ck.optimizers.LazyAdam(1e-3), metrics=[])
    return tf.function(lambda data: model.train_step(data), reduce_retracing=True)


def _batches(workload, arguments: argparse.Namespace, flat: bool) -> list:
    """The same rows for each variant; those of a task are of one user."""
    rows = arguments.support + arguments.query
    rng = np.random.default_rng(workload.seed)
    batches = []
    for _ in range(arguments.steps + 2):
        shape = (arguments.tasks, rows)
        features = {name: synthetic.zipf(rng, size, shape) for name, size in workload.ids}
        features["user_id"] = np.repeat(features["user_id"][:, :1], rows, axis=1)
        labels = (rng.random(shape) < 0.3).astype("float32")
        batches.append(_flat(features, labels) if flat else _halves(features, labels, arguments))
    return batches


def _flat(features: dict, labels: np.ndarray) -> tuple:
    return {n: tf.constant(x.ravel()) for n, x in features.items()}, tf.constant(labels.ravel())


def _halves(features: dict, labels: np.ndarray, arguments: argparse.Namespace) -> dict:
    parts = {"support": slice(0, arguments.support), "query": slice(arguments.support, None)}
    return {
        name: (
            {n: tf.constant(x[:, part]) for n, x in features.items()},
            tf.constant(labels[:, part]),
            tf.ones(labels[:, part].shape),
        )
        for name, part in parts.items()
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", default="deepfm-29x120k", help="or deepfm-29x1m")
    parser.add_argument("--tasks", type=int, default=32)
    parser.add_argument("--support", type=int, default=16, help="rows a task")
    parser.add_argument("--query", type=int, default=16, help="rows a task")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="timed steps a round")
    parser.add_argument("--variants", nargs="+", default=[], metavar="NAME", help="default: all")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
