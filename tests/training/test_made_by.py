"""A model is evaluated on vectors of the encoder that it learned from."""

import shutil

import numpy as np
import pytest

import ctr_keras as ck
from ctr_keras import training

ENCODERS = {
    "text_vectors": {"encoder": "bert", "sha256": "12", "max_tokens": "9"},
    "item_vectors": {"encoder": "net", "sha256": "34"},
}


def encode(folder, name, encoder):
    table = ck.data.VectorTable.create(folder / name, encoder, width=3)
    keys = ["tea", "coffee"] if name == "text_vectors" else np.arange(2, 6)
    table.extended(keys, np.eye(3)[np.arange(len(keys)) % 3])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    features = [
        ck.Feature("user_id", "user", vocabulary=ck.Vocabulary.of_size(9)),
        ck.Feature("item_id", "item", vocabulary=ck.Vocabulary.of_size(9)),
        ck.Feature("title", "item", kind="text"),
        ck.Feature("label", "label", kind="number"),
    ]
    schema = ck.Schema(features).save(folder)
    ids, titles = np.arange(2, 6), ["tea", "coffee"] * 2
    rows = {"user_id": ids, "item_id": ids, "title": titles, "label": ids % 2}
    for split in ("train", "valid", "test"):
        ck.data.write(folder / split, schema, rows)
    for name, encoder in ENCODERS.items():
        encode(folder, name, encoder)
    return folder


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    base = {"base": "DNN", "base_options": {"embedding_dim": 4, "units": [4]}}
    config = training.TrainingConfig(
        data=str(data), out=str(tmp_path_factory.mktemp("out")), model="VectorFusion", epochs=1,
        options=base, texts=("title",),
    )  # fmt: skip
    return training.train(config, progress=False).model


EVALUATIONS = {
    "evaluate": training.evaluate,
    "cold_start": lambda model, split: training.evaluate_cold_start(
        model, split.parent / "train", split
    ),
    "by_frequency": lambda model, split: training.evaluate_by_frequency(
        model, split.parent / "train", split, groups=2
    ),
}


@pytest.mark.parametrize("evaluation", EVALUATIONS)
def test_vectors_of_another_encoder_are_refused(evaluation, trained, data, tmp_path):
    evaluate = EVALUATIONS[evaluation]
    evaluate(trained, data / "test")
    for name, encoder in ENCODERS.items():
        folder = tmp_path / name
        shutil.copytree(data, folder)
        shutil.rmtree(folder / name)
        encode(folder, name, {**encoder, "encoder": "moved"})  # The same weights elsewhere.
        evaluate(trained, folder / "test")
        shutil.rmtree(folder / name)
        encode(folder, name, {**encoder, "sha256": "56"})
        told = f"learned from vectors of .*'{encoder['sha256']}'.*Received: `{name}.encoder=.*'56'"
        with pytest.raises(ValueError, match=told):
            evaluate(trained, folder / "test")
        evaluate(shutil.copy(trained, tmp_path), folder / "test")  # Nothing tells its training.
