"""Trained on a tenth of the negatives, a model still predicts how many clicks there will be."""

import numpy as np
import pytest
import tensorflow as tf

import ctr_keras as ck
from ctr_keras import training

USERS, ITEMS, ROWS, RATIO = 50, 30, 60_000, 0.1
SCHEMA = ck.Schema(
    [
        ck.Feature("user_id", "user", vocabulary=ck.Vocabulary.of_size(USERS)),
        ck.Feature("item_id", "item", vocabulary=ck.Vocabulary.of_size(ITEMS)),
        ck.Feature("time", "time", kind="number"),
        ck.Feature("label", "label", kind="number"),
    ]
)


def click_probability(user, item):
    """Known clicks: logistic in a user's and an item's effect, 6 % on average."""
    return 1 / (1 + np.exp(3.0 - np.sin(user) - np.cos(2.0 * item)))


def impressions(seed):
    rng = np.random.default_rng(seed)
    user, item = rng.integers(2, USERS, ROWS), rng.integers(2, ITEMS, ROWS)
    label = rng.random(ROWS) < click_probability(user, item)
    return {"user_id": user, "item_id": item, "time": np.arange(ROWS), "label": label}


@pytest.fixture(scope="module")
def test_rows():
    return impressions(1)


@pytest.fixture(scope="module", params=["while reading", "before writing"])
def folder(request, tmp_path_factory, test_rows):
    """Prepared data, and the ratio that training asks for."""
    folder = tmp_path_factory.mktemp("clicks")
    SCHEMA.save(folder)
    rows, on_the_fly = impressions(0), RATIO
    if request.param == "before writing":
        rows, on_the_fly = ck.data.down_sample_negatives(SCHEMA, rows, RATIO), 1.0
    ratio = RATIO / on_the_fly
    ck.data.write(folder / "train", SCHEMA, rows, negative_ratio=ratio)
    ck.data.write(folder / "valid", SCHEMA, impressions(2))
    ck.data.write(folder / "test", SCHEMA, test_rows)
    return folder, on_the_fly


def test_predicted_clicks_are_the_actual_ones(folder, test_rows, tmp_path):
    data, on_the_fly = folder
    config = training.TrainingConfig(
        data=str(data), out=str(tmp_path / "out"), model="FM", options={"embedding_dim": 2},
        epochs=6, batch_size=256, learning_rate=0.02, negative_ratio=on_the_fly,
    )  # fmt: skip
    result = training.train(config, progress=False)
    model = training.load_model(result.model)
    assert model.negative_ratio == RATIO
    corrected = training.evaluate(model, data / "test")
    # About 3,900 clicks: a standard deviation of 1.6 % in either set of rows.
    assert corrected.calibration_ratio == pytest.approx(1, abs=0.07)
    assert corrected.negative_ratio == 1

    x = {name: tf.constant(test_rows[name]) for name in ("user_id", "item_id")}
    serve = tf.saved_model.load(str(ck.serving.export(model, tmp_path / "saved")))
    served = serve.signatures["serving_default"](**x)["probability"].numpy()
    actual = test_rows["label"].sum()
    assert served.sum() / actual == pytest.approx(corrected.calibration_ratio, rel=1e-4)
    # Not only on average: where clicks are rare, and where they are frequent.
    truth = click_probability(test_rows["user_id"], test_rows["item_id"])
    for part in np.array_split(np.argsort(truth), 5):
        assert served[part].mean() == pytest.approx(truth[part].mean(), rel=0.2)
    validation = training.evaluate(model, data / "valid")
    assert result.history[result.best_epoch]["val_loss"] == pytest.approx(
        validation.log_loss, rel=1e-4
    )

    model.negative_ratio = 1
    uncorrected = training.evaluate(model, data / "test")
    assert uncorrected.calibration_ratio > 5
    assert uncorrected.log_loss > corrected.log_loss + 0.1
    assert uncorrected.auc == pytest.approx(corrected.auc, abs=1e-4)
