"""Inputs in several tensors side by side, of which some hold for all rows."""

import itertools

from keras import ops


def product(inputs, kernel):
    """`inputs @ kernel`, of tensors side by side each with its own rows of the kernel.

    Args:
        inputs: Tensor `(batch, features)`, or a list of tensors `(batch, features_i)`. One of batch
            1 holds for all rows, and is multiplied once.
        kernel: `(features, units)`.

    Returns:
        `(batch, units)`.
    """
    if not isinstance(inputs, (list, tuple)):
        return ops.matmul(inputs, kernel)
    ends = list(itertools.accumulate(x.shape[-1] for x in inputs))
    starts = [0, *ends[:-1]]
    terms = [
        ops.matmul(x, kernel[start:end]) for x, start, end in zip(inputs, starts, ends, strict=True)
    ]
    # Those of batch 1 first: their sum is one row.
    return sum(sorted(terms, key=lambda term: term.shape[0] != 1))
