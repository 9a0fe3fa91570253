"""Small raw MovieLens files in every format, of the same content."""

import pathlib

import numpy as np

GENRES = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy "
    "Film-Noir Horror Musical Mystery Romance Sci-Fi Thriller War Western"
).split()
TITLES = ["Toy Story", "Été, L'", "GoldenEye", "Twelve Monkeys", "Mr. Smith", "Lone Star", "M"]
MOVIES = [
    (item, title, 1990 + item, [GENRES[item], GENRES[item + 3]])
    for item, title in enumerate(TITLES, start=1)
]
USERS = [(1, 24, "M", "writer"), (2, 53, "F", "other"), (3, 17, "F", "student"), (4, 35, "M", "x")]


def ratings(rows: int = 120, seed: int = 0) -> list[tuple[int, int, int, int]]:
    """`(user, item, rating, time)`; user 4 and item 7 appear only at the end."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(1000, 1060, rows))
    table = [
        (int(rng.integers(1, 4)), int(rng.integers(1, 7)), int(rng.integers(1, 6)), int(time))
        for time in times
    ]
    table[-4:] = [(4, 7, 5, 2000), (4, 1, 3, 2001), (1, 7, 4, 2002), (4, 2, 4, 2003)]
    return [table[row] for row in rng.permutation(rows)]


def write_100k(folder: pathlib.Path, rows: list) -> pathlib.Path:
    """GroupLens' u.data, u.item and u.user."""
    folder.mkdir(parents=True, exist_ok=True)
    _text(folder / "u.data", ("\t".join(map(str, row)) for row in rows))
    items = []
    for item, title, year, genres in MOVIES:
        flags = "|".join(str(int(name in genres)) for name in GENRES)
        items.append(f"{item}|{title} ({year})|01-Jan-{year}||http://example.org|{flags}")
    _text(folder / "u.item", items, "latin-1")
    _text(folder / "u.user", (f"{u}|{a}|{g}|{o}|12345" for u, a, g, o in USERS))
    return folder


def write_1m(folder: pathlib.Path, rows: list) -> pathlib.Path:
    """GroupLens' ratings.dat, movies.dat and users.dat."""
    folder.mkdir(parents=True, exist_ok=True)
    _text(folder / "ratings.dat", ("::".join(map(str, row)) for row in rows))
    items = (f"{item}::{t} ({year})::{'|'.join(genres)}" for item, t, year, genres in MOVIES)
    _text(folder / "movies.dat", items, "latin-1")
    _text(folder / "users.dat", (f"{u}::{g}::{a}::{o}::12345" for u, a, g, o in USERS))
    return folder


def write_atomic_format(
    folder: pathlib.Path, rows: list, titles_as_ids: bool = False, end: str = "\n"
) -> pathlib.Path:
    """RecBole's .inter, .item and .user."""
    folder.mkdir(parents=True, exist_ok=True)

    def name(item: int) -> str:
        return f"{MOVIES[item - 1][1]} ({MOVIES[item - 1][2]})" if titles_as_ids else str(item)

    prefix = "1m_" if titles_as_ids else ""
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    lines = [f"{prefix}{u}\t{name(i)}\t{r}\t{t}" for u, i, r, t in rows]
    _text(folder / "ml-x.inter", [header, *lines], end=end)
    header = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"
    lines = [f"{name(i)}\t{t}\t{y}\t{' '.join(g)}" for i, t, y, g in MOVIES]
    _text(folder / "ml-x.item", [header, *lines], end=end)
    header = "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token"
    lines = [f"{prefix}{u}\t{a}\t{g}\t{o}\t12345" for u, a, g, o in USERS]
    _text(folder / "ml-x.user", [header, *lines], end=end)
    return folder


def _text(path: pathlib.Path, lines, encoding: str = "utf-8", end: str = "\n") -> None:
    path.write_bytes("".join(f"{line}{end}" for line in lines).encode(encoding))
