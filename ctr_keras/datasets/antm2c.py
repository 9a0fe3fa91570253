"""AntM2C as click data: five scenarios in one table, texts beside ids, the last day to test on."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow.parquet

from ctr_keras import files
from ctr_keras.columns import Columns
from ctr_keras.data.layouts import check_layout
from ctr_keras.data.split import SPLITS, time_boundaries
from ctr_keras.data.write import write
from ctr_keras.datasets import antm2c_raw, drafts, prepared, staged, truth
from ctr_keras.datasets.antm2c_raw import FEATURES, FILE, FILE_ROW, OPTIONAL_TEXTS, TEXTS
from ctr_keras.datasets.prepared import Prepared
from ctr_keras.schema import MISSING_INT, Feature, Schema, Vocabulary
from ctr_keras.sources import Report, to_stderr

_FORMAT = 1
_DAY = 86_400
_TEXT_LENGTH = 32
_GROUP = "group_user_id"
# What the typed file calls two columns that the schema names by their roles.
_RENAMED = {"time": "log_time", _GROUP: "user_id"}


def prepare(
    out: str | os.PathLike,
    raw: str | os.PathLike | Sequence[str | os.PathLike],
    *,
    scenes: Sequence[str] | None = None,
    valid_share: float = 1.0,
    time_format: str | None = None,
    text_buckets: int | None = None,
    layout: str = "block",
    report: Report = to_stderr,
) -> Prepared:
    """Make training data of AntM2C's files, or of those that `ctr-keras simulate antm2c` writes.

    Files are CSV with a header: `user_id`, `features_0` ... `features_26`, `query_entity_seq`,
    `item_id`, `item_entity_names`, `item_title`, `log_time`, `scene` and `label`, in any order.
    `bill_entity_seq` and `service_entity_seq` are taken where all files have them. A row's schema:

    - `user_id` and the features (role user), `item_id` (item) and `scene` (scenario) are looked
      up. Where all values of a column are integers of 0 or more they stay integers, else they are
      strings. Vocabularies hold what training rows hold, the most frequent first; those of the
      scenes are in the order of their names.
    - Texts of the user (`query_entity_seq`, bills and services) have the role user, `item_title`
      the role item, `item_entity_names` the role context: it is a matter of the row, as one item
      comes with different ones. Texts are kept as they are and are no model input, unless
      `text_buckets` has their words hashed.
    - `time` is `log_time` as seconds since 1970 as if it were UTC, so that a day of the file's
      clock is a day; `group_user_id` is for GAUC.

    A missing value is an empty field, or one of `antm2c_raw.MISSING_VALUES` (how the public file
    writes it is not told); it becomes padding. Users, items and scenes must not be missing.

    The last day is the test split, as in the paper. The validation rows are the day before it, or
    with `valid_share` below 1 the newest share of that day, the rest of which is learned from
    then. (The paper names no validation rows; a day keeps the order of time, and is as long as
    what is judged.)

    A column `true_probability`, which the simulator writes, never becomes a feature: each split's
    folder keeps it as `truth.parquet`, see `datasets.truth.read`, and the rows carry their number
    as `group_impression_id`.

    Rows are streamed to a typed file beside `out`, DuckDB sorts in bounded memory, and what it
    cannot hold goes to the disk; otherwise memory grows with the number of distinct values alone.

    Args:
        out: Folder to make. It keeps its old content until the new is whole.
        raw: A file, a `.gz` of it, a folder of `.csv` and `.csv.gz`, or several of these.
        scenes: The scenes that there may be; a row of another is an error. By default any.
        valid_share: Share of the day before the last that the validation split takes.
        time_format: Of `log_time`, as `strptime` takes it. By default ISO 8601 without a zone.
        text_buckets: How many ids the words of each text are hashed to.
        layout: Of the TFRecords, see `ck.data.write`.
        report: Called with lines for the user; by default they go to stderr.

    Returns:
        `Prepared`: the folder and the numbers of its splits.

    Raises:
        ValueError: an argument or a value is not what it should be (named with its file, row and
            column, the header being row 1), a column is missing, a file is empty, a scene has no
            training row, or there are too few days.
        OSError: the disk is full.

    Example:

    >>> antm2c.prepare("tf_data/antm2c", ["antm2c_10m_part0", "antm2c_10m_part1"])
    """
    rules = _Rules.checked(scenes, valid_share, time_format, text_buckets)
    check_layout(layout)
    paths = antm2c_raw.find(raw)
    for path in paths:
        prepared.check_kept(out, raw=path)
    optional = antm2c_raw.optional_columns(paths, report)
    settings = {
        "antm2c": _FORMAT,
        "raw": [files.sha256(path) for path in paths],
        "rules": dataclasses.asdict(rules),
        "layout": layout,
    }
    key = prepared.key_of(settings)
    found = prepared.up_to_date(out, key)
    if found is not None and (truth.PROBABILITY not in optional or truth.is_whole(out)):
        report(f"{out} is up to date")
        return found
    with prepared.replacing(out, key, report=report) as staging:
        rows = staging / "rows.parquet"
        if not rows.exists():
            antm2c_raw.copy_checked(paths, rows, optional, rules.scenes, rules.time_format, report)
        result = _write(rows, paths, rules, staging, key, layout, report)
        result = dataclasses.replace(
            result, folder=pathlib.Path(out), origin=", ".join(map(str, paths))
        )
        for path in staging.glob("rows.*"):
            path.unlink()
        prepared.finish(staging, key, result)
    return result


@dataclasses.dataclass(frozen=True)
class _Rules:
    """The arguments of `prepare` that decide what rows hold and where they go."""

    scenes: tuple[str, ...] | None
    valid_share: float
    time_format: str | None
    text_buckets: int | None

    @classmethod
    def checked(cls, scenes, valid_share, time_format, text_buckets) -> "_Rules":
        if isinstance(scenes, str) or (scenes is not None and not list(scenes)):
            raise ValueError(
                f"`scenes` must be names of scenes, or `None`. Received: `scenes={scenes!r}`"
            )
        if not 0 < valid_share <= 1:
            raise ValueError(
                f"`valid_share` must be above 0, at most 1. Received: `valid_share={valid_share!r}`"
            )
        if text_buckets is not None:
            Vocabulary.hashing(text_buckets)
        names = None if scenes is None else tuple(str(name) for name in scenes)
        return cls(names, float(valid_share), time_format, text_buckets)


def draft_schema(
    integers: Sequence[str] = (),
    texts: Sequence[str] = TEXTS,
    *,
    text_buckets: int | None = None,
    has_truth: bool = False,
) -> Schema:
    """The features of a row; `prepare` builds the vocabularies.

    Args:
        integers: The ids that are integers; the others are strings.
        texts: The texts that there are.
        text_buckets: As `prepare` takes it.
        has_truth: Whether rows carry a number by which their true probability is found.
    """

    def dtype(name: str) -> str:
        return "int64" if name in integers else "string"

    def looked_up(name: str, role: str) -> Feature:
        return Feature(name, role=role, vocabulary=drafts.unbuilt(name), dtype=dtype(name))

    def text(name: str, role: str) -> list[Feature]:
        if name not in texts:
            return []
        if text_buckets is None:
            return [Feature(name, role=role, kind="text")]
        words = Vocabulary.hashing(text_buckets)
        return [Feature(name, role=role, kind="text", vocabulary=words, length=_TEXT_LENGTH)]

    numbered = [Feature(truth.IMPRESSION, role="group")] if has_truth else []
    of_user = ("query_entity_seq", *OPTIONAL_TEXTS)
    return Schema(
        (
            looked_up("user_id", "user"),
            *(looked_up(name, "user") for name in FEATURES),
            *(feature for name in of_user for feature in text(name, "user")),
            looked_up("item_id", "item"),
            *text("item_title", "item"),
            *text("item_entity_names", "context"),
            looked_up("scene", "scenario"),
            Feature(_GROUP, role="group", dtype=dtype("user_id")),
            *numbered,
            Feature("time", role="time", kind="number"),
            Feature("label", role="label", kind="number"),
        )
    )


def _write(
    rows: pathlib.Path,
    paths: Sequence[pathlib.Path],
    rules: _Rules,
    staging: pathlib.Path,
    key: str,
    layout: str,
    report: Report,
) -> Prepared:
    """Vocabularies, splits and entity tables from the typed rows."""
    names = pyarrow.parquet.read_schema(rows).names
    integers, has_truth = antm2c_raw.integer_columns(rows), truth.PROBABILITY in names
    draft = draft_schema(
        sorted(integers), names, text_buckets=rules.text_buckets, has_truth=has_truth
    )
    with staged.connected(staging) as connection:
        raw = connection.read_parquet(str(rows))
        table = _with_split(_as_features(raw, draft, integers), rules.valid_share)
        vocabularies = staging / "vocabularies"
        scenes = Vocabulary.write(vocabularies / "scene.txt", _training_scenes(table, paths))
        draft = drafts.with_vocabularies(draft, {"scene": scenes})
        schema = staged.with_built_vocabularies(draft, table, vocabularies).save(staging)
        for index, name in enumerate(SPLITS):
            if not _is_written(staging, name, key, has_truth):
                chunks = _split_chunks(table, index, staging, name, schema, has_truth)
                manifest = write(
                    staging / name, schema, chunks, layout=layout, metadata={"key": key}
                )
                report(f"{name}: {manifest.rows:,} rows")
        staged.write_entities(table, schema, "item", staging / prepared.ITEMS_FILE)
        staged.write_entities(table, schema, "user", staging / prepared.USERS_FILE)
        return staged.summary(staging, "", table, schema, "label")


def _as_features(raw: ir.Table, schema: Schema, integers: set[str]) -> ir.Table:
    """The columns by the names and types of the schema, with those that tell where a row is from.

    Features whose values are all integers become such, -1 for a missing one.
    """
    columns = {}
    for feature in schema:
        name = _RENAMED.get(feature.name, feature.name)
        column = raw[staged.ROW] if name == truth.IMPRESSION else raw[name]
        if name in integers:
            column = column.nullif("").cast("int64").fill_null(MISSING_INT)
        columns[feature.name] = column
    kept = [name for name in (staged.ROW, FILE, FILE_ROW, truth.PROBABILITY) if name in raw.columns]
    return raw.select(*kept, **columns)


def _with_split(table: ir.Table, valid_share: float) -> ir.Table:
    """The table with the number of each row's split, by the days of the file's clock."""
    days = (table.time // _DAY).cast("int64").name("day").as_table().distinct()
    found = sorted(days.to_pyarrow()["day"].to_pylist())
    needed = 3 if valid_share == 1 else 2
    if len(found) < needed:
        dates = [str(np.datetime64(day, "D")) for day in found]
        raise ValueError(
            f"At least {needed} days are needed: the last to test on, the one before "
            f"{'to validate on' if needed == 3 else 'to learn from and validate on'}. "
            f"Received: `days={dates}`"
        )
    test, valid = found[-1] * _DAY, found[-2] * _DAY
    if valid_share < 1:
        valid = _newest_share(table, valid, test, valid_share)
    part = (table.time >= valid).cast("int8") + (table.time >= test).cast("int8")
    return table.mutate(**{staged.PART: part})


def _newest_share(table: ir.Table, begin: int, end: int, share: float) -> int:
    """The time from which on the rows of a day are about `share` of it."""
    day = table.filter((table.time >= begin) & (table.time < end))
    counts = day.group_by("time").agg(n=ibis._.count()).order_by("time").to_pyarrow()
    times, rows = (counts[name].to_numpy() for name in ("time", "n"))
    return int(time_boundaries(times, (1 - share, share), counts=rows)[0])


def _training_scenes(table: ir.Table, paths: Sequence[pathlib.Path]) -> list[str]:
    """The scenes of training rows in the order of their names; there must be no others."""
    train = table.filter(table[staged.PART] == 0)
    scenes = sorted(train.scene.as_table().distinct().to_pyarrow()["scene"].to_pylist())
    others = table.filter(~table.scene.isin(scenes)).order_by(staged.ROW).limit(1)
    found = others.select("scene", FILE, FILE_ROW, staged.PART).to_pyarrow().to_pylist()
    if found:
        row = found[0]
        raise ValueError(
            f"{paths[row[FILE]]}, row {row[FILE_ROW]}, column 'scene': a row of the "
            f"{SPLITS[row[staged.PART]]} split is of a scene without a training row, among which "
            f"there are {', '.join(scenes)}. Received: `value={row['scene']!r}`"
        )
    return scenes


def _is_written(staging: pathlib.Path, split: str, key: str, has_truth: bool) -> bool:
    if has_truth and not truth.file_of(staging, split).is_file():
        return False
    return prepared.is_written(staging, split, key)


def _split_chunks(
    table: ir.Table,
    index: int,
    staging: pathlib.Path,
    split: str,
    schema: Schema,
    has_truth: bool,
) -> Iterator[Columns]:
    """The rows of a split in the order of the sources, by way of a file of their own."""
    part = staging / f"{split}.parquet"
    table.filter(table[staged.PART] == index).order_by(staged.ROW).to_parquet(part)
    if has_truth:
        truth.file_of(staging, split).parent.mkdir(exist_ok=True)
        truth.copy(part, truth.file_of(staging, split))
    yield from staged.chunks(part, schema)
    part.unlink()
