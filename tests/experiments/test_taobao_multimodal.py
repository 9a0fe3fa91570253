import dataclasses

import numpy as np
import pandas as pd
import pytest

from ctr_keras import data as ctr_data
from ctr_keras.datasets import simulator
from ctr_keras.experiments import taobao_multimodal
from ctr_keras.experiments.encoder_comparison import EncoderComparison
from ctr_keras.experiments.multimodal_figures import epochs_figure, frequency_figure
from ctr_keras.experiments.runs import Outcome
from ctr_keras.schema import Feature, Schema, Vocabulary
from tests.pretraining import tiny_bert, tiny_pairs
from tests.pretraining.image_bytes import plain

TINY = taobao_multimodal.Settings(
    seeds=1, epochs=1, base="DNN", embedding_dim=2, units=(4,), make_units=(4,),
    make_projection=None, make_epochs=1, make_sweep=(0, 1), curve_epochs=2, item_groups=3,
    scl_layers=1, scl_epochs=1, max_tokens=9, bank_size=20,
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny_data(tmp_path_factory):
    """Users click what has the vector of their last click."""
    folder = tmp_path_factory.mktemp("tiny")
    items = Vocabulary.of_size(20)
    schema = Schema(
        [
            Feature("user_id", "user", vocabulary=Vocabulary.of_size(20)),
            Feature("item_id", "item", vocabulary=items),
            Feature("history_item_id", "history", length=4, shares="item_id"),
            Feature("group", "group"),
            Feature("label", "label", kind="number"),
        ]
    ).save(folder)
    for seed, name in enumerate(("train", "valid", "test")):
        rng = np.random.default_rng(seed)
        user, item = (rng.integers(2, 20, 300) for _ in range(2))
        past = [rng.integers(2, 20, 3).tolist() for _ in range(300)]
        label = [float(p[-1] % 3 == i % 3) for p, i in zip(past, item, strict=True)]
        ctr_data.write(
            folder / name, schema,
            {"user_id": user, "item_id": item, "history_item_id": past, "group": user,
             "label": label},
        )  # fmt: skip
    pd.DataFrame({"item_id": range(2, 20), "title": ["tea", "coffee", "green tea"] * 6}).to_parquet(
        folder / "items.parquet"
    )
    table = ctr_data.VectorTable.create(folder / "item_vectors", {"encoder": "by hand"}, 3)
    table.extended(np.arange(2, 20), np.eye(3, dtype=np.float32)[np.arange(2, 20) % 3])
    return folder


def options_of(base):
    settings = taobao_multimodal.Settings(base=base)
    return {model: settings.options(model) for model in (base, "SimTier", "SimTierMAKE")}


def test_all_methods_share_the_base():
    found = options_of("DIN")
    assert found["SimTier"]["base_options"] == found["SimTierMAKE"]["base_options"] == found["DIN"]
    assert found["SimTierMAKE"]["extractor_epochs"] == 20 and not found["SimTierMAKE"]["joint"]


def test_a_base_without_layers():
    assert options_of("FM")["SimTier"]["base_options"] == {"embedding_dim": 16}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Keeps what one test trained for the others."""
    return tmp_path_factory.mktemp("out")


@pytest.fixture
def tiny(tiny_data, out):
    lines = []
    reproduction = taobao_multimodal.Reproduction(tiny_data, out, TINY, report=lines.append)
    return reproduction, lines


def test_table_3(tiny, monkeypatch):
    methods = {name: taobao_multimodal.METHODS[name] for name in ("SimTier", "SimTier + MAKE")}
    monkeypatch.setattr(taobao_multimodal, "METHODS", methods)  # Each takes seconds.
    reproduction, lines = tiny
    table = reproduction.table("3")
    assert lines[0].startswith("3 trainings")
    lines = {line["label"]: line for line in table.to_dict()["methods"]}
    base, tier = lines["ids alone"], lines["SimTier"]
    assert tier["gain"] == pytest.approx(tier["auc"] - base["auc"])
    assert tier["gauc_gain"] == pytest.approx(tier["gauc"] - base["gauc"])
    assert "GAUC gain" in table.to_text() and "AUC gain" in table.to_text()
    # The same trainings make the figure.
    figure = reproduction.figure("6b")
    assert len(figure.to_dict()["groups"]) == 3


def test_figure_6c(tiny, tmp_path):
    reproduction, lines = tiny
    figure = reproduction.figure("6c")
    assert lines[0].startswith("3 trainings")
    labels = [line["label"] for line in figure.to_dict()["methods"]]
    assert labels == ["ids alone", "0 epochs", "1 epochs"]
    figure.save(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 0


def outcome(history=(), **by_frequency):
    return Outcome({}, 1, 1, None, 1, 1, None, by_frequency=by_frequency, history=list(history))


def only_scl(monkeypatch):
    """Each encoder takes seconds."""
    monkeypatch.setattr(taobao_multimodal, "ENCODERS", {"SCL": {}})
    monkeypatch.setattr(taobao_multimodal, "ON_ITEMS", {})


def test_table_2_and_figure_6a_of_pictures(tiny, out, tmp_path, monkeypatch):
    only_scl(monkeypatch)
    tiny_bert.write(tmp_path / "bert")
    made = dict(taobao_multimodal.ON_TITLES)
    (name,) = made
    made[name] |= {"text_encoder": str(tmp_path / "bert")}
    monkeypatch.setattr(taobao_multimodal, "ON_TITLES", made)
    world = simulator.WorldConfig(users=10, items=60, categories=4, seed=1)
    simulator.pictures.prepare(
        tmp_path / "pairs", world, simulator.PicturesConfig(pairs=160, size=16),
        report=lambda line: None,
    )  # fmt: skip
    reproduction, lines = tiny
    reproduction = dataclasses.replace(
        reproduction, pairs=tmp_path / "pairs", images=tmp_path / "pairs/pictures"
    )
    table = reproduction.table("2")
    assert list(table.accuracies) == ["untrained", "tuned on titles and pictures", "SCL"]
    for (found,) in table.accuracies.values():
        assert 0 <= found["acc_1"] <= found["acc_5"] <= 1
    # Where the pictures lie tells nothing.
    (tmp_path / "pairs/pictures").rename(tmp_path / "moved")
    again = dataclasses.replace(reproduction, images=tmp_path / "moved")
    assert again.table("2").accuracies == table.accuracies
    with pytest.raises(ValueError, match="`item_images=None`"):
        again.figure("6a")
    figure = dataclasses.replace(again, item_images=tmp_path / "moved/items").figure("6a")
    content = figure.to_dict()
    made = "tuned on titles and pictures"
    assert [line["label"] for line in content["methods"]] == ["ids alone", made, "SCL"]
    assert content["accuracies"]["SCL"] == table.accuracies["SCL"][0]["acc_1"]
    assert content["methods"][1]["auc"] != content["methods"][2]["auc"]

    def vectors():
        return {path.name for path in (out / "encoded").iterdir()}

    made = vectors()
    (tmp_path / "moved/items").rename(tmp_path / "items")
    (tmp_path / "moved/items").symlink_to(tmp_path / "items")
    lines.clear()
    dataclasses.replace(again, item_images=tmp_path / "items").figure("6a")
    assert vectors() == made and [line.split()[0] for line in lines] == ["2", "3"]
    # What they show does.
    (tmp_path / "items/2.png").write_bytes(plain((1, 2, 3)))
    lines.clear()
    dataclasses.replace(again, item_images=tmp_path / "items").figure("6a")
    assert len(vectors() - made) == 2 and lines[0] == "2 trainings, 0 of them done before"


def test_table_2_and_figure_6a(tiny, out, tmp_path, monkeypatch):
    only_scl(monkeypatch)
    reproduction, lines = tiny
    with pytest.raises(ValueError, match="`pairs=None`"):
        reproduction.table("2")
    pairs = tiny_pairs.write(tmp_path)
    reproduction = dataclasses.replace(
        reproduction,
        pairs=pairs / "data",
        settings=dataclasses.replace(TINY, encoder=str(pairs / "bert")),
    )
    table = reproduction.table("2")
    assert lines[0] == "1 trainings, 0 of them done before"
    assert list(table.accuracies) == ["generic, as it is", "SCL"]
    for (found,) in table.accuracies.values():
        assert 0 <= found["acc_1"] <= found["acc_5"] <= 1
    # The encoders of the table stay, and the rankers differ by their vectors alone.
    figure = reproduction.figure("6a")
    assert lines[2] == "1 trainings, 1 of them done before"
    assert lines[3].startswith("3 trainings")
    content = figure.to_dict()
    assert content["accuracies"]["SCL"] == table.accuracies["SCL"][0]["acc_1"]
    tables = [ctr_data.VectorTable.of_items(path) for path in (out / "encoded").iterdir()]
    assert len({table.encoder["sha256"] for table in tables if "text" in table.encoder}) == 2
    figure.save(tmp_path / "plot.svg")


def test_encoder_comparison():
    found = {
        "generic": [{"acc_1": 0.2, "acc_5": 0.4}] * 2,
        "SCL": [{"acc_1": 0.5, "acc_5": 0.8}, {"acc_1": 0.7, "acc_5": 0.9}],
    }
    table = EncoderComparison("t", found, "SCL")
    line = table.to_dict()["encoders"]["generic"]
    assert line["acc_1_gain"] == pytest.approx(-0.4) and line["acc_5_gain"] == pytest.approx(-0.45)
    assert "acc_1_gain" not in table.to_dict()["encoders"]["SCL"]
    assert "0.6000 ± 0.1414" in table.to_text() and "-0.4000" in table.to_text()


def test_epochs_figure(tmp_path):
    of = {
        "a": [outcome([{"val_auc": 0.6}, {"val_auc": 0.5}]),
              outcome([{"val_auc": 0.8}, {"val_auc": 0.7}])],
        "b": [outcome([{"val_auc": 0.1}, {"val_auc": 0.2}])] * 2,
    }  # fmt: skip
    figure = epochs_figure("t", of)
    assert "0.7000   0.6000" in figure.to_text() and "0.1000   0.2000" in figure.to_text()
    assert figure.to_dict()["aucs"]["a"] == [[0.6, 0.5], [0.8, 0.7]]
    figure.save(tmp_path / "plot.svg")


def test_frequency_figure(tmp_path):
    before = [outcome(rows=[5, 6], auc=[0.5, 0.8], log_loss=[0.2, 0.1])] * 2
    after = [
        outcome(rows=[5, 6], auc=[0.6, 0.8], log_loss=[0.1, 0.1]),
        outcome(rows=[5, 6], auc=[0.7, 0.8], log_loss=[0.1, 0.1]),
    ]
    figure = frequency_figure("t", before, after)
    rare, frequent = figure.to_dict()["groups"]
    assert rare["auc_change"] == pytest.approx(0.3) and rare["log_loss_change"] == -0.5
    assert frequent["auc_change"] == 0 and frequent["auc_p"] is None
    assert "+30.00%" in figure.to_text()
    figure.save(tmp_path / "plot.svg")


def test_bad_arguments(tiny):
    reproduction, _ = tiny
    with pytest.raises(ValueError, match="`table='5'`"):
        reproduction.table("5")
    with pytest.raises(ValueError, match="`figure='6'`"):
        reproduction.figure("6")
    with pytest.raises(ValueError, match="`curve_epochs=0`"):
        taobao_multimodal.Settings(curve_epochs=0)
    with pytest.raises(ValueError, match="`make_units` must be .*`make_units=None`"):
        taobao_multimodal.Settings(make_units=None)
