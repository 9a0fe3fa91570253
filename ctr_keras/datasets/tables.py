"""CSV and Parquet files as checked columns, in batches: memory does not grow with the file."""

import gzip
import os
import pathlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from ctr_keras import files
from ctr_keras.columns import Column, Columns, Ragged, canonical
from ctr_keras.datasets.prepared import PREPARED_FILE
from ctr_keras.schema import Feature, Schema
from ctr_keras.utf8 import not_utf8

BATCH_ROWS = 32_768
_GROUP_PREFIX = "group_"
_PARQUET = (".parquet", ".pq")
TAB = "\t"
# A whole value in quotes, those within it doubled.
QUOTED = '^"([^"]|"")*"$'


def table_files(path: str | os.PathLike) -> list[pathlib.Path]:
    """The CSV or Parquet files that `path` names: one, or all of a folder in order of name.

    In a folder names that begin with a dot or an underscore are passed over, as Spark and Arrow
    do: they are copies of editors and work in progress. So is what `prepare` made there.

    Raises:
        ValueError: there is none, or a folder holds both kinds.
    """
    path = pathlib.Path(path)
    if path.is_file():
        return [path]
    if not path.exists():
        raise ValueError(f"There is no such file or folder. Received: `path={str(path)!r}`")
    within = sorted(path.rglob("*"))
    prepared = {p.parent for p in within if p.name == PREPARED_FILE} - {path}
    found = [
        p
        for p in within
        if p.is_file()
        and (is_parquet(p) or _is_csv(p))
        and not _is_hidden(p.relative_to(path))
        and prepared.isdisjoint(p.parents)
    ]
    if not found:
        raise ValueError(f"There is no CSV or Parquet file. Received: `path={str(path)!r}`")
    if len({is_parquet(p) for p in found}) > 1:
        raise ValueError(
            f"The folder holds CSV and Parquet files: name one kind. Received: `path={str(path)!r}`"
        )
    return found


def is_parquet(path: pathlib.Path) -> bool:
    return path.suffix.lower() in _PARQUET


def _is_hidden(path: pathlib.Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _is_csv(path: pathlib.Path) -> bool:
    return path.name.lower().removesuffix(".gz").endswith((".csv", ".tsv", ".txt"))


def delimiter_of(path: pathlib.Path) -> str:
    """What separates the columns of a CSV: the most frequent candidate in its header."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        header = file.readline().decode("utf-8", "replace")
    return max(",\t;|", key=header.count)


def column_names(path: pathlib.Path) -> list[str]:
    """The columns of a file.

    Raises:
        ValueError: the file is empty or no table, or names a column twice.
    """
    try:
        if is_parquet(path):
            names = pyarrow.parquet.read_schema(path).names
        else:
            names, _ = _csv_names(path)
    except (pa.ArrowInvalid, OSError, *files.DAMAGED) as error:
        raise unreadable([path], error) from error
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{path}: column {name!r} appears twice")
    return names


def unreadable_columns(path: pathlib.Path) -> dict[str, pa.DataType]:
    """Columns of a Parquet file that hold neither values nor lists of them, and what they hold."""
    if not is_parquet(path):
        return {}
    return {
        field.name: field.type
        for field in pyarrow.parquet.read_schema(path)
        if not _holds_values(field.type.value_type if _is_list(field.type) else field.type)
    }


def _holds_values(type_: pa.DataType) -> bool:
    is_other = pa.types.is_null(type_) or pa.types.is_nested(type_) or pa.types.is_interval(type_)
    return not is_other and not pa.types.is_duration(type_)


def _is_list(type_: pa.DataType) -> bool:
    is_list = pa.types.is_list(type_) or pa.types.is_large_list(type_)
    return is_list or pa.types.is_fixed_size_list(type_)


def read_tables(
    paths: list[pathlib.Path], schema: Schema, list_separator: str = "|"
) -> Iterator[Columns]:
    """Read files as the schema wants them.

    A CSV's values may be in quotes. Between tabs a quote is often but a character, so there it
    counts only around a whole value, which holds neither a tab nor a line break.

    Args:
        paths: CSV files with a header, or Parquet files.
        schema: What a row is. A group feature `group_x` that is no column takes the values of
            column `x`.
        list_separator: What separates the values of a list in a CSV column.

    Yields:
        Up to `BATCH_ROWS` rows: by feature name an array or a `Ragged`, of the schema's types.

    Raises:
        ValueError: names the file, the column and the row (from 0, the header left aside) at
            fault.
    """
    is_empty = True
    for path in paths:
        sources = _sources(path, schema)
        first_row = 0
        for batch in _batches(path, list(dict.fromkeys(sources.values()))):
            try:
                columns = {
                    feature.name: _column(
                        schema, feature, batch[sources[feature.name]], list_separator, first_row
                    )
                    for feature in schema
                }
                yield canonical(schema, columns, first_row)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
            first_row += batch.num_rows
        is_empty &= not first_row
    if is_empty:
        raise ValueError(
            f"{paths[0]} has no rows" + (", nor has a file beside it" if paths[1:] else "")
        )


def read_texts(path: pathlib.Path, names: list[str]) -> pa.Table:
    """Columns of a CSV or Parquet file as texts, `""` where a value is missing.

    Integers are texts as they are, also where Parquet has floats in their place.

    Raises:
        ValueError: the file cannot be read, or a column holds no values.
    """
    batches = []
    for batch in _batches(path, names):
        for name, column in zip(names, batch, strict=True):
            if not (_holds_values(column.type) or pa.types.is_null(column.type)):
                raise ValueError(
                    f"{path}: column {name!r} must hold values. Received: `type={column.type}`"
                )
        batches.append(pa.record_batch([_texts(column) for column in batch], names=names))
    return pa.Table.from_batches(batches, pa.schema([(name, pa.string()) for name in names]))


def unused_columns(path: pathlib.Path, schema: Schema) -> list[str]:
    """Columns of the file that the schema leaves out."""
    used = set(_sources(path, schema).values())
    return [name for name in column_names(path) if name not in used]


def _sources(path: pathlib.Path, schema: Schema) -> dict[str, str]:
    """The file's column of each feature."""
    names = column_names(path)
    sources = {}
    for feature in schema:
        name = feature.name
        if name not in names and feature.role == "group":
            name = name.removeprefix(_GROUP_PREFIX)
        if name not in names:
            raise ValueError(
                f"{path}: missing column {feature.name!r}, which the schema has. "
                f"Received: `columns={names}`"
            )
        sources[feature.name] = name
    return sources


def unreadable(paths: list[pathlib.Path], error: Exception) -> ValueError:
    """What to raise for files, or one of them, of which the rows cannot be told apart."""
    texts = [path for path in paths if not is_parquet(path)]
    for path in texts:
        try:
            fault = not_utf8(path)
        except (OSError, *files.DAMAGED) as damage:
            return ValueError(f"{path} cannot be read: {damage}")
        if fault is not None:
            return ValueError(fault)
    hint = ""
    if texts and delimiter_of(texts[0]) == TAB:
        hint = ". Between tabs, a value in quotes holds neither a tab nor a line break"
    return ValueError(f"{paths[0]} cannot be read: {error}{hint}")


def _batches(path: pathlib.Path, names: list[str]) -> Iterator[pa.RecordBatch]:
    try:
        if is_parquet(path):
            with pyarrow.parquet.ParquetFile(path) as file:
                yield from file.iter_batches(BATCH_ROWS, columns=names)
            return
        written = dict(zip(*_csv_names(path), strict=True))
        for batch in _open_csv(path, [written[name] for name in names]):
            columns = map(_unquoted, batch) if delimiter_of(path) == TAB else batch.columns
            batch = pa.record_batch(list(columns), names=names)
            for start in range(0, batch.num_rows, BATCH_ROWS):
                yield batch.slice(start, BATCH_ROWS)
    except (pa.ArrowInvalid, OSError, *files.DAMAGED) as error:
        raise unreadable([path], error) from error


def _csv_names(path: pathlib.Path) -> tuple[list[str], list[str]]:
    """The columns of a CSV, and how its header writes them."""
    names = _open_csv(path).schema.names
    return _unquoted(pa.array(names)).to_pylist() if delimiter_of(path) == TAB else names, names


def _open_csv(path: pathlib.Path, names: list[str] | None = None):
    """All columns as text, so that each bad value can be named with its row."""
    read = pyarrow.csv.ReadOptions(use_threads=False, block_size=1 << 22)
    delimiter = delimiter_of(path)
    # A title that begins with a quote would swallow the rows up to the next one.
    is_quoted = delimiter != TAB
    parse = pyarrow.csv.ParseOptions(
        delimiter=delimiter, quote_char='"' if is_quoted else False, newlines_in_values=is_quoted
    )
    convert = pyarrow.csv.ConvertOptions(
        column_types={name: pa.string() for name in names or ()},
        include_columns=names,
        strings_can_be_null=False,
    )
    return pyarrow.csv.open_csv(path, read, parse, convert)


def _unquoted(values: pa.Array) -> pa.Array:
    """Texts without the quotes around the whole of them."""
    inner = pc.replace_substring(pc.utf8_slice_codeunits(values, 1, -1), '""', '"')
    return pc.if_else(pc.match_substring_regex(values, QUOTED), inner, values)


def _column(
    schema: Schema, feature: Feature, values: pa.Array, separator: str, first_row: int
) -> Column:
    """An Arrow column in the form that `canonical` checks."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    is_list = _is_list(values.type)
    wants_list = feature.is_sequence or feature.kind == "vector"
    if is_list and not wants_list:
        raise ValueError(
            f"Column {feature.name!r} holds lists, but the feature has no `length`. "
            f"Received: `type={values.type}`"
        )
    if not wants_list:
        return _flat(schema, feature, values, lambda position: first_row + position)
    if not is_list:
        if not pa.types.is_string(values.type) and not pa.types.is_large_string(values.type):
            raise ValueError(
                f"Column {feature.name!r} must hold lists, or text whose values "
                f"{separator!r} separates. Received: `type={values.type}`"
            )
        values = _split(values, separator)
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False)
    ends = np.cumsum(lengths)

    def row_of(position: int) -> int:
        return first_row + int(np.searchsorted(ends, position, side="right"))

    flat = _flat(schema, feature, pc.list_flatten(values), row_of)
    found = Ragged(flat, lengths.astype(np.int32))
    if feature.width is None:
        return found
    wrong = np.flatnonzero(found.lengths != feature.width)
    if len(wrong):
        raise ValueError(
            f"Column {feature.name!r}, row {first_row + wrong[0]}: expected {feature.width} "
            f"numbers. Received: {found.lengths[wrong[0]]}"
        )
    return found.values.reshape(-1, feature.width)


def _split(values: pa.Array, separator: str) -> pa.Array:
    """Texts as lists, an empty text as an empty one."""
    values = pc.fill_null(values, "")
    lists = pc.split_pattern(values, separator)
    empty = pa.scalar([], lists.type)
    return pc.if_else(pc.equal(values, ""), empty, lists)


def _flat(schema: Schema, feature: Feature, values: pa.Array, row_of) -> np.ndarray:
    """Arrow values as NumPy values of the feature's type, missing ones as its padding."""
    if not _holds_values(values.type):
        if not pa.types.is_null(values.type):
            raise ValueError(
                f"Column {feature.name!r} must hold values, or lists of them. "
                f"Received: `type={values.type}`"
            )
        values = values.cast(pa.type_for_alias(feature.dtype))
    if feature.dtype == "string":
        return _texts(values).to_numpy(zero_copy_only=False)
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        values = _parsed(schema, feature, values, row_of)
    if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        values = values.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    if pa.types.is_decimal(values.type):
        values = values.cast(pa.int64() if _can_cast(values, pa.int64()) else pa.float64())
    if values.null_count:
        if feature.kind != "id":
            position = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
            _fail(feature, row_of(position), None)
        padding = schema.padding(feature.name)
        if pa.types.is_unsigned_integer(values.type):  # They have no room for -1.
            if _can_cast(values, pa.int64()):
                values = values.cast(pa.int64())
            else:
                padding = 0  # From 2**63 on a value is refused, with its row, once it is checked.
        values = pc.fill_null(values, padding)
    return values.to_numpy(zero_copy_only=False)


def _texts(values: pa.Array) -> pa.Array:
    """Values as texts, the missing as empty ones.

    Floats that are ids become the integers they are: `1e+06` would be another id than `1000000`.
    """
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
        values = values.cast(pa.int64()) if _can_cast(values, pa.int64()) else values
    return pc.fill_null(values.cast(pa.string()), "")


def _parsed(schema: Schema, feature: Feature, values: pa.Array, row_of) -> pa.Array:
    """Texts as numbers; the empty one is a missing id, and no number."""
    if feature.kind == "id":
        padding = str(schema.padding(feature.name))
        values = pc.if_else(pc.equal(values, ""), padding, values)
    kinds = [pa.float64()] if feature.dtype == "float32" else [pa.int64(), pa.float64()]
    if feature.role == "time":
        # Of nanoseconds last, as they reach from 1677 to 2262 alone.
        kinds += [pa.timestamp(unit, zone) for unit in ("us", "ns") for zone in (None, "UTC")]
    if feature.role == "label":
        kinds.append(pa.bool_())
    for kind in kinds:
        if _can_cast(values, kind):
            return values.cast(kind)
    for position in range(len(values)):
        if not any(_can_cast(values[position], kind) for kind in kinds):
            _fail(feature, row_of(position), values[position].as_py())
    first = next(kind for kind in kinds if _can_cast(values[0], kind))
    other = next(n for n, value in enumerate(values) if not _can_cast(value, first))
    raise ValueError(
        f"Column {feature.name!r} holds times with a zone and without, or as numbers and as dates: "
        f"choose one. Received: `value={values[other].as_py()!r}` in row {row_of(other)}, "
        f"`value={values[0].as_py()!r}` in row {row_of(0)}"
    )


def _can_cast(values: pa.Array | pa.Scalar, kind: pa.DataType) -> bool:
    try:
        values.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _fail(feature: Feature, row: int, value) -> None:
    expected = {"id": "an integer", "number": "a finite number", "vector": "a finite number"}
    what = "a time" if feature.role == "time" else expected[feature.kind]
    what = "a label of 0 or 1" if feature.role == "label" else what
    raise ValueError(
        f"Column {feature.name!r}, row {row}: expected {what}. Received: `value={value!r}`"
    )
