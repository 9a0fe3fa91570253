"""Triplet loss: the partner nearer than a hard negative."""

from typing import Any

from keras import ops

from ctr_keras.losses.info_nce import check_one_a_row, unit_vectors


def triplet_loss(
    queries: Any, positives: Any, negatives: Any, margin: float = 0.2, mask: Any = None
) -> Any:
    """Mean over rows of how far the negative is from being `margin` farther than the positive.

        loss_i = max(0, margin + d(q_i, p_i) - d(q_i, n_i)),    d(a, b) = 1 - cos(a, b)

    Args:
        queries: Float tensor `(rows, width)`.
        positives: Float tensor of the same shape, row `i` the partner of query `i`.
        negatives: Float tensor of the same shape, row `i` what query `i` must not be confused with.
        margin: Positive number, of the cosine distance.
        mask: Optional bool `(rows,)`: the rows that have a negative. Defaults to all.

    Returns:
        A float32 scalar, 0 where no row has a negative.

    Example:

    >>> a, b = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    >>> float(triplet_loss(a, b, a, margin=0.5)), float(triplet_loss(a, a, b, margin=0.5))
    (1.5, 0.0)

    Reference:

    - [Schroff et al., 2015: FaceNet](https://arxiv.org/abs/1503.03832), equation 1
    """
    if not 0 < margin <= 2:
        raise ValueError(
            f"`margin` must be in (0, 2], a cosine distance. Received: `margin={margin}`"
        )
    query, positive, negative = map(unit_vectors, (queries, positives, negatives))
    shapes = [tuple(x.shape) for x in (query, positive, negative)]
    is_pair = len(shapes[0]) == 2 and len({shape[1:] for shape in shapes}) == 1
    if not is_pair or len({shape[0] for shape in shapes} - {None}) > 1:
        raise ValueError(
            "`queries`, `positives` and `negatives` must have one shape (rows, width). Received: "
            f"{', '.join(str(shape) for shape in shapes)}"
        )
    losses = ops.relu(margin + ops.sum(query * (negative - positive), axis=-1))
    weights = ops.ones_like(losses)
    if mask is not None:
        mask = ops.convert_to_tensor(mask)
        check_one_a_row(mask, losses.shape, "mask")
        weights = ops.cast(mask, losses.dtype)
    return ops.sum(losses * weights) / ops.maximum(ops.sum(weights), 1.0)
