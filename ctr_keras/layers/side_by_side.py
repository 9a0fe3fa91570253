"""Inputs in several tensors side by side, of which some hold for all rows."""

import numpy as np
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
    ends = np.cumsum([x.shape[-1] for x in inputs])
    kernels = ops.split(kernel, ends[:-1], axis=0)
    terms = [ops.matmul(x, part) for x, part in zip(inputs, kernels, strict=True)]
    # Those of batch 1 first: their sum is one row.
    return sum(sorted(terms, key=lambda term: term.shape[0] != 1))
