import zipfile

import numpy as np
import pandas as pd
import pytest

from ctr_keras import data
from ctr_keras.datasets import search_pairs
from ctr_keras.pretraining import pair_texts, read_pairs

ROWS = [
    ("bracket", "Angle Bracket", 1, 3.0),
    ("bracket", "Shelf Bracket", 2, 2.67),
    ("bracket", "Paint", 3, 1.0),
    ("bracket", "Brush", 4, 1.33),
    ("bracket", "Screw", 5, 2.33),
    ("bracket", "L Bracket", 6, 2.67),
    ("crème", "Crème Paint", 7, 3.0),
]


def quiet(line):
    pass


def frame(rows=ROWS):
    columns = ["search_term", "product_title", "product_uid", "relevance"]
    return pd.DataFrame(rows, columns=columns)


def many(path, queries=60):
    rows = [(f"q{n}", f"item {n} {m}", 10 * n + m, 3.0 - m) for n in range(queries)
            for m in range(3)]  # fmt: skip
    frame(rows).to_csv(path, index=False)
    return path


def test_pairs_by_hand():
    pairs = search_pairs._pairs(frame_by_role(), 2.67, 1.67)
    found = pairs[["query", "item", "negative"]].to_numpy().tolist()
    assert found == [
        ["bracket", "Angle Bracket", "Paint"],
        ["bracket", "Shelf Bracket", "Brush"],
        ["bracket", "L Bracket", "Paint"],
        ["crème", "Crème Paint", ""],
    ]


def test_what_fits_a_query_is_no_hard_negative_of_it():
    rows = [
        ("bracket", "Angle Bracket", 1, 3.0),
        ("bracket", "Angle Bracket", 1, 1.0),  # Judged twice.
        ("bracket", "Angle Bracket", 2, 1.0),  # Another product of the same text.
        ("bracket", "Bracket, Angle", 1, 1.0),  # The same product, of another text.
        ("bracket", "L Bracket", 3, 3.0),
        ("bracket", "Paint", 4, 1.0),
        ("paint", "Paint", 4, 3.0),
        ("paint", "Angle Bracket", 1, 1.0),
        ("oak", "Table", 5, 3.0),
        ("oak", "Table", 5, 1.0),
    ]
    pairs = search_pairs._pairs(frame_by_role(rows), 2.67, 1.67)
    found = pairs[["query", "item", "negative"]].to_numpy().tolist()
    assert found == [
        ["bracket", "Angle Bracket", "Paint"],
        ["bracket", "L Bracket", "Paint"],
        ["paint", "Paint", "Angle Bracket"],
        ["oak", "Table", ""],
    ]


def frame_by_role(rows=ROWS):
    return frame(rows).set_axis(["query", "item", "item_id", "relevance"], axis=1)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("packed", [False, True])
def test_files_are_read(tmp_path, encoding, packed):
    path = tmp_path / "train.csv"
    frame().to_csv(path, index=False, encoding=encoding)
    if packed:
        with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
            archive.write(path, "train.csv")
        path = tmp_path / "train.zip"
    names = dict(zip(frame_by_role(), frame(), strict=True))
    pd.testing.assert_frame_equal(search_pairs._read(path, names), frame_by_role())


def test_queries_are_texts_whatever_they_look_like(tmp_path):
    path = tmp_path / "train.csv"
    queries = ["null", "NA", "None", "nan", "007", "7", "1e3"]
    rows = [(query, query, 2**60 + n, 3) for n, query in enumerate(queries)]
    frame(rows).to_csv(path, index=False)
    names = dict(zip(frame_by_role(), frame(), strict=True))
    found = search_pairs._read(path, names)
    assert found["query"].tolist() == queries and found["item"].tolist() == queries
    assert found["item_id"].tolist() == [2**60 + n for n in range(7)]
    path.write_text(path.read_text().replace(",3", ".0,3"))
    assert search_pairs._read(path, names)["item_id"].equals(found["item_id"])


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("product_uid", "12.7", "row 3, column 'product_uid': expected an integer"),
        ("product_uid", "", "row 3, column 'product_uid': expected an integer"),
        ("product_uid", str(2**63), "row 3, column 'product_uid': expected an integer"),
        ("product_uid", "inf", "row 3, column 'product_uid': expected an integer"),
        ("relevance", "high", "row 3, column 'relevance': expected a number.*`value='high'`"),
        ("relevance", "inf", "row 3, column 'relevance': expected a number"),
        ("search_term", " ", "row 3, column 'search_term': expected a text"),
    ],
)
def test_bad_values_are_named_with_their_row(tmp_path, name, value, message):
    path = tmp_path / "train.csv"
    rows = frame().astype(object)
    rows.loc[2, name] = value
    rows.to_csv(path, index=False)
    with pytest.raises(ValueError, match=message):
        search_pairs._read(path, dict(zip(frame_by_role(), frame(), strict=True)))


def test_queries_are_held_out_whole(tmp_path):
    counts = search_pairs.prepare(
        tmp_path / "out", many(tmp_path / "rows.csv"), held_out=0.2, report=quiet
    )
    assert sum(counts.values()) == 60
    queries = {}
    for name, count in counts.items():
        batches = list(read_pairs(tmp_path / "out" / name, 16).as_numpy_iterator())
        rows = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
        assert len(rows["query"]) == count
        queries[name] = set(rows["query"])
        assert (rows["has_negative"]).all()
        for query, item, negative, number in zip(
            rows["query"], rows["item"], rows["negative"], rows["item_id"], strict=True
        ):
            n = query.decode()[1:]
            assert item.decode() == f"item {n} 0" and number == 10 * int(n)
            assert negative.decode() in (f"item {n} 2",)
    assert not queries["train"] & queries["test"] and not queries["valid"] & queries["test"]
    texts, items, own = pair_texts(tmp_path / "out/test")
    assert [items[place] for place in own] == [f"item {q[1:]} 0" for q in texts]


def test_a_second_prepare_does_nothing(tmp_path):
    raw, out, lines = many(tmp_path / "rows.csv"), tmp_path / "out", []

    def prepare(**kwargs):
        lines.clear()
        return search_pairs.prepare(out, raw, **{"held_out": 0.2, **kwargs}, report=lines.append)

    counts, before = prepare(), out.stat().st_ino
    assert prepare() == counts and lines == [f"{out} is up to date"]
    assert out.stat().st_ino == before
    next((out / "test").glob("*.tfrecord")).unlink()
    assert prepare() == counts and len(lines) == 3
    (out / "schema.json").unlink()
    assert prepare() == counts and len(lines) == 3
    assert prepare(held_out=0.3) != counts and len(lines) == 3
    many(raw, queries=61)
    assert sum(prepare(held_out=0.3).values()) == 61


@pytest.mark.parametrize(
    "change, message",
    [
        ({"relevance": "score"}, "has no column 'score'"),
        ({"positive_from": 1.0}, "`negative_up_to=1.67`, `positive_from=1.0`"),
        ({"held_out": 0.5}, "`held_out=0.5`"),
        ({"item_id": "product_title"}, "row 1, column 'product_title': expected an integer"),
    ],
)
def test_bad_arguments(tmp_path, change, message):
    path = many(tmp_path / "rows.csv")
    with pytest.raises(ValueError, match=message):
        search_pairs.prepare(tmp_path / "out", path, report=quiet, **change)
    assert not (tmp_path / "out").exists()


def test_raw_files_are_not_replaced_by_what_is_made_of_them(tmp_path):
    (tmp_path / "out/train").mkdir(parents=True)
    path = many(tmp_path / "out/train/rows.csv")
    with pytest.raises(ValueError, match="choose another `out`. Received: .*`raw="):
        search_pairs.prepare(tmp_path / "out", path, report=quiet)
    assert path.is_file()


def test_bad_rows(tmp_path):
    path = tmp_path / "rows.csv"
    frame([*ROWS, (" ", "x", 8, 3.0)]).to_csv(path, index=False)
    with pytest.raises(ValueError, match="row 8, column 'search_term': expected a text"):
        search_pairs.prepare(tmp_path / "out", path, report=quiet)
    frame(ROWS[:3]).to_csv(path, index=False)
    with pytest.raises(
        ValueError, match="split would be empty. Received: `held_out=0.1` of 2 pairs"
    ):
        search_pairs.prepare(tmp_path / "out", path, report=quiet)


def test_two_views_of_an_item(tmp_path):
    items = ["oak table for four", "lamp", "  two   words "]
    rows = {
        "query": ["q"] * 3, "item": items, "negative": ["n"] * 3, "item_id": [1, 2, 3],
        "label": [1.0] * 3,
    }  # fmt: skip
    data.write(tmp_path / "train", search_pairs.SCHEMA.save(tmp_path), rows)
    (batch,) = read_pairs(tmp_path / "train", views="item").as_numpy_iterator()
    assert batch["query"].tolist() == [b"oak for", b"lamp", b"two"]
    assert batch["item"].tolist() == [b"table four", b"lamp", b"words"]
    with pytest.raises(ValueError, match="`views='items'`"):
        read_pairs(tmp_path / "train", views="items")


def test_rows_are_no_pairs(small_data):
    with pytest.raises(ValueError, match="Rows are there, not pairs, .*`ctr-keras prepare pairs`"):
        read_pairs(small_data)
