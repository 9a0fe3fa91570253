"""Negative down-sampling: a share of the negatives, and probabilities that mean clicks again."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ctr_keras.columns import Ragged, canonical_column, is_table
from ctr_keras.encoding import group_key, split_mix
from ctr_keras.negative_ratio import check_negative_ratio
from ctr_keras.schema import Schema


def down_sample_negatives(
    schema: Schema,
    rows: Any,
    ratio: float,
    *,
    seed: int = 0,
    key: Sequence[str] | None = None,
) -> Any:
    """Keep every positive, and each negative with probability `ratio`.

    Whether a negative is kept is decided by a 64-bit hash of its own key values and `seed`:

        kept = label == 1 or hash(seed, key values) / 2^64 < ratio

    So it does not depend on the row's place, on chunks or on other rows; a smaller ratio keeps a
    subset; and rows of equal key share one fate. Rows that are sampled a second time need another
    `seed`, as those that the first kept lie below its ratio.

    Pass the ratio on to `ck.data.write`, so that a model trained on the rows corrects itself.

    Args:
        schema: What a row is.
        rows: A pandas `DataFrame`, a mapping from column name to array, or an iterable of either,
            as `ck.data.write` takes them. An iterable is never held in memory.
        ratio: Share of the negatives to keep, in (0, 1].
        seed: Another seed keeps other negatives.
        key: Names of columns of one value a row that tell rows apart. By default user, group,
            item and time, as far as the schema has them; where it has but one of user or group,
            item, and time, every column of one value but the label.

    Returns:
        The rows that are kept, of the kind that was given: a `DataFrame`, a dictionary, or for an
        iterable an iterator of chunks, without those of which no row is kept.

    Raises:
        ValueError: `ratio`, `seed`, `key`, or a label or key value (named with its row) is not
            what it should be.

    Example:

    >>> schema = ck.Schema([
    ...     ck.Feature("user_id", role="user", vocabulary=ck.Vocabulary.of_size(9)),
    ...     ck.Feature("item_id", role="item", vocabulary=ck.Vocabulary.of_size(9)),
    ...     ck.Feature("label", role="label", kind="number"),
    ... ])
    >>> rows = {"user_id": [2, 3, 4, 5], "item_id": [7, 7, 8, 8], "label": [1, 0, 0, 0]}
    >>> kept = ck.data.down_sample_negatives(schema, rows, ratio=0.5)
    >>> ck.data.write("train", schema, kept, negative_ratio=0.5)

    Reference:
        [He et al., 2014: Practical Lessons from Predicting Clicks on Ads at
        Facebook](https://doi.org/10.1145/2648584.2648589), section 6.2
    """
    ratio = check_negative_ratio("ratio", ratio)
    check_seed(seed)
    names = row_key(schema, key)
    if is_table(rows):
        return _select(rows, _kept_rows(schema, rows, names, ratio, seed, 0))
    return _kept_chunks(schema, rows, names, ratio, seed)


def recalibrate(p: Any, ratio: float) -> Any:
    """The probability of a click, from what a model predicts that saw a share of the negatives.

        q = p / (p + (1 - p) / ratio)

    The models of this package correct themselves, see `CTRModel.negative_ratio`; this is for the
    predictions of others.

    Args:
        p: Probabilities: a number, an array or a tensor of any shape.
        ratio: Share of the negatives that the model was trained on, in (0, 1].

    Returns:
        An array, or a tensor where `p` is one, of the shape of `p`. 0, 1 and the order of the
        values stay; so does everything where `ratio` is 1.

    Raises:
        ValueError: `ratio` is not in (0, 1], or a value of an array is not in [0, 1].

    Example:

    >>> ck.data.recalibrate(0.5, ratio=0.1)   # 1 / 11
    0.09090909090909091

    Reference:
        [He et al., 2014: Practical Lessons from Predicting Clicks on Ads at
        Facebook](https://doi.org/10.1145/2648584.2648589), section 6.3
    """
    ratio = check_negative_ratio("ratio", ratio)
    if not tf.is_tensor(p):
        p = np.asarray(p)
        p = p if p.dtype.kind == "f" else p.astype(np.float64)
        if not ((p >= 0) & (p <= 1)).all():
            bad = p[~((p >= 0) & (p <= 1))].flat[0]
            raise ValueError(f"`p` must be probabilities in [0, 1]. Received: `p={bad}`")
        p = p[()]  # A number stays one.
    # 1 - p is exact where it is small, so nothing cancels near 1; no division by what may vanish.
    return p * ratio / (p * ratio + (1 - p))


def row_key(schema: Schema, key: Sequence[str] | None = None) -> tuple[str, ...]:
    """The columns that tell rows apart, in the order of the schema.

    Args:
        schema: What a row is.
        key: Their names, or `None` for the default of `down_sample_negatives`.

    Raises:
        ValueError: a name is unknown, or its column holds several values a row.
    """
    if key is None:
        return _default_key(schema)
    names = [key] if isinstance(key, str) else list(key)
    one_value = _columns_of_one_value(schema)
    wrong = [name for name in names if name not in one_value]
    if wrong or not names:
        raise ValueError(
            f"`key` must name columns of one value a row, such as {one_value}. "
            f"Received: `key={names}`"
        )
    return tuple(name for name in one_value if name in names)


def _default_key(schema: Schema) -> tuple[str, ...]:
    users = {schema.key("user"), *(f.name for f in schema.by_role("group"))} - {None}
    items = {schema.key("item")} - {None}
    times = {f.name for f in schema.by_role("time")}
    one_value = _columns_of_one_value(schema)
    # By the user alone, say, all of a user's negatives would be kept, or none of them.
    if sum(map(bool, (users, items, times))) < 2:
        return tuple(name for name in one_value if name != schema.label.name)
    return tuple(name for name in one_value if name in users | items | times)


def _columns_of_one_value(schema: Schema) -> list[str]:
    return [f.name for f in schema if not f.is_sequence and f.kind != "vector"]


def check_seed(seed: Any) -> None:
    is_integer = isinstance(seed, (int, np.integer)) and not isinstance(seed, bool)
    if not is_integer or not -(2**63) <= seed < 2**63:
        raise ValueError(f"`seed` must be an integer of 64 bits. Received: `{seed=}`")


def is_kept(label: Any, key: Sequence[Any], ratio: float, seed: int, draw: int = 0) -> tf.Tensor:
    """Which rows down-sampling keeps: in a graph and eagerly, for raw columns of any type.

    Args:
        label: `(rows,)`.
        key: The columns of the key: each a tensor or array `(rows,)` of integers, floats or
            strings.
        ratio: Share of the negatives to keep.
        seed: Of the hash.
        draw: Tells draws of the same seed apart that must be independent of each other.

    Returns:
        bool `(rows,)`.
    """
    state = tf.constant(0, tf.int64)
    for word in (seed, draw, *key):
        state = tf.bitwise.bitwise_xor(state, _word(tf.convert_to_tensor(word)))
        state = tf.bitcast(split_mix(state), tf.int64)
    # As many of the bits as a float64 holds exactly.
    bits = tf.bitwise.right_shift(tf.bitcast(state, tf.uint64), tf.constant(11, tf.uint64))
    return (tf.cast(label, tf.float32) > 0) | (tf.cast(bits, tf.float64) * 2.0**-53 < ratio)


def _word(values: tf.Tensor) -> tf.Tensor:
    """An integer of 64 bits for each value."""
    if values.dtype.is_floating:
        values = tf.cast(values, tf.float32)
        # Zero has two signs.
        values = tf.bitcast(tf.where(values == 0, tf.zeros_like(values), values), tf.int32)
    return group_key(values)


def _kept_rows(
    schema: Schema, table: Any, names: tuple[str, ...], ratio: float, seed: int, first_row: int
) -> np.ndarray:
    label = schema.label.name
    for name in (label, *names):
        if name not in table:
            raise ValueError(
                f"Missing column {name!r}. Received: `columns={[str(name) for name in table]}`"
            )
    columns = {
        name: canonical_column(schema, schema[name], table[name], first_row)
        for name in {label, *names}
    }
    lengths = {str(name): len(table[name]) for name in table}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"All columns need the same number of rows. Received: `{lengths}`")
    with tf.device("CPU"):
        return is_kept(columns[label], [columns[name] for name in names], ratio, seed).numpy()


def _kept_chunks(
    schema: Schema, chunks: Iterable, names: tuple[str, ...], ratio: float, seed: int
) -> Iterator:
    first_row = 0
    for chunk in chunks:
        kept = _kept_rows(schema, chunk, names, ratio, seed, first_row)
        first_row += len(kept)
        if kept.any():
            yield _select(chunk, kept)


def _select(table: Any, kept: np.ndarray) -> Any:
    if not isinstance(table, Mapping):
        return table.loc[kept]
    return {name: _select_values(column, kept) for name, column in table.items()}


def _select_values(column: Any, kept: np.ndarray) -> Any:
    if isinstance(column, Ragged):
        return column.take(np.flatnonzero(kept))
    if isinstance(column, (list, tuple)):
        return [value for value, keep in zip(column, kept, strict=True) if keep]
    return column[kept]
