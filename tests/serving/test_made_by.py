"""The text encoder that goes into a version is the one that the model learned from."""

import json
import shutil
import sys

import numpy as np
import pytest

import ctr_keras as ck
from ctr_keras import cli, training
from tests.pretraining import tiny_bert

pytest.importorskip("tensorflow_text", reason="needs the extra `text`")


@pytest.fixture(scope="module")
def berts(tmp_path_factory):
    """Two encoders of the same width."""
    folders = [tmp_path_factory.mktemp("one") / "bert", tmp_path_factory.mktemp("other") / "bert"]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        tiny_bert.write(folder, seed)
    return folders


@pytest.fixture(scope="module")
def data(berts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    features = [
        ck.Feature("item_id", "item", vocabulary=ck.Vocabulary.of_size(9)),
        ck.Feature("title", "item", kind="text"),
        ck.Feature("label", "label", kind="number"),
    ]
    schema = ck.Schema(features).save(folder)
    texts = ["tea", "green tea", "", "coffee"]
    rows = {"item_id": np.arange(2, 6), "title": texts, "label": np.arange(4) % 2}
    for split in ("train", "valid", "test"):
        ck.data.write(folder / split, schema, rows)
    ck.pretraining.encode_texts(folder, encoder=berts[0], max_tokens=9, progress=False)
    return folder


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    config = training.TrainingConfig(
        data=str(data), out=str(tmp_path_factory.mktemp("out")), model="DNN", epochs=1,
        options={"embedding_dim": 4, "units": [4]}, texts=("title",),
    )  # fmt: skip
    return training.train(config, progress=False).model


@pytest.fixture
def export(monkeypatch, capsys, tmp_path):
    def export(model, encoder, max_tokens, *more):
        """Exit status and stderr of `ctr-keras export`."""
        arguments = ["export", "--model", model, "--out", tmp_path / "saved", "--encoder", encoder]
        arguments += ["--max-tokens", max_tokens, *more]
        monkeypatch.setattr(sys, "argv", ["ctr-keras", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code or 0, capsys.readouterr().err

    return export


def test_the_encoder_of_the_training(trained, berts, export, tmp_path):
    shutil.copytree(berts[0], tmp_path / "moved")
    status, err = export(trained, tmp_path / "moved", 9)
    assert status == 0, err
    file = tmp_path / "saved" / "1" / "assets.extra" / "model_card.json"
    identity = json.loads(file.read_text())["text_encoder"]
    assert (identity["encoder"], identity["max_tokens"]) == ("moved", "9")
    for encoder, max_tokens in ((berts[1], 9), (berts[0], 8)):
        status, err = export(trained, encoder, max_tokens)
        assert status == 1 and "vectors that another encoder made, {'encoder': 'bert'" in err
        assert f"'max_tokens': '{max_tokens}'" in err
    assert [path.name for path in (tmp_path / "saved").iterdir()] == ["1"]


def test_the_encoder_of_the_data(trained, data, berts, export, tmp_path):
    """Of a model that was trained elsewhere."""
    model = shutil.copy(trained, tmp_path / "model.keras")
    status, err = export(model, berts[1], 9, "--data", data)
    assert status == 1 and "vectors that another encoder made" in err
    for encoder, options in ((berts[0], ["--data", data]), (berts[1], [])):
        status, err = export(model, encoder, 9, *options)
        assert status == 0, err
