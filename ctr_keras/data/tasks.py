"""The rows of a split as tasks: a user (or an item) each, with rows to adapt to and to judge by."""

import dataclasses
import itertools
import os
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from ctr_keras.argument_checks import check_positive_integer
from ctr_keras.data.read import read
from ctr_keras.schema import Schema

_CHUNK_ROWS = 65_536


def read_tasks(
    path: str | os.PathLike,
    schema: Schema,
    key: str,
    *,
    support: int = 16,
    query: int = 16,
    tasks: int = 32,
    min_rows: int = 2,
    every_row: bool = False,
    shuffle: bool = False,
    seed: int = 0,
    epoch: int = 0,
    verify: bool = True,
    negative_ratio: float = 1.0,
) -> tf.data.Dataset:
    """A `tf.data.Dataset` of batches of tasks, for models that learn to adapt.

    The rows of equal `key` are a task. `query` of them are what the adapted model is judged by,
    and `support` others what it adapts to. Without `shuffle` these are the task's last rows and
    those just before them; with it, a sample that is another one each epoch, and the tasks come in
    random order, which depends on `seed` and the number of the epoch alone. A task with fewer rows
    divides them in the same proportion, at least one for the query, and is padded with rows of
    zeros whose weight is 0. Ids 0 and 1 (padding and out of vocabulary) are no task, nor are rows
    without a group.

    The encoded rows are held in memory: 4 bytes for each id and number, 4 times the length for
    each sequence, and 16 more a row (29 ids and 15 million rows: 2 GB); twice that while they are
    read.

    Args:
        path: Folder that `ck.data.write` made.
        schema: What the model takes.
        key: The feature that makes a task of rows: an id of one value, or a group.
        support: Rows a task adapts to, at most.
        query: Rows a task is judged by, at most.
        tasks: Tasks a batch; the last one may have fewer.
        min_rows: A key with fewer rows is left out. With 1, one row is a query without support.
        every_row: Whether an epoch goes through all rows: a task of more than `support + query`
            comes several times, each time with other rows. Without, each task comes once.
        shuffle: Whether to sample the rows of each task and to shuffle the tasks.
        seed: Seed of the sample and the shuffle.
        epoch: Number of the first epoch, as for `ck.data.read`.
        verify: Whether to check every shard's size and checksum before reading.
        negative_ratio: Share of the negatives to read, as for `ck.data.read`.

    Returns:
        A data set of `{"support": (features, label, weight), "query": (features, label, weight)}`,
        features `(tasks, rows, ...)`, label and weight float32 `(tasks, rows)`. Its attribute
        `negative_ratio` is that of `ck.data.read`.

    Raises:
        ValueError: an argument is out of range, `key` is no such feature, or no key has `min_rows`
            rows.

    Example:

    >>> train = ck.data.read_tasks("tf_data/movielens/train", schema, "user_id", shuffle=True)
    >>> model = ck.models.MeLU(schema)
    >>> model.compile()
    >>> model.fit(train)
    """
    sizes = {"support": support, "query": query, "tasks": tasks, "min_rows": min_rows}
    for name, value in sizes.items():
        check_positive_integer(name, value)
    check_key(schema, key)
    rows = read(path, schema, _CHUNK_ROWS, verify=verify, negative_ratio=negative_ratio, seed=seed)
    held = HeldRows.of(rows)
    groups = held.groups(schema, key, min_rows)
    if not len(groups.start):
        raise ValueError(f"No {key!r} has so many rows. Received: `min_rows={min_rows}`")
    parts = groups.pieces(support + query) if every_row else groups.whole()
    epochs = itertools.count(epoch)

    def one_epoch() -> Iterator[dict]:
        random = np.random.default_rng([seed, next(epochs)]) if shuffle else None
        places = groups.divided(parts, support, query, random)
        for first in range(0, len(parts.start), tasks):
            chosen = {name: found[first : first + tasks] for name, found in places.items()}
            yield {name: held.take(found) for name, found in chosen.items()}

    signature = {"support": held.signature(support), "query": held.signature(query)}
    dataset = tf.data.Dataset.from_generator(one_epoch, output_signature=signature)
    batches = -(-len(parts.start) // tasks)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(batches)).prefetch(2)
    dataset.negative_ratio = rows.negative_ratio
    return dataset


@dataclasses.dataclass(frozen=True)
class HeldRows:
    """Encoded rows in memory, a row of zeros behind the last, which place -1 means."""

    features: dict[str, np.ndarray]
    label: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, batches: tf.data.Dataset) -> "HeldRows":
        """All rows of a data set of `(features, label)`."""
        parts: list[dict] = [{**x, "": y} for x, y in batches.as_numpy_iterator()]
        columns = {name: _with_zero_row([part[name] for part in parts]) for name in parts[0]}
        label = columns.pop("")
        weight = np.ones(len(label), np.float32)
        weight[-1] = 0
        return cls(columns, label, weight)

    def take(self, places: np.ndarray) -> tuple[dict, np.ndarray, np.ndarray]:
        """Features, label and weight of rows, with the shape of `places` in front."""
        features = {name: column[places] for name, column in self.features.items()}
        return features, self.label[places], self.weight[places]

    def signature(self, rows: int) -> tuple:
        """What `take` returns for places `(any, rows)`."""

        def spec(column: np.ndarray) -> tf.TensorSpec:
            return tf.TensorSpec((None, rows, *column.shape[1:]), column.dtype)

        features = {name: spec(column) for name, column in self.features.items()}
        return features, spec(self.label), spec(self.weight)

    def groups(self, schema: Schema, key: str, min_rows: int = 1) -> "RowGroups":
        """The rows by the value of `key`."""
        values = self.features[key][:-1]
        order = np.argsort(values, kind="stable")
        found, start, count = np.unique(values[order], return_index=True, return_counts=True)
        kept = (count >= min_rows) & schema.is_known(key, found)
        return RowGroups(order, found[kept], start[kept], count[kept])


@dataclasses.dataclass(frozen=True)
class RowGroups:
    """Rows of equal key, one group behind the other.

    Attributes:
        order: Places of all rows, sorted by key; of equal key in the order of the data.
        key: The groups' keys, ascending: `(groups,)`.
        start: Where each group starts in `order`.
        count: Its rows.
    """

    order: np.ndarray
    key: np.ndarray
    start: np.ndarray
    count: np.ndarray

    def whole(self) -> "_Parts":
        """Each group as it is."""
        return _Parts(self.start, self.count)

    def pieces(self, rows: int) -> "_Parts":
        """Each group in as few pieces of at most `rows` rows as it takes, of about one size."""
        pieces = -(-self.count // rows)
        group = np.repeat(np.arange(len(self.count)), pieces)
        number = np.arange(len(group)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        first, last = (self.count[group] * (number + n) // pieces[group] for n in (0, 1))
        return _Parts(self.start[group] + first, last - first)

    def divided(
        self, parts: "_Parts", support: int, query: int, random: np.random.Generator | None
    ) -> dict[str, np.ndarray]:
        """Places `(parts, support)` and `(parts, query)` of the rows, -1 where there is none."""
        share = np.rint(parts.count * query / (support + query))
        queries = np.clip(share, 1, query).astype(np.int64)
        supports = np.minimum(parts.count - queries, support)
        stop, order = parts.start + parts.count, self.order
        if random is not None:
            order = self._shuffled(random)
        places = {
            "support": places_of(order, stop - queries - supports, supports, support),
            "query": places_of(order, stop - queries, queries, query),
        }
        if random is not None:
            tasks = random.permutation(len(parts.start))
            places = {name: found[tasks] for name, found in places.items()}
        return places

    def _shuffled(self, random: np.random.Generator) -> np.ndarray:
        """The same groups, each in an order of its own."""
        group = np.zeros(len(self.order), np.int64)
        group[self.start] = 1
        group[(self.start + self.count)[self.start + self.count < len(group)]] = 1
        by_group = np.lexsort((random.random(len(group)), np.cumsum(group)))
        return self.order[by_group]


@dataclasses.dataclass(frozen=True)
class _Parts:
    """Where parts of groups start in their order, and how many rows they have: `(parts,)` each."""

    start: np.ndarray
    count: np.ndarray


def check_key(schema: Schema, key: str) -> None:
    """Refuse what does not tell tasks apart."""
    ids = [f.name for f in schema if f.kind == "id" and not f.is_sequence]
    known = [name for name in ids if schema[name].is_input or schema[name].role == "group"]
    if key not in known:
        raise ValueError(f"`key` must be an id of one value: one of {known}. Received: `{key=}`")


def places_of(order: np.ndarray, start: np.ndarray, count: np.ndarray, width: int) -> np.ndarray:
    """The `count` entries of `order` from each `start`, then -1: `(groups, width)`."""
    number = np.arange(width)
    position = np.minimum(start[:, None] + number, len(order) - 1)
    return np.where(number < count[:, None], order[position], -1)


def _with_zero_row(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([*parts, np.zeros((1, *parts[0].shape[1:]), parts[0].dtype)])
