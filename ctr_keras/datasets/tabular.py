"""Anybody's CSV or Parquet as training data."""

import os
import pathlib
from collections.abc import Iterator, Sequence

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.parquet

from ctr_keras import files
from ctr_keras.columns import Columns, num_rows
from ctr_keras.data.layouts import check_layout
from ctr_keras.data.split import SPLITS, check_fractions, split_name, time_boundaries
from ctr_keras.datasets import drafts, prepared, staged
from ctr_keras.datasets.down_sampling import DownSampling
from ctr_keras.datasets.infer import infer_schema
from ctr_keras.datasets.prepared import Prepared
from ctr_keras.datasets.tables import (
    BATCH_ROWS,
    read_tables,
    table_files,
    unused_columns,
)
from ctr_keras.schema import Schema
from ctr_keras.sources import Report, to_stderr

__all__ = ["infer_schema", "prepare"]

_FORMAT = 3
_RANDOM = "__random__"
_DISTINCT_TIMES = 1_000_000


def prepare(
    out: str | os.PathLike,
    path: str | os.PathLike,
    schema: Schema | str | os.PathLike | None = None,
    *,
    split: str | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    list_separator: str = "|",
    layout: str = "block",
    negative_ratio: float = 1.0,
    negative_seed: int = 0,
    report: Report = to_stderr,
) -> Prepared:
    """Make training data of a CSV or Parquet file.

    Every value is checked against the schema. Vocabulary files that the schema names and that do
    not exist are built from the training rows, also from histories that share them. Memory does
    not grow with the number of rows: what does not fit goes to the disk, beside `out`. Columns of a
    CSV lie between commas, tabs, semicolons or bars. Values may be in quotes, which may hold line
    breaks, but between tabs, where a quote is often but a character, it counts only around a whole
    value of one line.

    Args:
        out: Folder to make. It keeps its old content until the new is whole.
        path: A CSV with a header, a Parquet file, or a folder of either.
        schema: What a row is: a `ck.Schema`, or a `schema.json` such as `infer_schema` writes. By
            default it is inferred.
        split: `"time"` (the test rows are the newest; the default where the schema has a time) or
            `"random"` (drawn with `seed`).
        fractions: Shares of the train, valid and test rows.
        seed: Of the random split.
        list_separator: What separates the values of a list in a CSV column.
        layout: Of the TFRecords, see `ck.data.write`.
        negative_ratio: Share of the training rows' negatives to keep, see
            `ck.data.down_sample_negatives`. Vocabularies and the other splits stay as they are
            without it.
        negative_seed: Another seed keeps other negatives.
        report: Called with lines for the user; by default they go to stderr.

    Returns:
        `Prepared`: the folder and the numbers of its splits.

    Raises:
        ValueError: a file, column or value is not what it should be (named with its row), a
            split would be empty, or `path` lies where `out` would replace it.
        OSError: the disk is full.

    Example:

    >>> tabular.infer_schema("clicks.csv", out="schema.json")   # look at it, edit it
    >>> tabular.prepare("tf_data/mine", "clicks.csv", "schema.json")
    """
    _check_options(split, fractions, seed, list_separator, layout)
    prepared.check_kept(out, path=path)
    sampling = DownSampling(negative_ratio, negative_seed)
    sources = table_files(path)
    schema = _schema(sources, path, schema, list_separator, report)
    split, label = _split_rule(schema, split), schema.label.name
    key = prepared.key_of(
        {
            "format": _FORMAT,
            "files": [files.sha256(source) for source in sources],
            "schema": schema.to_dict(),
            "split": [split, list(fractions), seed],
            "list_separator": list_separator,
            "layout": layout,
            **sampling.settings,
        }
    )
    found = prepared.up_to_date(out, key)
    if found is not None:
        report(f"{out} is up to date")
        return found
    with prepared.replacing(out, key, report=report) as staging:
        rows = staging / "rows.parquet"
        if not rows.exists():
            _copy_checked(sources, schema, list_separator, seed, rows, report)
        with staged.connected(staging) as connection:
            table = _with_split(connection.read_parquet(str(rows)), schema, split, fractions)
            final = staged.with_built_vocabularies(schema, table, staging / "vocabularies").save(
                staging
            )
            written = {}
            for index, name in enumerate(SPLITS):
                chunks = _split_chunks(table, index, staging / f"{name}.parquet", final)
                written[name] = sampling.write(staging, name, key, final, chunks, layout)
                report(f"{name}: {written[name].rows:,} rows")
            staged.write_entities(table, final, "item", staging / prepared.ITEMS_FILE)
            staged.write_entities(table, final, "user", staging / prepared.USERS_FILE)
            whole = staged.summary(pathlib.Path(out), str(path), table, final, label)
            result = sampling.applied(whole, written["train"])
        rows.unlink()
        prepared.finish(staging, key, result)
    return result


def _schema(
    sources: list[pathlib.Path], path, schema, list_separator: str, report: Report
) -> Schema:
    if schema is None:
        schema = infer_schema(path, list_separator=list_separator, report=report)
        features = ", ".join(f"{f.name} ({f.role}, {f.kind})" for f in schema)
        report(f"Inferred a schema: {features}")
    else:
        schema = schema if isinstance(schema, Schema) else drafts.load(schema, report)
        unused = unused_columns(sources[0], schema)
        if unused:
            report(f"Columns that the schema leaves out: {', '.join(unused)}")
    first: dict[str, str] = {}
    for name in schema.names:
        if first.setdefault(name.lower(), name) != name:
            raise ValueError(
                "Names of features must differ in more than case: rename a column. "
                f"Received: `names={[first[name.lower()], name]}`"
            )
    for feature in schema:
        drafts.check_values(feature)
        if feature.kind == "text" and drafts.is_unbuilt(feature.vocabulary):
            raise ValueError(
                f"Feature {feature.name!r}: the words of a text are hashed or looked up in a file "
                f"that exists. Received: `vocabulary={feature.vocabulary.file!r}`"
            )
    return schema


def _check_options(
    split: str | None, fractions: Sequence[float], seed: int, list_separator: str, layout: str
) -> None:
    """Before a file is read: it may take long."""
    if split not in (None, "time", "random"):
        raise ValueError(f'`split` must be "time" or "random". Received: `{split=}`')
    check_fractions(fractions, len(SPLITS))
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"`seed` must be an integer of 0 or more. Received: `{seed=}`")
    if not list_separator:
        raise ValueError(f"`list_separator` must not be empty. Received: `{list_separator=}`")
    check_layout(layout)


def _split_rule(schema: Schema, split: str | None) -> str:
    has_time = bool(schema.by_role("time"))
    if split is None:
        return "time" if has_time else "random"
    if split == "time" and not has_time:
        raise ValueError(
            "A split by time needs a feature with the role time. "
            f"Received: `{split=}`, `features={schema.names}`"
        )
    return split


def _copy_checked(
    sources: list[pathlib.Path],
    schema: Schema,
    list_separator: str,
    seed: int,
    target: pathlib.Path,
    report: Report,
) -> None:
    """All rows, checked and numbered, as one typed Parquet file: what DuckDB works on."""
    random = np.random.Generator(np.random.Philox(seed))
    temporary = target.with_suffix(".tmp")
    writer, first = None, 0
    try:
        for columns in read_tables(sources, schema, list_separator):
            rows = num_rows(columns)
            batch = {
                feature.name: staged.arrow_column(feature, columns[feature.name])
                for feature in schema
            }
            numbers = {staged.ROW: np.arange(first, first + rows), _RANDOM: random.random(rows)}
            table = pa.table({**batch, **numbers})
            writer = writer or pyarrow.parquet.ParquetWriter(temporary, table.schema)
            writer.write_table(table)
            first += rows
            if first % (BATCH_ROWS * 64) == 0:
                report(f"read {first:,} rows")
    finally:
        if writer is not None:
            writer.close()
    files.replace(temporary, target)


def _split_chunks(
    table: ir.Table, index: int, part: pathlib.Path, schema: Schema
) -> Iterator[Columns]:
    """The rows of a split in the order of the sources, by way of a file of their own."""
    table.filter(table[staged.PART] == index).order_by(staged.ROW).to_parquet(part)
    yield from staged.chunks(part, schema)
    part.unlink()


def _with_split(
    table: ir.Table, schema: Schema, split: str, fractions: Sequence[float]
) -> ir.Table:
    """The table with the number of each row's split."""
    if split == "time":
        time = table[schema.by_role("time")[0].name]
        part = sum((time >= int(cut)).cast("int8") for cut in _boundaries(time, fractions))
    else:
        cuts = np.cumsum(fractions)[:-1]
        part = sum((table[_RANDOM] >= float(cut)).cast("int8") for cut in cuts)
    table = table.mutate(**{staged.PART: part})
    sizes = dict(
        table.group_by(staged.PART).agg(n=table.count()).to_pyarrow().to_pandas().to_numpy()
    )
    for index in range(len(fractions)):
        if index not in sizes:
            raise ValueError(
                f"The {split_name(index)} split would be empty: there are only "
                f"{sum(sizes.values())} rows. Received: `fractions={tuple(fractions)}`"
            )
    return table


def _boundaries(time: ir.IntegerColumn, fractions: Sequence[float]) -> np.ndarray:
    """The first time of each split after the first, from a bounded number of counts."""
    table = time.as_table()
    name = time.get_name()
    found = table.aggregate(least=time.min(), most=time.max(), distinct=time.approx_nunique())
    least, most, distinct = next(iter(found.to_pyarrow().to_pandas().itertuples(index=False)))
    # Over a million distinct times are counted in a million steps of equal width.
    width = 1 if distinct < _DISTINCT_TIMES else -(-(most - least + 1) // _DISTINCT_TIMES)
    step = ((table[name] - int(least)) // int(width)).cast("int64")
    counts = table.group_by(step=step).agg(n=table.count()).order_by("step").to_pyarrow()
    steps = counts["step"].to_numpy()
    return time_boundaries(steps * width + least, fractions, counts=counts["n"].to_numpy())
