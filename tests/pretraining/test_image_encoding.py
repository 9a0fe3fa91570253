import json
import tarfile
import zipfile

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from typer.testing import CliRunner

import ctr_keras as ck
from ctr_keras import cli
from ctr_keras.data import VectorTable
from ctr_keras.pretraining import ImageEncoder, image_encoding
from tests.pretraining.image_bytes import plain

IDS = [2, 3, 5, 8, 13]
PICTURES = {n: plain((40 * k, 255 - 40 * k, 99)) for k, n in enumerate(IDS)}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder") / "encoder.keras"
    pictures = keras.Input((4, 4, 3))
    features = keras.layers.Dense(6)(keras.layers.Flatten()(pictures))
    ImageEncoder(keras.Model(pictures, features)).save(path)
    return path


@pytest.fixture
def data(tmp_path):
    """Prepared rows of five items, of which item 8 has no picture, and a folder of pictures."""
    features = [
        ck.Feature("item_id", "item", vocabulary=ck.Vocabulary.of_size(20)),
        ck.Feature("history_item_id", "history", length=3, shares="item_id"),
        ck.Feature("label", "label", kind="number"),
    ]
    folder = tmp_path / "data"
    schema = ck.Schema(features).save(folder)
    rows = {"item_id": IDS, "history_item_id": [[8, 3]] * 5, "label": [0, 1, 0, 1, 0]}
    ck.data.write(folder / "train", schema, rows)
    files = [f"shop/{n}.png" if n != 8 else None for n in IDS]
    items = pd.DataFrame({"item_id": IDS, "picture": files})
    items.to_parquet(folder / "items.parquet", index=False)
    for n, name in zip(IDS, files, strict=True):
        if name:
            (tmp_path / "pictures" / "shop").mkdir(parents=True, exist_ok=True)
            (tmp_path / "pictures" / name).write_bytes(PICTURES[n])
    return folder


@pytest.fixture
def pictures(data):
    return data.parent / "pictures"


def encode(data, images, encoder, **kwargs):
    lines = kwargs.pop("lines", [])
    return ck.pretraining.encode_item_images(
        data, images, encoder, progress=False, report=lines.append, **kwargs
    )


def packed(pictures, kind):
    path = pictures.parent / f"pictures.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in pictures.rglob("*.png"):
                archive.write(file, file.relative_to(pictures))
    elif kind != "folder":
        with tarfile.open(path, f"w:{kind}" if kind == "gz" else "w") as archive:
            archive.add(pictures, ".")
    return pictures if kind == "folder" else path


@pytest.mark.parametrize("kind", ["folder", "tar", "gz", "zip"])
def test_items_by_their_pictures(data, pictures, encoder, kind):
    lines = []
    table = encode(data, packed(pictures, kind), encoder, batch_size=3, lines=lines)
    assert lines == ["1 of 5 items have no picture and get no vector, such as 8"]
    expected = ImageEncoder.from_preset(encoder).encode([PICTURES[2], PICTURES[13]])
    found = table.take(table.rows_of(tf.constant([2, 13], tf.int64)))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    schema = ck.Schema.load(data).with_item_vectors(6)
    x, _ = next(iter(ck.data.read(data / "train", schema, 5)))
    vectors = x["item_id_vector"].numpy()
    np.testing.assert_allclose(vectors[[0, 4]], expected, atol=1e-5)
    np.testing.assert_array_equal(vectors.any(axis=1), [True, True, True, False, True])
    np.testing.assert_array_equal(x["history_item_id_vector"][0, 0], np.zeros(6))


def test_a_column_that_names_the_pictures(data, pictures, encoder):
    by_id = encode(data, pictures, encoder, out=data / "by_id")
    by_name = encode(data, packed(pictures, "tar"), encoder, column="picture")
    assert len(by_id) == len(by_name) == 5  # And that of what has none.
    np.testing.assert_allclose(by_id.vectors, by_name.vectors, atol=1e-6)
    with pytest.raises(ValueError, match=r"`column` must be a text.*\['picture'\]"):
        encode(data, pictures, encoder, column="item_id")
    with pytest.raises(ValueError, match="holds vectors of another encoder"):
        encode(data, pictures, encoder)


def test_corrupt_pictures(data, pictures, encoder):
    bad = pictures / "shop" / "5.png"
    bad.write_bytes(PICTURES[5][:30])
    (pictures / "shop" / "3.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"shop/3.png is empty; `skip_corrupt`"):
        encode(data, pictures, encoder, batch_size=2)
    lines = []
    table = encode(data, pictures, encoder, skip_corrupt=True, lines=lines)
    assert "2 of 4 images cannot be decoded: " in lines[1] and str(bad) in lines[1]
    assert table.lacks(IDS).tolist() == [False, True, True, True, False]
    bad.write_bytes(PICTURES[5])  # Mended: the next run makes what is missing.
    assert not encode(data, pictures, encoder, skip_corrupt=True).lacks([5]).any()


def test_an_interrupted_job_goes_on(data, pictures, encoder, monkeypatch):
    plain_encode, calls = ImageEncoder.try_encode, []

    def cut(self, images):
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain_encode(self, images)

    monkeypatch.setattr(image_encoding, "_SAVE_EVERY", 1)
    monkeypatch.setattr(ImageEncoder, "try_encode", cut)
    with pytest.raises(KeyboardInterrupt):
        encode(data, pictures, encoder, batch_size=1)
    assert len(VectorTable.of_items(data)) == 1 + 2
    assert len(encode(data, pictures, encoder, batch_size=1)) == 1 + 4 and len(calls) == 3 + 2


def test_bad_arguments(data, pictures, encoder):
    with pytest.raises(ValueError, match="must be a folder, a tar or a zip"):
        encode(data, data / "items.parquet", encoder)
    (pictures / "2.jpg").write_bytes(PICTURES[2])
    with pytest.raises(ValueError, match=r"Two pictures are of '2': .*2.jpg and .*shop/2.png"):
        encode(data, pictures, encoder)
    with pytest.raises(ValueError, match="No item has a picture"):
        encode(data, data, encoder)
    assert not (data / "item_vectors").exists()


def test_on_the_command_line(data, pictures, encoder):
    def run(*options):
        arguments = ["encode", "--data", str(data), "--encoder", str(encoder), *options]
        return CliRunner().invoke(cli.app, arguments)

    done = run("--items", "--images", str(pictures), "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["keys"] == 5
    for wrong in (
        ["--images", str(pictures)],
        ["--items", "--images", str(pictures), "--text", "picture"],
        ["--items", "--text", "picture", "--skip-corrupt"],
        ["--items"],
    ):
        assert run(*wrong).exit_code == 2
