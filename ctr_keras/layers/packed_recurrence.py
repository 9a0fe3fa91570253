"""The gated recurrence over packed rows on TensorFlow, with its gradient written by hand.

Left to automatic differentiation, each step would keep a dozen tensors on the loop's stacks and add
to the kernel's gradient. Here the backward pass recomputes the gates of all steps at once from the
states, walks back over two multiplications and one matmul a step, and takes the gradients of
everything else in one piece after the loop.
"""

import tensorflow as tf

from ctr_keras.custom_gradient import custom_gradient


def packed_states(x, scores, kernel, counts, offsets):
    """The state after each element.

    Args:
        x: The projected inputs of the update gate, the reset gate and the candidate,
            `(elements, 3 * units)`.
        scores: What multiplies the update gate, `(elements, 1)`, or `None` for 1.
        kernel: Recurrent kernel `(units, 3 * units)`.
        counts: Rows of each step, never growing.
        offsets: Where each step begins.

    Returns:
        `(elements, units)`.
    """
    if scores is None:
        return _states(x, kernel, counts, offsets)
    return _scored_states(x, scores, kernel, counts, offsets)


@custom_gradient
def _states(x, kernel, counts, offsets):
    states = _walk_forward(x, None, kernel, counts, offsets)

    def gradient(upstream):
        d_x, _, d_kernel = _gradients(upstream, states, x, None, kernel, counts, offsets)
        return d_x, d_kernel, None, None

    return states, gradient


@custom_gradient
def _scored_states(x, scores, kernel, counts, offsets):
    states = _walk_forward(x, scores, kernel, counts, offsets)

    def gradient(upstream):
        of_inputs = _gradients(upstream, states, x, scores, kernel, counts, offsets)
        return *of_inputs, None, None

    return states, gradient


def _walk_forward(x, scores, kernel, counts, offsets):
    units = kernel.shape[0]

    def step(k, h, states):
        at = slice(offsets[k], offsets[k] + counts[k])
        h = h[: counts[k]]
        update, reset, candidate, _ = _gates(x[at], tf.matmul(h, kernel), units)
        if scores is not None:
            update *= scores[at]
        h += update * (candidate - h)
        return k + 1, h, states.write(k, h)

    return _loop(step, tf.constant(0), _zeros(counts, x.dtype, units), counts)


def _gates(x, recurrent, units):
    """Update gate, reset gate, candidate, and what the reset gate multiplies."""
    gates = tf.sigmoid(x[:, : 2 * units] + recurrent[:, : 2 * units])
    update, reset = tf.split(gates, 2, axis=1)
    of_state = recurrent[:, 2 * units :]
    return update, reset, tf.tanh(x[:, 2 * units :] + reset * of_state), of_state


def _gradients(upstream, states, x, scores, kernel, counts, offsets):
    """Gradients of `x`, `scores` and `kernel`."""
    units = kernel.shape[0]
    before = _states_before(states, counts, units)
    update, reset, candidate, of_state = _gates(x, tf.matmul(before, kernel), units)
    scaled = update if scores is None else update * scores
    # How the gradient of a state reaches what the gates and the candidate are functions of.
    to_candidate = scaled * (1.0 - tf.square(candidate))
    to_update = (candidate - before) * scaled * (1.0 - update)
    to_reset = to_candidate * of_state * reset * (1.0 - reset)
    to_recurrent = tf.concat([to_update, to_reset, to_candidate * reset], axis=1)
    totals = _walk_back(upstream, to_recurrent, 1.0 - scaled, kernel, counts, offsets)
    thrice = tf.concat([totals, totals, totals], axis=1)
    d_x = thrice * tf.concat([to_update, to_reset, to_candidate], axis=1)
    d_kernel = tf.matmul(before, thrice * to_recurrent, transpose_a=True)
    d_scores = None
    if scores is not None:
        d_scores = tf.reduce_sum(totals * (candidate - before) * update, axis=1, keepdims=True)
    return d_x, d_scores, d_kernel


def _states_before(states, counts, units):
    """The state that each element met: zeros in the first step, then that of the step before."""
    first = _zeros(counts, states.dtype, units)
    # An element lies as far behind its predecessor as that step has rows.
    back = tf.repeat(counts[:-1], counts[1:])
    return tf.concat([first, tf.gather(states, tf.range(tf.size(back)) + _rows(counts) - back)], 0)


def _walk_back(upstream, to_recurrent, to_before, kernel, counts, offsets):
    """The whole gradient of each state: from outside, and through the states after it."""
    units = kernel.shape[0]
    kernel = tf.transpose(kernel)

    def step(k, later, totals):
        at = slice(offsets[k], offsets[k] + counts[k])
        # Rows that ended here have no later state.
        total = upstream[at] + tf.pad(later, [[0, counts[k] - tf.shape(later)[0]], [0, 0]])
        of_recurrent = tf.concat([total, total, total], axis=1) * to_recurrent[at]
        earlier = total * to_before[at] + tf.matmul(of_recurrent, kernel)
        return k - 1, earlier, totals.write(k, total)

    nothing = tf.zeros((0, units), upstream.dtype)
    return _loop(step, tf.size(counts) - 1, nothing, counts)


def _loop(step, first, carried, counts):
    """Collects one `(rows, units)` a step, whichever way `step` goes."""
    steps, units = tf.size(counts), carried.shape[1]
    results = tf.TensorArray(
        carried.dtype, size=steps + 1, element_shape=(None, units), infer_shape=False
    )
    # Without any step there still has to be something to join.
    results = results.write(steps, carried[:0])
    *_, results = tf.while_loop(
        lambda k, *_: (k >= 0) & (k < steps),
        step,
        (first, carried, results),
        shape_invariants=(tf.TensorShape(()), tf.TensorShape((None, units)), tf.TensorShape(None)),
        parallel_iterations=1,
    )
    return results.concat()


def _zeros(counts, dtype, units):
    return tf.zeros((_rows(counts), units), dtype)


def _rows(counts):
    """Rows of the first step, 0 where there is no step."""
    return tf.concat([counts, [0]], axis=0)[0]
