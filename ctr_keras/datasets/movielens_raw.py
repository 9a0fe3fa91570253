"""MovieLens' raw files, in GroupLens' and RecBole's formats, as the same three tables."""

import dataclasses
import io
import re

import numpy as np
import pandas as pd

from ctr_keras.sources import RawFiles

MISSING = -1

_GENRES_100K = (
    "unknown|Action|Adventure|Animation|Children's|Comedy|Crime|Documentary|Drama|Fantasy|"
    "Film-Noir|Horror|Musical|Mystery|Romance|Sci-Fi|Thriller|War|Western"
).split("|")
_AGE_FROM = (18, 25, 35, 45, 50, 56)
_AGE_NAMES = np.array(["under 18", "18-24", "25-34", "35-44", "45-49", "50-55", "56+"], object)
# MovieLens-1M's ids run from 1 to 3952, in the order of its titles, without these. RecBole's
# copies name movies by title; this gives them their ids back.
_ITEMS_1M = 3883
_ABSENT_1M = (
    91, 221, 323, 622, 646, 677, 686, 689, 740, 817, 883, 995, 1048, 1072, 1074, 1182, 1195, 1229,
    1239, 1338, 1402, 1403, 1418, 1435, 1451, 1452, 1469, 1478, 1481, 1491, 1492, 1505, 1506, 1512,
    1521, 1530, 1536, 1540, 1560, 1576, 1607, 1618, 1634, 1637, 1638, 1691, 1700, 1712, 1736, 1737,
    1745, 1751, 1761, 1763, 1766, 1775, 1778, 1786, 1790, 1800, 1802, 1803, 1808, 1813, 1818, 1823,
    1828, 1838, 3815,
)  # fmt: skip
_TITLE = re.compile(r"^(.*?)\s*(?:\((\d{4})\))?\s*(?:\((?:V|TV)\))?\s*$")


@dataclasses.dataclass(frozen=True)
class Tables:
    """The raw data, whatever its format.

    Attributes:
        ratings: `user_id`, `item_id` (int64), `rating` (float64), `time` (int64, seconds), in the
            order of the file.
        users: `user_id`, `age` (`"25-34"`), `gender`, `occupation` (strings, `""` if unknown).
        items: `item_id`, `title` (without its year), `year` (int64, -1 if unknown), `genres`
            (lists of strings).
        files: The raw files that were read.
    """

    ratings: pd.DataFrame
    users: pd.DataFrame
    items: pd.DataFrame
    files: list[str]


def parse(raw: RawFiles) -> Tables:
    """Read the raw files, in whichever format they are.

    Raises:
        ValueError: the files are of no known format, or a value is not what it should be (its
            file, column and line are named).
    """
    if raw.find(".inter"):
        return _parse_atomic(raw)
    if raw.find("u.data"):
        return _parse_100k(raw)
    if raw.find("ratings.dat"):
        return _parse_1m(raw)
    raise ValueError(
        "Expected MovieLens' raw files: u.data, u.item and u.user; ratings.dat, movies.dat and "
        "users.dat; or RecBole's .inter, .item and .user. "
        f"Received: `raw={str(raw.path)!r}`"
    )


def _parse_100k(raw: RawFiles) -> Tables:
    names = [_required(raw, name) for name in ("u.data", "u.item", "u.user")]
    ratings = _table(raw, names[0], "\t", ["user_id", "item_id", "rating", "timestamp"])
    columns = ["item_id", "title", "date", "video_date", "address", *_GENRES_100K]
    items = _table(raw, names[1], "|", columns)
    users = _table(raw, names[2], "|", ["user_id", "age", "gender", "occupation", "zip"])
    flags = items[_GENRES_100K].to_numpy() == "1"
    genres = [[g for g, has in zip(_GENRES_100K, row, strict=True) if has] for row in flags]
    return _tables(raw, names, ratings, users, items["item_id"], items["title"], None, genres)


def _parse_1m(raw: RawFiles) -> Tables:
    names = [_required(raw, name) for name in ("ratings.dat", "movies.dat", "users.dat")]
    ratings = _table(raw, names[0], "::", ["user_id", "item_id", "rating", "timestamp"])
    items = _table(raw, names[1], "::", ["item_id", "title", "genres"])
    users = _table(raw, names[2], "::", ["user_id", "gender", "age", "occupation", "zip"])
    genres = [text.split("|") if text else [] for text in items["genres"]]
    return _tables(raw, names, ratings, users, items["item_id"], items["title"], None, genres)


def _parse_atomic(raw: RawFiles) -> Tables:
    names = [_required(raw, ending) for ending in (".inter", ".item", ".user")]
    ratings = _table(raw, names[0], "\t", ("user_id", "item_id", "rating", "timestamp"))
    items = _table(raw, names[1], "\t", ("item_id", "movie_title", "release_year"))
    users = _table(raw, names[2], "\t", ("user_id", "age", "gender", "occupation"))
    column = "class" if "class" in items else "genre"
    if column not in items:
        raise ValueError(f"{raw.label(names[1])}: missing column 'class' or 'genre'")
    genres = [text.split() for text in items[column]]
    item_id = items["item_id"]
    if not item_id.str.fullmatch(r"\d+").all():
        number = _numbered(raw.label(names[1]), item_id)
        ratings["item_id"] = ratings["item_id"].map(number)
        _check(raw.label(names[0]), "item_id", ratings["item_id"].notna(), "a known item", 2)
        item_id = item_id.map(number)
    # "1m_17" is user 17.
    for frame in (ratings, users):
        frame["user_id"] = frame["user_id"].str.replace(r"^\w+_(?=\d+$)", "", regex=True)
    return _tables(
        raw, names, ratings, users, item_id, items["movie_title"], items["release_year"], genres
    )


def _numbered(file: str, titles: pd.Series) -> dict[str, str]:
    """An integer for each title that serves as an id: MovieLens-1M's own, else its line."""
    _check(file, "item_id", ~titles.duplicated(), "each item once", 2)
    absent = _ABSENT_1M if len(titles) == _ITEMS_1M else ()
    ids = sorted(set(range(1, len(titles) + len(absent) + 1)) - set(absent))
    return dict(zip(titles, map(str, ids), strict=True))


def _tables(
    raw: RawFiles,
    names: list[str],
    ratings: pd.DataFrame,
    users: pd.DataFrame,
    item_id: pd.Series,
    title: pd.Series,
    year: pd.Series | None,
    genres: list[list[str]],
) -> Tables:
    first = 2 if raw.find(".inter") else 1
    files = [raw.label(name) for name in names]
    parts = title.str.extract(_TITLE)
    written = parts[1] if year is None else parts[1].fillna(year)
    items = pd.DataFrame(
        {
            "item_id": _integers(files[1], "item_id", item_id, first),
            # RecBole's copy misspells the one movie without a title.
            "title": parts[0].replace("unkonwn", "unknown"),
            "year": pd.to_numeric(written, errors="coerce").fillna(MISSING).astype(np.int64),
            "genres": genres,
        }
    )
    _check(files[1], "item_id", ~items["item_id"].duplicated(), "each item once", first)
    ages = _integers(files[2], "age", users["age"], first)
    people = pd.DataFrame(
        {
            "user_id": _integers(files[2], "user_id", users["user_id"], first),
            "age": _AGE_NAMES[np.searchsorted(_AGE_FROM, ages, side="right")],
            "gender": users["gender"],
            "occupation": users["occupation"],
        }
    )
    _check(files[2], "user_id", ~people["user_id"].duplicated(), "each user once", first)
    rated = pd.DataFrame(
        {
            "user_id": _integers(files[0], "user_id", ratings["user_id"], first),
            "item_id": _integers(files[0], "item_id", ratings["item_id"], first),
            "rating": _numbers(files[0], "rating", ratings["rating"], first),
            "time": _integers(files[0], "timestamp", ratings["timestamp"], first),
        }
    )
    return Tables(
        ratings=rated,
        users=_completed(people, "user_id", rated),
        items=_completed(items, "item_id", rated),
        files=names,
    )


def _completed(frame: pd.DataFrame, key: str, ratings: pd.DataFrame) -> pd.DataFrame:
    """The described users or items and those that only ratings name, in ascending order."""
    absent = np.setdiff1d(ratings[key], frame[key])
    if len(absent):
        extra = pd.DataFrame({key: absent}).reindex(columns=frame.columns)
        for column in frame.columns.drop(key):
            value = {"year": MISSING, "genres": []}.get(column, "")
            extra[column] = pd.Series([value] * len(absent), dtype=frame[column].dtype)
        frame = pd.concat([frame, extra])
    return frame.sort_values(key, ignore_index=True)


def _required(raw: RawFiles, ending: str) -> str:
    name = raw.find(ending)
    if name is None:
        raise ValueError(f"{raw.path} holds no {ending} file. Received: `raw={str(raw.path)!r}`")
    return name


def _table(raw: RawFiles, name: str, separator: str, columns: list[str] | tuple) -> pd.DataFrame:
    """All columns as text. A list names the columns, a tuple those a header must have."""
    content = raw.read(name)
    file = raw.label(name)
    if not content.strip():
        raise ValueError(f"{file} is empty")
    if separator == "::":
        content, separator = content.replace(b"::", b"\t"), "\t"
    has_header = isinstance(columns, tuple)
    _check_widths(file, content, separator.encode(), None if has_header else len(columns))
    try:
        frame = pd.read_csv(
            io.BytesIO(content),
            sep=separator,
            header=0 if has_header else None,
            names=None if has_header else columns,
            index_col=False,
            dtype=str,
            keep_default_na=False,
            quoting=3,
            # GroupLens writes Latin-1, RecBole UTF-8.
            encoding="utf-8" if has_header else "latin-1",
        )
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be parsed: {error}") from error
    if has_header:
        frame.columns = [column.split(":")[0] for column in frame.columns]
        missing = [column for column in columns if column not in frame]
        if missing:
            raise ValueError(
                f"{file}: missing column {missing[0]!r}. Received: `columns={list(frame.columns)}`"
            )
    if not len(frame):
        raise ValueError(f"{file} has no rows")
    return frame


def _check_widths(file: str, content: bytes, separator: bytes, width: int | None) -> None:
    """Refuse a line of more or fewer columns than the header, which pandas would fill or cut."""
    widths = [line.count(separator) + 1 for line in content.split(b"\n") if line.strip()]
    expected = widths[0] if width is None else width
    for number, found in enumerate(widths, start=1):
        if found != expected:
            raise ValueError(
                f"{file}, line {number}: expected {expected} columns. Received: {found}"
            )


def _numbers(file: str, column: str, values: pd.Series, first: int) -> np.ndarray:
    numbers = pd.to_numeric(values, errors="coerce")
    _check(file, column, np.isfinite(numbers), "a finite number", first, values)
    return numbers.to_numpy(np.float64)


def _integers(file: str, column: str, values: pd.Series, first: int) -> np.ndarray:
    numbers = _numbers(file, column, values, first)
    good = (numbers >= 0) & (numbers == np.floor(numbers))
    _check(file, column, good, "an integer of 0 or more", first, values)
    return numbers.astype(np.int64)


def _check(file: str, column: str, good, expected: str, first: int, values=None) -> None:
    good = np.asarray(good, bool)
    if good.all():
        return
    row = int(np.argmin(good))
    received = "" if values is None else f". Received: `value={values.iloc[row]!r}`"
    raise ValueError(
        f"{file}, column {column!r}, line {row + first}: expected {expected}{received}"
    )
