"""InfoNCE with one exponential for both directions and a gradient written by hand (TensorFlow)."""

import math
from typing import Any

import tensorflow as tf

from ctr_keras.custom_gradient import custom_gradient

# Below it, exp((cosine - 1) / temperature) leaves the range of float32.
MIN_TEMPERATURE = 0.03
_ABSENT = -1e9


def fused_row_losses(
    queries: Any,
    keys: Any,
    temperature: float,
    candidates: Any = None,
    query_ids: Any = None,
    key_ids: Any = None,
    symmetric: bool = False,
) -> Any:
    """The losses of all rows, as `info_nce` defines them; those of no candidate mean nothing.

    With `E_ij = exp(q_i . k_j / temperature - c)`, 0 where either is no candidate, the
    denominators `r_i` of one direction are the sums of the rows of `E`, those of the other, `c_j`,
    the sums of its columns. With `g` the gradient to the losses over the temperature

        dL/dq_i = (g_i / r_i) (E K)_i + (E diag(g / c) K)_i - 2 g_i k_i

    and `dL/dK` likewise: `E` is read once for each, and no other matrix of its size is made. A
    cosine is at most 1, so `c = ceil(1 / temperature)` takes the place of a maximum; as a whole
    number it passes through a product of reduced precision as it is.

    Args:
        queries: Unit vectors `(..., rows, width)`, float32.
        keys: The same.
        temperature: Number of at least `MIN_TEMPERATURE`.
        candidates: `None` or bool `(..., rows)`.
        query_ids: `None` or ids `(..., rows)`.
        key_ids: `None` or ids `(..., rows)`.
        symmetric: Whether to add the direction from keys to queries.

    Returns:
        `(..., rows)`, float32.
    """
    there = None if candidates is None else tf.cast(candidates, tf.float32)
    of_rows = _Direction(key_ids, there, axis=-1)
    of_columns = _Direction(query_ids, there, axis=-2) if symmetric else None

    @custom_gradient
    def losses(q, k):
        shift = math.ceil(1 / temperature)
        own = tf.reduce_sum(q * k, axis=-1) / temperature - shift
        e = tf.exp(_exponents(q / temperature, k, shift, there))
        row_e = _without_equal(e, key_ids)
        row_sum = of_rows.denominators(row_e, own)
        value = tf.math.log(row_sum) - own
        if of_columns is not None:
            column_e = row_e if query_ids is key_ids else _without_equal(e, query_ids)
            column_sum = of_columns.denominators(column_e, own)
            value += tf.math.log(column_sum) - own

        def gradient(upstream):
            g = upstream / temperature if there is None else upstream * there / temperature
            a = g / row_sum
            of_own = of_rows.of_own(a, own) - g
            if of_columns is None:
                a = a[..., None]
                dq = a * tf.matmul(row_e, k)
                dk = tf.matmul(row_e, a * q, transpose_a=True)
            else:
                b = g / column_sum
                of_own += of_columns.of_own(b, own) - g
                a, b = a[..., None], b[..., None]
                if column_e is row_e:
                    dq, dk = _of_shared(row_e, q, k, a, b)
                else:
                    dq = a * tf.matmul(row_e, k) + tf.matmul(column_e, b * k)
                    dk = tf.matmul(row_e, a * q, transpose_a=True)
                    dk += b * tf.matmul(column_e, q, transpose_a=True)
            of_own = of_own[..., None]
            return dq + of_own * k, dk + of_own * q

        return value, gradient

    return losses(queries, keys)


class _Direction:
    """The denominators of rows (`axis=-1`) or columns, and what the own pair adds to them."""

    def __init__(self, ids, there, axis):
        self.ids, self.there, self.axis = ids, there, axis

    def denominators(self, e, own):
        total = tf.reduce_sum(e, axis=self.axis) + tf.exp(own)
        if self.ids is None:  # Otherwise it went with the pairs of equal ids.
            total -= tf.linalg.diag_part(e)
        # A row that is no candidate still has a finite logarithm.
        return total if self.there is None else tf.where(self.there > 0, total, 1)

    def of_own(self, factor, own):
        return 0.0 if self.ids is None else factor * tf.exp(own)


def _exponents(q, k, shift, there):
    """`q . k - shift`, far below 0 where either is no candidate, in one product."""
    ones = tf.ones_like(q[..., :1])
    absent = tf.zeros_like(ones) if there is None else (1 - there)[..., None] * _ABSENT
    left = tf.concat([q, absent - shift, ones], axis=-1)
    return tf.matmul(left, tf.concat([k, ones, absent], axis=-1), transpose_b=True)


def _without_equal(e, ids):
    if ids is None:
        return e
    return tf.cast(tf.not_equal(ids[..., :, None], ids[..., None, :]), e.dtype) * e


def _of_shared(e, q, k, a, b):
    """`a (E k) + E (b k)` and `E' (a q) + b (E' q)`, one product each."""
    width = q.shape[-1]
    of_q = tf.matmul(e, tf.concat([k, b * k], axis=-1))
    of_k = tf.matmul(e, tf.concat([q, a * q], axis=-1), transpose_a=True)
    return (
        a * of_q[..., :width] + of_q[..., width:],
        b * of_k[..., :width] + of_k[..., width:],
    )
