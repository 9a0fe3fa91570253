"""How often the own partner is among the nearest of all."""

from typing import Any

import numpy as np

from ctr_keras.argument_checks import check_positive_integer

_BLOCK = 1024


def top_n_accuracy(
    queries: Any, keys: Any, n: int = 1, own: Any = None, block_rows: int = _BLOCK
) -> float:
    """Acc@N: the share of queries whose own key is among the `n` most similar of all keys.

    A key as similar as the own one counts against the query. Similarities are scalar products,
    computed block by block: memory holds `block_rows` rows of them.

    Args:
        queries: `(queries, width)`.
        keys: `(keys, width)`, the set that each query is compared with.
        n: Positive integer.
        own: Integers `(queries,)`, the row of each query's own key. By default row `i` belongs to
            query `i`.
        block_rows: Queries at a time.

    Returns:
        A share in [0, 1]; NaN without queries.

    Raises:
        ValueError: shapes do not fit, `n` is not positive, or a similarity is NaN.

    Example:

    >>> keys = np.eye(3)
    >>> top_n_accuracy(np.array([[1, 0, 0], [1, 0.9, 0], [0, 0, 0]]), keys, n=1)
    0.3333333333333333

    Reference:
        [Sheng et al., 2024: Enhancing Taobao Display Advertising with Multimodal
        Representations](https://arxiv.org/abs/2407.19467), Acc@N
    """
    queries, keys = (np.asarray(x, np.float32) for x in (queries, keys))
    check_positive_integer("n", n)
    check_positive_integer("block_rows", block_rows)
    if queries.ndim != 2 or keys.ndim != 2 or queries.shape[1] != keys.shape[1]:
        raise ValueError(
            "`queries` and `keys` must be matrices of one width. Received: "
            f"`queries.shape={queries.shape}`, `keys.shape={keys.shape}`"
        )
    own = np.arange(len(queries)) if own is None else np.asarray(own)
    if own.shape != (len(queries),) or (len(own) and not 0 <= own.min() <= own.max() < len(keys)):
        raise ValueError(
            f"`own` must name one of the {len(keys)} keys for each of the {len(queries)} queries. "
            f"Received: `own.shape={own.shape}`"
        )
    hits = 0
    for start in range(0, len(queries), block_rows):
        block = slice(start, start + block_rows)
        scores = queries[block] @ keys.T
        mine = np.take_along_axis(scores, own[block, None], axis=1)
        if np.isnan(scores).any():
            row = start + int(np.flatnonzero(np.isnan(scores).any(axis=1))[0])
            raise ValueError(f"A similarity is NaN. Received: row {row} of `queries`")
        hits += int(((scores >= mine).sum(axis=1) <= n).sum())
    return hits / len(queries) if len(queries) else float("nan")
