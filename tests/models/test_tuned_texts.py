import numpy as np
import pytest
import tensorflow as tf

import ctr_keras as ck
from ctr_keras import training
from tests.models.conformance import run_model_conformance
from tests.pretraining import tiny_bert

TEXTS = ["tea", "green tea", "coffee", "café", "", "green coffee;tea"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    tiny_bert.write(folder)
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    schema = ck.Schema(
        [
            ck.Feature("item_id", "item", vocabulary=ck.Vocabulary.of_size(9)),
            ck.Feature("title", "item", kind="text"),
            ck.Feature("label", "label", kind="number"),
        ]
    ).save(folder)
    rng = np.random.default_rng(0)
    for name in ("train", "valid", "test"):
        which = rng.integers(0, len(TEXTS), 200)
        rows = {"item_id": rng.integers(2, 9, 200), "title": [TEXTS[n] for n in which]}
        ck.data.write(folder / name, schema, {**rows, "label": which % 2})
    return folder


def tuned(prepared, bert, layers=1):
    encoder = ck.pretraining.TextEncoder.from_preset(bert, 9)
    schema = ck.Schema.load(prepared).with_encoded_texts(["title"], encoder.width)
    return ck.models.TunedTexts(ck.models.DNN(schema, 4, (6,)), encoder, layers)


def test_conformance(bert, small_schema, small_data, tmp_path):
    def small(schema):
        encoder = ck.pretraining.TextEncoder.from_preset(bert, 9)
        schema = schema.with_encoded_texts(["title"], encoder.width)
        return ck.models.TunedTexts(ck.models.DNN(schema, 4, (6,)), encoder)

    # Keras keeps no state of the encoder's dropout in a file.
    run_model_conformance(small, small_schema, small_data, tmp_path, continues=False)


def test_predicts_as_its_base_on_the_encoders_vectors(prepared, bert):
    model = tuned(prepared, bert)
    x, _ = next(iter(ck.data.read(prepared / "train", model.schema, 50)))
    assert x["title"].dtype == tf.string
    vectors = model.encoder(x["title"])
    expected = model.base.predict({**x, "title": vectors}, verbose=0)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-6)


def test_the_last_layers_learn(prepared, bert):
    model = tuned(prepared, bert)
    before = {v.path: v.numpy() for v in model.encoder.weights}
    rows = ck.data.read(prepared / "train", model.schema, 50)
    model.compile(ck.optimizers.LazyAdam(0.01))
    history = model.fit(rows, epochs=3, verbose=0, shuffle=False).history
    assert history["loss"][-1] < history["loss"][0] - 0.05
    after = {v.path: v.numpy() for v in model.encoder.weights}
    moved = {path for path, value in before.items() if np.abs(value - after[path]).max() > 0}
    assert moved and {path.split("/")[0] for path in moved} == {"transformer_layer_1"}


def test_none_of_the_encoder_learns_with_0_layers(prepared, bert):
    model = tuned(prepared, bert, layers=0)
    assert not any("transformer" in v.path for v in model.trainable_variables)
    assert len(model.trainable_variables) == len(model.base.trainable_variables)


def test_trained_as_a_job(prepared, bert, tmp_path):
    options = {"base": "DNN", "base_options": {"embedding_dim": 4, "units": [6]}}
    config = training.TrainingConfig(
        data=str(prepared), out=str(tmp_path), model="TunedTexts", epochs=1, batch_size=50,
        options={**options, "encoder": str(bert), "max_tokens": 9}, texts=("title",),
    )  # fmt: skip
    trained = training.train(config, progress=False)
    assert training.evaluate(trained.model, prepared / "test").rows == 200


def test_bad_arguments(prepared, bert):
    encoder = ck.pretraining.TextEncoder.from_preset(bert, 9)
    schema = ck.Schema.load(prepared)
    with pytest.raises(ValueError, match="must have an encoded text.*'item_id', 'title', 'label'"):
        ck.models.TunedTexts(ck.models.DNN(schema), encoder)
    with pytest.raises(ValueError, match="`encoder.width=12`"):
        ck.models.TunedTexts(ck.models.DNN(schema.with_encoded_texts(["title"], 5)), encoder)
    strings = schema.with_encoded_texts(["title"], 12).with_texts_as_strings()
    with pytest.raises(ValueError, match="Only `TunedTexts` takes texts as strings.*'title'"):
        ck.models.DNN(strings)
    assert ck.Schema.from_dict(strings.to_dict()) == strings
    with pytest.raises(ValueError, match="`as_string=True`"):
        ck.Feature("age", "user", kind="number", as_string=True)
