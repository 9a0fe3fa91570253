"""InfoNCE whose negatives are the rows of the batch and those of a memory bank."""

from typing import Any

from keras import ops

from ctr_keras.losses.info_nce import check_one_a_row, check_pairs, unit_vectors

_EXCLUDED = -1e9


def info_nce_with_bank(
    queries: Any,
    keys: Any,
    bank: Any,
    temperature: Any = 0.07,
    *,
    bank_mask: Any = None,
    key_ids: Any = None,
    bank_ids: Any = None,
) -> Any:
    """InfoNCE from queries to keys, with more negatives from a bank, in nats.

        loss_i = -log( exp(q_i . k_i / t)
                       / (sum_j exp(q_i . k_j / t) + sum_n exp(q_i . b_n / t)) )

    where queries and keys are brought to length one. No gradient flows into the bank. A key of the
    batch or the bank whose id is that of the query's own key is no negative.

    Args:
        queries: Float tensor `(rows, width)`.
        keys: Float tensor of the same shape, row `i` the partner of query `i`.
        bank: Float tensor `(size, width)`, of unit vectors: they are not brought to length one.
        temperature: Positive number, or a scalar tensor that is learned.
        bank_mask: Optional bool `(size,)`: the slots that are in use. Defaults to all.
        key_ids: Optional ids `(rows,)` of what the keys stand for.
        bank_ids: Optional ids `(size,)`; needed with `key_ids`.

    Returns:
        A float32 scalar, the mean over rows.

    Example:

    >>> pairs = np.eye(3, dtype="float32")[:2]
    >>> bank = np.eye(3, dtype="float32")[2:]
    >>> round(float(info_nce_with_bank(pairs, pairs, bank, temperature=1.0)), 5)
    0.55144

    Reference:

    - [He et al., 2019: Momentum Contrast](https://arxiv.org/abs/1911.05722), equation 1
    - [Sheng et al., 2024: Enhancing Taobao Display Advertising with Multimodal
      Representations](https://arxiv.org/abs/2407.19467), section on semantic-aware pre-training
    """
    if (key_ids is None) != (bank_ids is None):
        raise ValueError("`key_ids` and `bank_ids` go together. Received: one of them")
    if isinstance(temperature, (int, float)) and not temperature > 0:
        raise ValueError(f"`temperature` must be positive. Received: `temperature={temperature}`")
    queries, keys = unit_vectors(queries), unit_vectors(keys)
    check_pairs(queries, keys)
    bank = ops.stop_gradient(ops.cast(bank, "float32"))
    own = ops.sum(queries * keys, axis=-1) / temperature
    queries = queries / temperature
    of_batch = ops.matmul(queries, ops.transpose(keys))
    of_bank = ops.matmul(queries, ops.transpose(bank))
    if key_ids is not None:
        ids, bank_ids = ops.convert_to_tensor(key_ids), ops.convert_to_tensor(bank_ids)
        check_one_a_row(ids, keys.shape[:-1], "key_ids")
        check_one_a_row(bank_ids, bank.shape[:-1], "bank_ids")
        ids = ids[:, None]
        is_other = ops.logical_or(
            ops.not_equal(ids, ops.transpose(ids)), ops.eye(ops.shape(of_batch)[0], dtype="bool")
        )
        of_batch = ops.where(is_other, of_batch, _EXCLUDED)
        of_bank = ops.where(ops.equal(ids, bank_ids), _EXCLUDED, of_bank)
    if bank_mask is not None:
        of_bank = ops.where(ops.cast(bank_mask, "bool")[None, :], of_bank, _EXCLUDED)
    both = [ops.logsumexp(logits, axis=-1) for logits in (of_batch, of_bank)]
    return ops.mean(ops.logaddexp(*both) - own)
