"""Contrastive loss: tell the own partner from those of the other rows of the batch."""

from typing import Any

import keras
from keras import ops

from ctr_keras.api_export import export

if keras.backend.backend() == "tensorflow":
    from ctr_keras.losses.fused_info_nce import MIN_TEMPERATURE, fused_row_losses

_EXCLUDED = -1e9


def info_nce(
    queries: Any,
    keys: Any,
    temperature: Any = 0.07,
    anchor_mask: Any = None,
    *,
    candidate_mask: Any = None,
    anchor_weight: Any = None,
    query_ids: Any = None,
    key_ids: Any = None,
    symmetric: bool = False,
) -> Any:
    """InfoNCE of matching rows: mean over the anchors, in nats.

        loss_i = -log( exp(cos(q_i, k_i) / temperature)
                       / sum_j exp(cos(q_i, k_j) / temperature) )

    Row `i` of `keys` is the partner of row `i` of `queries`, all other rows are its negatives. The
    symmetric form adds the same with `queries` and `keys` exchanged.

    Another row with the same key is no negative: with `key_ids` rows whose id equals the anchor's
    leave its denominator (its own stays), and with `query_ids` likewise in the other direction.

    Args:
        queries: Float tensor `(..., rows, width)`; each leading index is a batch of its own.
        keys: Float tensor of the same shape.
        temperature: Positive number, or a scalar tensor.
        anchor_mask: Optional bool `(..., rows)`: the rows that have a loss. Defaults to all.
        candidate_mask: Optional bool `(..., rows)`: the rows that are there at all; the others are
            neither anchor nor candidate. Defaults to all.
        anchor_weight: Optional weights `(..., rows)` of the anchors' losses. The mean is still that
            over their number, as of a Keras loss with sample weights.
        query_ids: Optional ids `(..., rows)` of what the queries stand for.
        key_ids: Optional ids `(..., rows)` of what the keys stand for.
        symmetric: Whether to add the loss from keys to queries.

    Returns:
        A float32 scalar: the mean over all anchors of all batches, 0 where there is none. An anchor
        without negatives has loss 0.

    Example:

    >>> pairs = np.eye(2, dtype="float32")
    >>> round(float(info_nce(pairs, pairs, temperature=1.0)), 5)
    0.31326

    Reference:

    - [van den Oord et al., 2018: Representation Learning with Contrastive Predictive
      Coding](https://arxiv.org/abs/1807.03748), equation 4
    """
    losses = _row_losses(queries, keys, temperature, candidate_mask, query_ids, key_ids, symmetric)
    anchors = _mask(losses, anchor_mask, "anchor_mask")
    if candidate_mask is not None:
        anchors = anchors * _mask(losses, candidate_mask, "candidate_mask")
    # An anchor that is no candidate has no finite loss.
    losses = ops.where(anchors > 0, losses, 0.0)
    if anchor_weight is not None:
        losses = losses * _of_rows(losses, anchor_weight, "anchor_weight")
    return ops.sum(losses) / ops.maximum(ops.sum(anchors), 1.0)


@export
class InfoNCE(keras.losses.Loss):
    """InfoNCE between two outputs of a model, row by row.

    See `ck.losses.info_nce`. As a Keras loss it takes the keys as `y_true` and the queries as
    `y_pred`; `sample_weight` weighs the anchors.

    Args:
        temperature: Positive number. Defaults to `0.07`.
        symmetric: Whether to add the loss from keys to queries. Defaults to `False`.
        reduction: As of any Keras loss. Defaults to `"sum_over_batch_size"`.
        name: Name of the loss.
        dtype: Dtype of the result.

    Call arguments:
        y_true: Keys `(batch, width)`.
        y_pred: Queries `(batch, width)`.
        sample_weight: Optional weights `(batch,)`.

    Example:

    >>> pairs = np.eye(2, dtype="float32")
    >>> round(float(InfoNCE(temperature=1.0, symmetric=True)(pairs, pairs)), 5)
    0.62652
    """

    def __init__(
        self,
        temperature: float = 0.07,
        symmetric: bool = False,
        reduction: str | None = "sum_over_batch_size",
        name: str = "info_nce",
        dtype: str | None = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        _check_temperature(temperature)
        self.temperature = temperature
        self.symmetric = symmetric

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return _row_losses(y_pred, y_true, self.temperature, None, None, None, self.symmetric)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "temperature": self.temperature,
            "symmetric": self.symmetric,
        }


def _row_losses(queries, keys, temperature, candidate_mask, query_ids, key_ids, symmetric):
    """Losses `(..., rows)` of all rows, float32."""
    queries, keys = unit_vectors(queries), unit_vectors(keys)
    query_ids, key_ids = _as_tensor(query_ids), _as_tensor(key_ids)
    check_pairs(queries, keys)
    for name, ids in (("query_ids", query_ids), ("key_ids", key_ids)):
        if ids is not None:
            check_one_a_row(ids, queries.shape[:-1], name)
    _check_temperature(temperature)
    if _is_fused(temperature):
        return fused_row_losses(
            queries, keys, temperature, candidate_mask, query_ids, key_ids, symmetric
        )
    # The smaller of the two factors, so the rows x rows product is not scaled once more.
    logits = ops.matmul(queries / temperature, ops.swapaxes(keys, -1, -2))
    own = ops.sum(queries * keys, axis=-1) / temperature
    losses = _log_sum(logits, candidate_mask, key_ids) - own
    if symmetric:
        swapped = ops.swapaxes(logits, -1, -2)
        losses = losses + _log_sum(swapped, candidate_mask, query_ids) - own
    return losses


def _as_tensor(ids):
    return None if ids is None else ops.convert_to_tensor(ids)


def _is_fused(temperature):
    """A temperature that is learned needs the gradient that the fused form leaves out."""
    if keras.backend.backend() != "tensorflow":
        return False
    return isinstance(temperature, (int, float)) and temperature >= MIN_TEMPERATURE


def _log_sum(logits, candidate_mask, ids):
    """Logarithm of the denominator: `(..., rows)`."""
    keep = None
    if ids is not None:
        other = ops.not_equal(ids[..., :, None], ids[..., None, :])
        keep = ops.logical_or(other, ops.eye(ops.shape(logits)[-1], dtype="bool"))
    if candidate_mask is not None:
        there = ops.cast(candidate_mask, "bool")[..., None, :]
        keep = there if keep is None else ops.logical_and(keep, there)
    if keep is not None:
        logits = ops.where(keep, logits, _EXCLUDED)
    return ops.logsumexp(logits, axis=-1)


def unit_vectors(x):
    """Rows of length one, float32; (almost) zero ones become zeros and have no gradient."""
    x = ops.cast(x, "float32")
    square = ops.sum(x * x, axis=-1, keepdims=True)
    is_zero = square < 1e-12
    return ops.where(is_zero, 0.0, x * ops.rsqrt(ops.where(is_zero, 1.0, square)))


def check_pairs(queries, keys):
    """Refuse queries and keys of another shape than each other, as far as it is known."""
    sizes = zip(queries.shape, keys.shape, strict=False)
    is_one = all(a == b or None in (a, b) for a, b in sizes)
    if len(queries.shape) < 2 or len(queries.shape) != len(keys.shape) or not is_one:
        raise ValueError(
            "`queries` and `keys` must have one shape (..., rows, width). Received: "
            f"`queries.shape={tuple(queries.shape)}`, `keys.shape={tuple(keys.shape)}`"
        )


def check_one_a_row(values, shape, name):
    """Refuse values of another rank than that of rows of this shape."""
    if len(values.shape) != len(shape):
        raise ValueError(
            f"`{name}` must have one value a row, in shape {tuple(shape)}. "
            f"Received: `{name}.shape={tuple(values.shape)}`"
        )


def _mask(losses, mask, name):
    if mask is None:
        return ops.ones_like(losses)
    return _of_rows(losses, ops.cast(mask, "bool"), name)


def _of_rows(losses, values, name):
    values = ops.convert_to_tensor(values)
    check_one_a_row(values, losses.shape, name)
    return ops.cast(values, "float32")


def _check_temperature(temperature):
    if isinstance(temperature, (int, float)) and not temperature > 0:
        raise ValueError(f"`temperature` must be positive. Received: `temperature={temperature}`")
