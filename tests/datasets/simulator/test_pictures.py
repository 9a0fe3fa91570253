import dataclasses
import io
import shutil

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats
from scipy.spatial import distance

import ctr_keras as ck
from ctr_keras.datasets import search_pairs
from ctr_keras.datasets.simulator import PicturesConfig, World, WorldConfig, picture_looks, pictures
from ctr_keras.datasets.simulator.picture_looks import Views, draw, looks_of
from ctr_keras.datasets.simulator.picture_texts import titles_of
from ctr_keras.pretraining import ContrastiveModel, ImageEncoder, pair_texts, read_pairs

WORLD = WorldConfig(items=80, categories=8, seed=3)
CONFIG = PicturesConfig(pairs=600, size=16, held_out=0.2)
LOOK = dict.fromkeys((*picture_looks.OF_CATEGORY, *picture_looks.OF_ITEM), 0.5)
RNG = np.random.default_rng(0)


def quiet(_):
    pass


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("simulated") / "data"
    return pictures.prepare(out, WORLD, CONFIG, report=quiet)


def tiny_encoder():
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, 2, activation="relu")(inputs)
    return ImageEncoder(keras.Model(inputs, keras.layers.Dense(16)(keras.layers.Flatten()(x))))


def one(view=None, size=64, **look):
    looks = {name: np.float32([value]) for name, value in {**LOOK, **look}.items()}
    shop = Views.of_shop(1).__dict__
    views = Views(**{**shop, **{n: np.float32([v]) for n, v in (view or {}).items()}})
    return draw(looks, views, size, np.random.default_rng(1))[0].astype(float)


def color(hue, light):
    return 255 * light * (0.5 + 0.5 * np.cos(2 * np.pi * (0.8 * hue + np.array([0, 1, 2]) / 3)))


def test_alike_items_look_alike():
    world = World(WorldConfig(items=300, categories=20, seed=1))
    looks = np.stack(list(looks_of(world, 0.2).values()), axis=1)
    assert looks.shape == (300, 14) and 0 < looks.min() < 0.05 and 0.95 < looks.max() < 1
    between = [distance.pdist(x) for x in (world.item_vector, looks)]
    assert stats.spearmanr(*between)[0] > 0.6
    noisy = np.stack(list(looks_of(world, 5.0).values()), axis=1)
    assert stats.spearmanr(between[0], distance.pdist(noisy))[0] < 0.4
    again = np.stack(list(looks_of(world, 0.2).values()), axis=1)
    np.testing.assert_array_equal(looks, again)


def test_a_thing_by_hand():
    plain = {"contrast": 0, "color": 0.1, "ground": 0.9, "light": 1, "mark_color": 0.6}
    picture = one(**plain, mark_place=0, mark_size=0)
    np.testing.assert_allclose(picture[0, 0], color(0.9, 0.9), atol=0.6)
    np.testing.assert_allclose(picture[32, 32], color(0.1, 1), atol=0.6)
    extent = 0.45 + 0.25 * 0.5
    place = int(32 + 32 * 0.5 * extent)
    np.testing.assert_allclose(picture[32, place], color(0.6, 1), atol=0.6)
    # Half a turn later the mark is on the other side.
    np.testing.assert_allclose(
        one(**plain, mark_place=0.5)[32, 63 - place], color(0.6, 1), atol=0.6
    )
    # The radius of the body without petals is its extent.
    body = one(**plain, petals=0.5, depth=0)
    is_body = np.abs(body - color(0.9, 0.9)).sum(axis=2) > 50
    assert is_body.mean() == pytest.approx(np.pi * extent**2 / 4, rel=0.1)
    striped = one(**{**plain, "contrast": 1}, second_color=0.5, stripes=1, angle=0)
    assert striped[24:40, 38].std(axis=0).max() < 2 < 20 < striped[40, 28:40].std(axis=0).max()


def test_titles():
    said = {
        "size": (0, 0.5), "light": (1, 0.5), "color": (0.07, 1), "second_color": (0.5, 0),
        "stripes": (0.99, 0), "contrast": (0.9, 0.2), "petals": (0, 1), "ground": (0.79, 0.3),
    }  # fmt: skip
    looks = {name: np.float32(said.get(name, (0.5, 0.5))) for name in LOOK}
    assert titles_of(looks) == [
        "small bright red badge with two petals and narrow blue stripes on green ground",
        "lime badge with seven petals on violet ground",
    ]


def test_views():
    picture = one()
    np.testing.assert_allclose(one({"turn": np.pi / 2}), np.rot90(picture, -1), atol=1)
    np.testing.assert_allclose(one({"x": 0.25})[:, 8:], picture[:, :-8], atol=1)
    np.testing.assert_allclose(one({"y": 0.25})[8:], picture[:-8], atol=1)
    np.testing.assert_allclose(one({"light": 0.5}), picture / 2, atol=1)
    np.testing.assert_allclose(one({"ground": 0.1})[0, 0], color(0.1, 0.9), atol=0.6)
    assert (one({"grain": 12, "light": 0.5}) - picture / 2)[20:44, 20:44].std() > 5
    small = one({"zoom": 0.5}, size=128)[32:96, 32:96]
    assert np.abs(small - picture).mean() < 3  # But for the edges, which fade over pixels.


def test_probabilities_by_hand():
    world = World(WorldConfig(items=500, categories=5, seed=2))
    config = PicturesConfig(pairs=20_000, candidates=2, likeness=3.0)
    pairs = pictures._pairs(world, config)
    place = np.argsort(world.item_id)  # Of each id.
    seen, bought = (place[pairs[name] - 1] for name in ("query_item_id", "item_id"))
    np.testing.assert_array_equal(seen, pairs["place"])
    other = seen != bought
    v = world.item_vector.astype(float)
    gain = np.einsum("nd,nd->n", v[seen], v[bought] - v[seen])[other]
    expected = 1 / (1 + np.exp(-3 * gain))
    np.testing.assert_allclose(pairs["true_probability"][other], expected, rtol=1e-4)
    np.testing.assert_array_equal(world.item_category[seen], world.item_category[bought])
    is_best = pairs["true_probability"] == pairs["best_probability"]
    mean, error = pairs["best_probability"].mean(), np.sqrt(0.25 / len(pairs))
    assert abs(is_best.mean() - mean) < 4 * error and 0.6 < mean < 0.95


def test_the_folder(made):
    truth = {n: pd.read_parquet(made.folder / n / "truth.parquet") for n in made.pairs}
    seen = [set(part["query_item_id"]) for part in truth.values()]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    assert sum(made.pairs.values()) == 600 and min(made.pairs.values()) > 20
    folder = made.folder / "pictures"
    assert len(list(folder.glob("items/*.png"))) == made.items == 80
    assert len(list(folder.glob("queries/*.png"))) == 600
    batch = next(iter(read_pairs(made.folder / "test", 8, images=folder)))
    assert batch["has_negative"].numpy().all()
    first = truth["test"]["item_id"][0]
    assert batch["item_id"][0] == first
    item = (folder / "items" / f"{first}.png").read_bytes()
    assert batch["item"][0].numpy() == item
    queries, items, own = pair_texts(made.folder / "test")
    assert items[own[0]] == f"items/{first}.png" and (folder / queries[0]).is_file()
    titles, _, _ = pair_texts(made.folder / "test", query="title")
    assert len(titles) == made.pairs["test"] and all("badge" in title for title in titles)
    by_item = dict(zip(truth["test"]["item_id"], titles, strict=True))
    assert [by_item[item] for item in truth["test"]["item_id"]] == titles
    titled = next(iter(read_pairs(made.folder / "test", 8, images=folder, views="text-picture")))
    assert titled["query"][0].numpy().decode() == titles[0] and titled["item"][0].numpy() == item
    assert not titled["has_negative"].numpy().any()
    assert made.best_accuracy["test"] == pytest.approx(truth["test"]["best_probability"].mean())
    assert "likeliest item bought" in made.to_text() and made.to_dict()["items"] == 80


def test_pairs_of_pictures_without_a_negative(made, tmp_path):
    rows = {"query": ["queries/0.png"], "item": ["items/1.png"], "negative": [""]}
    rows |= {"item_id": [1], "label": [1.0]}
    ck.data.write(tmp_path / "pairs", search_pairs.SCHEMA.save(tmp_path), rows)
    images = made.folder / "pictures"
    batch = next(iter(read_pairs(tmp_path / "pairs", images=images)))
    assert batch["negative"].numpy().tolist() == [b""] and not batch["has_negative"].numpy().any()
    assert batch["query"][0].numpy() == (images / "queries/0.png").read_bytes()
    encoder = tiny_encoder()
    model = ContrastiveModel(encoder, bank_size=0)
    model.compile("sgd")
    assert model.train_step(batch)["triplet"] == 0 and np.isfinite(encoder(batch["query"])).all()


def test_two_parts_of_a_picture(tmp_path):
    height, width = 24, 40
    # A smooth one, of which each place has a color of its own.
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([10 * y, 6 * x, 120 + y - x], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "item.png")
    rows = {"query": [f"{n}.png" for n in range(6)], "item": ["item.png"] * 5 + [""]}
    rows |= {"negative": ["item.png"] + [""] * 5, "item_id": [1] * 6, "label": [1.0] * 6}
    ck.data.write(tmp_path / "pairs", search_pairs.SCHEMA.save(tmp_path), rows)
    options = {"images": tmp_path, "views": "item"}
    batch = next(iter(read_pairs(tmp_path / "pairs", seed=3, **options)))
    found = set()
    for content in [*batch["query"].numpy()[:5], *batch["item"].numpy()[:5]]:
        part = np.asarray(Image.open(io.BytesIO(content))).astype(float)
        high, wide = part.shape[:2]
        assert high * wide >= 0.2 * height * width
        errors = {
            (top, left, step): np.abs(pixels[top:, left:][:high, :wide][:, ::step] - part).mean()
            for top in range(height - high + 1)
            for left in range(width - wide + 1)
            for step in (1, -1)
        }
        place = min(errors, key=errors.__getitem__)
        assert errors[place] < 2  # As JPEG has it; a neighbour is 2.3 away.
        found.add((*place, high, wide))
    assert len(found) > 7 and {place[2] for place in found} == {1, -1}
    assert batch["query"][5] == batch["item"][5] == ""
    assert batch["negative"][0].numpy() == (tmp_path / "item.png").read_bytes()
    again = next(iter(read_pairs(tmp_path / "pairs", seed=3, **options)))
    assert again["item"].numpy().tolist() == batch["item"].numpy().tolist()
    other = next(iter(read_pairs(tmp_path / "pairs", seed=4, **options)))
    assert other["item"][0] != batch["item"][0]


def test_imitations_differ_by_the_mark(made):
    encoder = tiny_encoder()
    shares = []
    for number in range(1, 81):
        item, imitation = (
            encoder.picture((made.folder / "pictures" / name / f"{number}.png").read_bytes())
            for name in ("items", "imitations")
        )
        shares.append(np.mean(np.abs(item - imitation).max(axis=2) > 0.02))
    assert 0.01 < np.median(shares) and np.max(shares) < 0.2
    assert np.min(shares) > 0
    for count in range(2, 30):  # The mark is never the item's own, and each is taken once.
        others = pictures._others(np.random.default_rng(count), count)
        assert not np.any(others == np.arange(count)) and set(others) == set(range(count))


def test_the_same_world_has_the_same_pictures(made, tmp_path):
    again = pictures.prepare(tmp_path / "data", WORLD, CONFIG, report=quiet)
    for name in ("items/7.png", "queries/599.png", "imitations/80.png"):
        path = pictures.PICTURES + "/" + name
        assert (made.folder / path).read_bytes() == (again.folder / path).read_bytes()
    assert again.pairs == made.pairs


def test_a_second_prepare_does_nothing(made, tmp_path):
    out, lines = tmp_path / "data", []
    shutil.copytree(made.folder, out)
    before = out.stat().st_ino
    again = pictures.prepare(out, WORLD, CONFIG, report=lines.append)
    assert again == dataclasses.replace(made, folder=out)
    assert lines == [f"{out} is up to date"] and out.stat().st_ino == before
    for lost in ("pictures/queries/7.png", "pictures/items/80.png", "valid/truth.parquet"):
        (out / lost).unlink()
        pictures.prepare(out, WORLD, CONFIG, report=quiet)
        assert (out / lost).read_bytes() == (made.folder / lost).read_bytes()


def test_made_anew_with_other_settings(made, tmp_path):
    out = tmp_path / "data"
    shutil.copytree(made.folder, out)
    (out / "mine.txt").write_text("kept")
    smaller = WorldConfig(items=30, categories=3)
    pictures.prepare(out, smaller, PicturesConfig(pairs=50, size=8), report=quiet)
    assert len(list((out / "pictures").glob("items/*"))) == 30
    assert len(list((out / "pictures").glob("queries/*"))) == 50
    assert (out / "mine.txt").read_text() == "kept"


def accuracy(encoder, folder):
    queries, items, own = pair_texts(folder / "test", folder / "pictures")
    return ck.metrics.top_n_accuracy(*map(encoder.encode, (queries, items)), own=own), 1 / len(
        items
    )


def test_an_encoder_learns_what_is_alike(made):
    encoder = tiny_encoder()
    before, chance = accuracy(encoder, made.folder)
    model = ContrastiveModel(encoder, bank_size=0, triplet_weight=0)
    model.compile(keras.optimizers.Adam(5e-3))
    pairs = read_pairs(
        made.folder / "train", 32, shuffle=True, images=made.folder / pictures.PICTURES
    )
    model.fit(pairs, epochs=6, verbose=0, shuffle=False)
    after, _ = accuracy(encoder, made.folder)
    assert after > before + 0.1 and after > 3 * chance


def test_bad_arguments(tmp_path):
    for name, value in {"pairs": 0, "size": 1.5, "noise": -1, "held_out": 0.5}.items():
        with pytest.raises(ValueError, match=f"Received: `{name}={value}`"):
            PicturesConfig(**{name: value})
    with pytest.raises(ValueError, match="split would be empty"):
        pictures.prepare(tmp_path / "x", WORLD, PicturesConfig(pairs=2, size=8), report=quiet)
