"""Every query with every key of one history: what ranks many items for a user, on TensorFlow.

Thousands of queries by dozens of keys are more numbers than a cache holds, and a walk through
memory costs more than most of what is computed on the way. So the queries go in blocks, each by one
thread from its first product to its scores. There is no gradient.
"""

import tensorflow as tf

_PAIRS = 2048  # Of a block: with 80 units 640 KB, which a core's cache holds.


def score_pairs(query, kernels, biases, network):
    """The score of each pair of a query and a key.

    Args:
        query: `(queries, width)`.
        kernels: First layer as each key has it: `(width, length, units)`.
        biases: Its bias: `(length, units)`.
        network: Function from the number of pairs of a block to a function from the outputs of the
            first layer, `(pairs, units)`, to the scores, `(pairs,)`.

    Returns:
        `(queries, length)`.
    """
    number, length, units = tf.shape(query)[0], tf.shape(biases)[0], biases.shape[-1]
    size, blocks = _blocks(number, length)
    score = network(size * length)
    # [q, 1] times this matrix is the first layer of q with every key.
    first = tf.concat([kernels, biases[None]], axis=0)
    first = tf.reshape(first, (query.shape[-1] + 1, length * units))
    rows = tf.pad(query, [[0, blocks * size - number], [0, 1]], constant_values=1)

    def score_block(rows):
        x = tf.reshape(tf.matmul(rows, first), (size * length, units))
        return tf.reshape(score(x), (size, length))

    scores = _on_one_thread_each(score_block, tf.reshape(rows, (blocks, size, rows.shape[-1])))
    return tf.reshape(scores, (blocks * size, length))[:number]


def _blocks(number, length):
    """Queries of a block, and how many blocks: two by two, so that two threads end together."""
    most = tf.maximum(_PAIRS // tf.maximum(length, 1), 1)
    blocks = 2 * tf.maximum(-(-number // (2 * most)), 1)
    size = tf.maximum(-(-number // blocks), 1)
    return size, tf.maximum(-(-number // size), 1)


def dice_network(dices, denses):
    """Dense layers of which each follows a `Dice`, the last one of width 1, in inference.

    As few walks through memory as there can be: what is multiplied by the scale of a `Dice`, or
    by its slope, is a kernel.

    Args:
        dices: The `Dice` layers.
        denses: As many `keras.layers.Dense`, built.

    Returns:
        `(scale, network)`: what the input must be multiplied by, `(units,)`, and a network for
        `score_pairs`.
    """
    scales, shifts, slopes, offsets = zip(*(dice.coefficients() for dice in dices), strict=True)
    # A slope of 0 has no quotient; one of 1e-12 gives the same number.
    slopes = [tf.where(tf.abs(slope) < 1e-12, 1e-12, slope) for slope in slopes]
    gains = [slope / scale for slope, scale in zip(slopes, scales, strict=True)]
    ratios = [offset / slope for offset, slope in zip(offsets, slopes, strict=True)]
    kernels = [
        gain[:, None] * dense.kernel * scale
        for gain, dense, scale in zip(gains, denses, [*scales[1:], 1.0], strict=True)
    ]
    biases = [dense.bias * scale for dense, scale in zip(denses[:-1], scales[1:], strict=True)]

    last_bias = tf.convert_to_tensor(denses[-1].bias)

    def network(pairs):
        def repeated(row):
            # Numbers of one shape are combined twice as fast as with a row that is broadcast.
            return tf.repeat(row[None], pairs, axis=0)

        rows = [list(map(repeated, given)) for given in (shifts, ratios, biases)]
        weights = repeated(kernels[-1][:, 0])
        return lambda x: _score(x, *rows, kernels, weights) + last_bias

    return scales[0], network


def _score(x, shifts, ratios, biases, kernels, weights):
    for number, (shift, ratio) in enumerate(zip(shifts, ratios, strict=True)):
        x *= tf.tanh(x + shift) + ratio
        if number < len(biases):
            x = tf.matmul(x, kernels[number]) + biases[number]
    return tf.reduce_sum(x * weights, axis=-1)


def _on_one_thread_each(function, blocks):
    """`function` of each of `blocks`, several at a time: `(number, ...)` -> `(number, ...)`."""
    traced = tf.function(function).get_concrete_function(
        tf.TensorSpec(blocks.shape[1:], blocks.dtype)
    )
    (outputs,) = tf.raw_ops.MapDefun(
        arguments=[blocks],
        captured_inputs=traced.captured_inputs,
        output_types=[output.dtype for output in traced.outputs],
        output_shapes=[output.shape for output in traced.outputs],
        f=traced,
        max_intra_op_parallelism=1,
    )
    return outputs
