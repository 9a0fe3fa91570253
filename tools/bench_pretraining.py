"""Pairs of texts a second that a text encoder learns from.

    python tools/bench_pretraining.py --pairs tf_data/home-depot

- each step with the whole encoder, from texts
- each step with its last layers alone, from what the others made of each text beforehand, as
  `ctr-keras pretrain` does it; how long that took stands below

Both read their batches while they learn. They live in one process and take turns; a ratio is the
median over rounds of the medians of two neighbours' steps.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

import ctr_keras as ck
from ctr_keras.pretraining.text_weights import MINILM
from ctr_keras.training.pair_sources import TextPairs
from ctr_keras.training.pretrain import max_tokens_of

_WARM_UP = 3


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        pairs = TextPairs(
            arguments.pairs, arguments.batch_size, encoder=arguments.encoder,
            max_tokens=arguments.max_tokens, layers=arguments.layers, views="query",
            states=arguments.states or folder, progress=True,
        )  # fmt: skip
        seconds = time.perf_counter() - started
        result = _speeds(arguments, pairs)
    found = pairs.states
    result["states"] = {
        "texts": len(found.keys), "gigabytes": found.states.nbytes / 1e9, "seconds": seconds
    }  # fmt: skip
    if arguments.json:
        print(json.dumps(result, indent=1))
        return
    for name in ("whole encoder", "last layers"):
        line = result[name]
        print(f"{name:<16}{line['pairs_per_second']:>8.1f} pairs/s{line['ratio']:>8.2f}")
    print(
        "states: {texts:,} texts, {gigabytes:.2f} GB in {seconds:.0f} s".format(**result["states"])
    )


def _speeds(arguments: argparse.Namespace, pairs: TextPairs) -> dict:
    whole = ck.pretraining.TextEncoder.from_preset(arguments.encoder, arguments.max_tokens)
    whole.train_last(arguments.layers)
    texts = ck.pretraining.read_pairs(
        f"{arguments.pairs}/train", arguments.batch_size, shuffle=True
    )
    turns = {
        "whole encoder": _turn(whole, texts, arguments),
        "last layers": _turn(pairs.encoder(), pairs.read("train", shuffle=True), arguments),
    }
    times: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(arguments.rounds):
        for name, turn in turns.items():
            times[name].append(turn())
    first = times["whole encoder"]
    return {
        name: {
            "pairs_per_second": arguments.batch_size / statistics.median(found),
            "ratio": statistics.median(np.divide(first, found)),
        }
        for name, found in times.items()
    }


def _turn(
    encoder: keras.Model, rows: tf.data.Dataset, arguments: argparse.Namespace
) -> Callable[[], float]:
    """Some steps with the batches that come next; returns the median of their seconds."""
    model = ck.pretraining.ContrastiveModel(encoder, bank_size=arguments.bank_size)
    model.compile(keras.optimizers.Adam(2e-5))
    step = tf.function(lambda batch: model.train_step(batch), reduce_retracing=True)
    batches: Iterator = iter(rows.repeat())
    for _ in range(_WARM_UP):
        step(next(batches))

    def turn() -> float:
        times = []
        for _ in range(arguments.steps):
            started = time.perf_counter()
            tf.nest.map_structure(np.asarray, step(next(batches)))  # until it is there
            times.append(time.perf_counter() - started)
        return statistics.median(times)

    return turn


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", required=True, help="folder of `ctr-keras prepare pairs`")
    parser.add_argument("--states", help="folder of states to keep; by default a temporary one")
    parser.add_argument("--encoder", default=MINILM)
    parser.add_argument("--max-tokens", type=int, help="by default as `ctr-keras pretrain`")
    parser.add_argument("--layers", type=int, default=2, help="that learn")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--bank-size", type=int, default=16_384)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="timed steps a round")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    arguments.max_tokens = max_tokens_of(arguments.encoder, arguments.max_tokens)
    return arguments


if __name__ == "__main__":
    main()
