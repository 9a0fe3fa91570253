"""The matrix products of our training step and nothing else: what no step can go below here.

Each product of the forward pass comes with the two of the backward pass. No embeddings are read or
updated, nothing is activated, no weight is changed.
"""

import numpy as np
import tensorflow as tf

from training_bench import worker


def products(workload, features) -> list[tuple[int, int, int]]:
    """Rows, inputs and outputs of each dense layer, as our models compute them."""
    batch, dim = workload.batch, workload.dim
    width = dim * len(workload.ids)
    if workload.model == "DIN":
        first, *others = workload.attention_units
        positions = int(np.count_nonzero(features["history_item_id"][0]))  # none of padding
        keys_and_interactions = (positions, 2 * dim, first)
        scores = _layers(positions, first, (*others, 1))
        network = _layers(batch, width + dim, (*workload.units, 1))
        return [(batch, dim, first), keys_and_interactions, *scores, *network]
    towers = _layers(batch, workload.units[-1], (*workload.tower_units, 1))
    if workload.model == "SharedBottom":
        return [*_layers(batch, width, workload.units), *towers]
    (units,) = workload.units
    experts = workload.experts if workload.model == "MMoE" else workload.scenarios + 1
    gates = workload.scenarios * (workload.experts if workload.model == "MMoE" else 2)
    return [(batch, width, experts * units), (batch, width, gates), *towers]


def _layers(rows: int, inputs: int, units: tuple[int, ...]) -> list[tuple[int, int, int]]:
    widths = (inputs, *units)
    return [(rows, a, b) for a, b in zip(widths[:-1], widths[1:], strict=True)]


def build(workload, features, labels, variant):
    operands = [
        tuple(tf.Variable(tf.random.normal(shape)) for shape in ((m, k), (k, n), (m, n)))
        for m, k, n in products(workload, features)
    ]

    @tf.function
    def step():
        made = []
        for inputs, kernel, gradient in operands:
            made.append(tf.matmul(inputs, kernel))
            made.append(tf.matmul(gradient, kernel, transpose_b=True))
            made.append(tf.matmul(inputs, gradient, transpose_a=True))
        return tf.add_n([product[0, 0] for product in made])

    return step


if __name__ == "__main__":
    worker.main(build, {"tensorflow": tf.__version__})
