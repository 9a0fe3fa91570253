"""Rows staged in one typed Parquet file: their vocabularies, splits, entity tables and numbers.

What does not fit into memory is DuckDB's to spill; a split comes back as checked columns.
"""

import contextlib
import pathlib
import shutil
from collections.abc import Iterator

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.parquet

from ctr_keras.columns import Column, Columns, Ragged
from ctr_keras.data.split import SPLITS
from ctr_keras.datasets import drafts
from ctr_keras.datasets.prepared import Prepared
from ctr_keras.datasets.scan import connect
from ctr_keras.datasets.tables import BATCH_ROWS
from ctr_keras.schema import Feature, Schema, Vocabulary

# Columns beside the schema's: the number of a row, and of its split.
ROW, PART = "__row__", "__split__"

_ARROW_TYPES = {"int64": pa.int64(), "string": pa.string(), "float32": pa.float32()}


@contextlib.contextmanager
def connected(folder: pathlib.Path) -> Iterator[ibis.BaseBackend]:
    """DuckDB that spills into a folder of `folder`, which goes with the connection."""
    spilled = folder / "spilled"
    connection = connect(spilled)
    try:
        yield connection
    finally:
        connection.disconnect()
        shutil.rmtree(spilled, ignore_errors=True)


def arrow_column(feature: Feature, column: Column) -> pa.Array:
    """A checked column as the typed file keeps it."""
    kind = _ARROW_TYPES[feature.dtype]
    if isinstance(column, Ragged):
        return pa.ListArray.from_arrays(
            pa.array(column.offsets, pa.int32()), pa.array(column.values, kind)
        )
    if feature.kind == "vector":
        return pa.FixedSizeListArray.from_arrays(pa.array(column.ravel(), kind), feature.width)
    return pa.array(column, kind)


def with_built_vocabularies(schema: Schema, table: ir.Table, folder: pathlib.Path) -> Schema:
    """Build the missing vocabulary files of the training rows, the most frequent value first.

    What only columns that share it hold, such as past items that were no target, comes behind.
    """
    train = table.filter(table[PART] == 0)
    built = {}
    for feature in schema:
        if not drafts.is_unbuilt(feature.vocabulary):
            continue
        values = _values_of(feature, schema, train)
        missing = schema.padding(feature.name)
        counts = (
            values.filter(values.value != missing)
            .group_by("value")
            .agg(own=ibis._.own.sum(), n=ibis._.count())
            .order_by([ibis.desc("own"), ibis.desc("n"), "value"])
            .to_pyarrow()
        )
        found = counts["value"].to_pylist()
        _check_lines(feature, found)
        built[feature.name] = Vocabulary.write(folder / f"{feature.name}.txt", found)
    return drafts.with_vocabularies(schema, built)


def _values_of(feature: Feature, schema: Schema, rows: ir.Table) -> ir.Table:
    """All values of a feature and of those that share it, and whether each is its own."""
    parts = []
    for part in schema:
        if feature.name in (part.name, part.shares):
            column = rows[part.name]
            column = column.unnest() if part.is_sequence else column
            own = ibis.literal(int(part is feature))
            parts.append(rows.select(value=column, own=own))
    return ibis.union(*parts) if len(parts) > 1 else parts[0]


def _check_lines(feature: Feature, values: list[str] | list[int]) -> None:
    for value in values:
        if isinstance(value, str) and ("\n" in value or "\r" in value):
            raise ValueError(
                f"Column {feature.name!r} holds a value of several lines, which a vocabulary file "
                "cannot hold, one a line: hash the column, with a vocabulary of `hash_buckets` in "
                f"its schema. Received: `value={value!r}`"
            )


def chunks(path: pathlib.Path, schema: Schema) -> Iterator[Columns]:
    """The rows of a typed Parquet file."""
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=schema.names):
            yield {f.name: _columns(f, batch[f.name]) for f in schema}


def _columns(feature: Feature, values: pa.Array):
    if not (feature.is_sequence or feature.kind == "vector"):
        return values.to_numpy(zero_copy_only=False)
    flat = values.flatten().to_numpy(zero_copy_only=False)
    if feature.kind == "vector":
        return flat.reshape(-1, feature.width)
    lengths = values.value_lengths().to_numpy(zero_copy_only=False)
    return Ragged(flat, lengths.astype(np.int32))


def write_entities(table: ir.Table, schema: Schema, role: str, target: pathlib.Path) -> None:
    """The raw features of each user or item, from its last row."""
    key = schema.key(role)
    roles = ("user", "history") if role == "user" else ("item", "vector")
    names = [f.name for r in roles for f in schema.by_role(r)]
    if key is None:
        pyarrow.parquet.write_table(pa.table({name: [] for name in names}), target)
        return
    time = schema.by_role("time")
    # A later row of equal time counts as newer.
    newest = table[ROW]
    if time:
        newest = ibis.struct({"time": table[time[0].name], "row": table[ROW]})
    known = table.filter(table[key] != schema.padding(key))
    # One number for each, not all their columns, so that many users fit into memory.
    last = known.group_by(key).agg(last=known[ROW].argmax(newest)).select("last")
    known.semi_join(last, known[ROW] == last["last"]).order_by(key).select(*names).to_parquet(
        target
    )


def summary(
    folder: pathlib.Path, origin: str, table: ir.Table, schema: Schema, label: str
) -> Prepared:
    """The numbers of the splits."""
    counts = table.group_by(PART).agg(n=table.count(), rate=table[label].mean()).order_by(PART)
    found = counts.to_pyarrow().to_pydict()
    return Prepared(
        folder=folder,
        origin=origin,
        rows=dict(zip(SPLITS, found["n"], strict=True)),
        click_rate=dict(zip(SPLITS, found["rate"], strict=True)),
        unseen_users=unseen(table, schema.key("user")),
        unseen_items=unseen(table, schema.key("item")),
    )


def unseen(table: ir.Table, key: str | None) -> dict[str, float]:
    """Share of each split's rows whose user or item has no training row."""
    if key is None:
        return {}
    trained = table.filter(table[PART] == 0)[key].as_table().distinct()
    rest = table.anti_join(trained, key).group_by(PART).agg(n=ibis._.count()).to_pyarrow()
    absent = dict(zip(rest[PART].to_pylist(), rest["n"].to_pylist(), strict=True))
    sizes = table.group_by(PART).agg(n=table.count()).order_by(PART).to_pyarrow()["n"].to_pylist()
    return {name: absent.get(i, 0) / sizes[i] for i, name in enumerate(SPLITS)}
