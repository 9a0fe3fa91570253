import tarfile

import pandas as pd
import pytest
import tensorflow as tf
from typer.testing import CliRunner

import ctr_keras as ck
from ctr_keras import cli
from ctr_keras.data import read
from ctr_keras.datasets import titled_pictures
from ctr_keras.encoding import group_key

IDS = list(range(2, 42))


@pytest.fixture
def items(tmp_path):
    """Forty items, of which 3 has no title and 4 and 5 no picture, and a tar of pictures."""
    schema = ck.Schema(
        [
            ck.Feature("item_id", "item", vocabulary=ck.Vocabulary.of_size(50)),
            ck.Feature("label", "label", kind="number"),
        ]
    ).save(tmp_path / "items")
    ck.data.write(tmp_path / "items/train", schema, {"item_id": [2], "label": [1.0]})
    titles = ["  " if n == 3 else f"film {n}" for n in IDS]
    table = pd.DataFrame({"item_id": IDS, "title": titles, "empty": [None] * len(IDS)})
    table.astype({"empty": "string"}).to_parquet(tmp_path / "items/items.parquet")
    with tarfile.open(tmp_path / "posters.tar", "w") as archive:
        for n in IDS:
            path = tmp_path / f"{n}.jpg"
            path.write_bytes(b"picture %d" % n)
            if n not in (4, 5):
                archive.add(path, f"posters/{n}.jpg")
    return tmp_path


def test_a_row_an_item_that_has_both(items):
    lines = []
    out = items / "data"
    counts = titled_pictures.prepare(
        out, items / "items", items / "posters.tar", held_out=0.2, report=lines.append
    )
    assert lines[:2] == [
        "1 of 40 items have no title and are left out, such as 3",
        "2 of 40 items have no picture and are left out, such as 4, 5",
    ]
    assert sum(counts.values()) == 37 and min(counts.values()) > 0
    schema, found = ck.Schema.load(out), {}
    for split, count in counts.items():
        rows, _ = next(iter(read(out / split, schema, 100)))
        assert len(rows["item_id"]) == count and not any(rows["query"].numpy())
        for number, title, item in zip(rows["item_id"], rows["title"], rows["item"], strict=True):
            found[int(number)] = title.numpy().decode()
            content = (out / "pictures" / item.numpy().decode()).read_bytes()
            assert content == b"picture %d" % number
    assert found == {n: f"film {n}" for n in IDS if n not in (3, 4, 5)}
    again = titled_pictures.prepare(
        out, items / "items", items / "posters.tar", held_out=0.2, report=lambda line: None
    )
    assert again == counts


@pytest.mark.parametrize("from_folder", [True, False])
def test_a_second_prepare_does_nothing(items, from_folder):
    out, images, lines = items / "data", items / "posters.tar", []
    if from_folder:
        images = items / "photos"
        images.mkdir()
        for n in IDS:
            (items / f"{n}.jpg").rename(images / f"{n}.jpg")

    def is_made():
        found = out.stat().st_ino if out.exists() else None
        lines.clear()
        counts.append(
            titled_pictures.prepare(out, items / "items", images, held_out=0.2, report=lines.append)
        )
        assert counts[-1] == counts[0]
        assert (out / "pictures/2.jpg").read_bytes() == content[0]
        return out.stat().st_ino != found

    counts, content = [], [b"picture 2"]
    assert is_made()
    assert not is_made() and lines[-1] == f"{out} is up to date"
    for damage in (
        lambda: (out / "pictures/2.jpg").unlink(),
        lambda: (out / "pictures/2.jpg").write_bytes(b"pictur"),
        lambda: next((out / "valid").glob("*.tfrecord")).unlink(),
    ):
        damage()
        assert is_made() and not is_made()
    if from_folder:
        content[0] = b"another 2"
        (images / "2.jpg").write_bytes(content[0])
        assert is_made() and not is_made()


def test_what_it_is_made_of_stays(items):
    folder = items / "items/pictures"
    folder.mkdir()
    (items / "2.jpg").rename(folder / "2.jpg")
    for data, images, name in (
        (items / "items/../items", items / "posters.tar", "data"),
        (items / "other", folder, "images"),
    ):
        with pytest.raises(ValueError, match=f"choose another `out`. Received: .*`{name}="):
            titled_pictures.prepare(items / "items", data, images)
    assert (items / "items/items.parquet").is_file() and (folder / "2.jpg").is_file()
    quiet = {"held_out": 0.2, "report": lambda line: None}
    titled_pictures.prepare(items / "items/titled", items / "items", items / "posters.tar", **quiet)
    assert (items / "items/items.parquet").is_file()


def test_items_whose_ids_are_strings(items):
    hashed = ck.Vocabulary.hashing(50)
    features = [ck.Feature("asin", "item", vocabulary=hashed, dtype="string")]
    ck.Schema([*features, ck.Feature("label", "label", kind="number")]).save(items / "items")
    ids = [f"../B{n:03}/x" for n in IDS]
    paths = [f"posters/{n}.jpg" for n in IDS]
    table = pd.DataFrame({"asin": ids, "title": [f"film {n}" for n in IDS], "path": paths})
    table.to_parquet(items / "items/items.parquet")
    out, lines = items / "data", []
    counts = titled_pictures.prepare(
        out, items / "items", items / "posters.tar", column="path", held_out=0.2,
        report=lines.append,
    )  # fmt: skip
    assert lines[0].endswith("have no picture and are left out, such as ../B004/x, ../B005/x")
    assert sum(counts.values()) == 38 and len(list((out / "pictures").iterdir())) == 38
    for split in counts:
        rows, _ = next(iter(read(out / split, batch_size=100)))
        for number, title, item in zip(rows["item_id"], rows["title"], rows["item"], strict=True):
            n = int(title.numpy().decode().removeprefix("film "))
            assert number == group_key(tf.constant(f"../B{n:03}/x"))
            assert item == f"{number}.jpg"
            assert (out / "pictures" / f"{number}.jpg").read_bytes() == b"picture %d" % n


def test_command(items):
    result = CliRunner().invoke(
        cli.app,
        ["prepare", "titled-pictures", "--data", str(items / "items"), "--images",
         str(items / "posters.tar"), "--out", str(items / "data")],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert (items / "data/test/manifest.json").is_file()


def test_bad_arguments(items):
    def prepare(**kwargs):
        arguments = {"images": items / "posters.tar", "report": lambda line: None, **kwargs}
        titled_pictures.prepare(items / "data", items / "items", **arguments)

    with pytest.raises(ValueError, match="`held_out=0.5`"):
        prepare(held_out=0.5)
    with pytest.raises(ValueError, match="`text='name'`"):
        prepare(text="name")
    with pytest.raises(ValueError, match="No item has a title and a picture.*`text='empty'`"):
        prepare(text="empty")
    (items / "none").mkdir()
    with pytest.raises(ValueError, match="No item has a title and a picture"):
        prepare(images=items / "none")
    with pytest.raises(ValueError, match="split would be empty"):
        prepare(held_out=0.0001)
    assert not (items / "data").exists()
