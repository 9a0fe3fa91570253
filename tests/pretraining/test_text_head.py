import keras
import numpy as np
import pytest
import tensorflow as tf

import ctr_keras as ck
from ctr_keras.pretraining.token_states import TokenStates
from tests.pretraining import tiny_bert

TEXTS = ["green coffee;tea", "tea", "", "coffee cafe green tea", "cafe", "green"]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    tiny_bert.write(folder)
    return ck.pretraining.TextEncoder.from_preset(folder, max_tokens=9)


def encoder_of(published, layers=1):
    """One without dropout, so that trainings can be compared."""
    config = published.get_config()
    config["backbone"]["config"]["dropout"] = 0.0
    encoder = ck.pretraining.TextEncoder.from_config(config)
    encoder.set_weights(published.get_weights())
    encoder.train_last(layers)
    return encoder


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_states_and_head_are_the_encoder(published, layers):
    encoder = encoder_of(published, layers)
    texts = tf.constant(TEXTS)
    head = encoder.head()
    np.testing.assert_allclose(head(encoder.states(texts)), encoder(texts), atol=1e-6)
    assert len(head.trainable_variables) == len(encoder.trainable_variables) == 16 * layers
    assert head(encoder.states(texts)[:0]).shape == (0, 12)


def test_a_step_of_the_head_is_one_of_the_encoder(published):
    models = {}
    for name in ("encoder", "head"):
        encoder = encoder_of(published)
        learner = encoder if name == "encoder" else encoder.head()
        model = ck.pretraining.ContrastiveModel(learner, bank_size=6, momentum=0.5)
        model.compile(keras.optimizers.SGD(0.02))
        models[name] = encoder, model
    batches = [
        {
            "query": [TEXTS[n % 6], TEXTS[(n + 1) % 6], "tea"],
            "item": [TEXTS[(n + 3) % 6], "green;green", TEXTS[(n + 5) % 6]],
            "negative": ["", TEXTS[n % 6], "cafe"],
            "item_id": [n, 7, 9],
            "has_negative": [False, True, True],
        }
        for n in range(4)
    ]
    for batch in batches:
        logs = []
        for name, (encoder, model) in models.items():
            given = {key: tf.constant(value) for key, value in batch.items()}
            if name == "head":
                for text in ("query", "item", "negative"):
                    given[text] = encoder.states(given[text])
            logs.append(model.train_on_batch(given, return_dict=True))
        assert logs[0] == pytest.approx(logs[1], abs=1e-5)
    plain, trained = (encoder.encode(TEXTS) for encoder, _ in models.values())
    np.testing.assert_allclose(plain, trained, atol=1e-5)
    assert np.abs(plain - encoder_of(published).encode(TEXTS)).max() > 0.01


def test_states_are_kept(published, tmp_path, monkeypatch):
    encoder = encoder_of(published)
    made = TokenStates.of([*TEXTS, "tea"], encoder, {"of": "a"}, tmp_path, progress=False)
    assert made.states.shape == (sum(len(t) for t in encoder.tokens(TEXTS).to_list()), 12)
    texts = tf.constant(["tea", "", "cafe", "tea"])
    found = tf.function(made.take)(texts)
    expected = encoder.states(texts)
    assert found.row_lengths().numpy().tolist() == expected.row_lengths().numpy().tolist()
    np.testing.assert_allclose(found.flat_values, expected.flat_values, atol=1e-6)
    np.testing.assert_allclose(
        made.vectors(encoder.head(), TEXTS), encoder.encode(TEXTS), atol=1e-6
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="A text has no states"):
        made.take(tf.constant(["tea", "rum"]))
    # They are made once for an encoder and its texts, whatever their order.
    monkeypatch.setattr(encoder, "states", None)
    again = TokenStates.of(TEXTS[::-1], encoder, {"of": "a"}, tmp_path, progress=False)
    np.testing.assert_array_equal(again.states, made.states)
    with pytest.raises(TypeError):
        TokenStates.of(TEXTS, encoder, {"of": "b"}, tmp_path, progress=False)
    monkeypatch.undo()
    # What a kill left unfinished is made anew.
    TokenStates.of(TEXTS, encoder, {"of": "b"}, tmp_path, progress=False)
    empty = TokenStates.of([""], encoder, {"of": "a"}, tmp_path, progress=False)
    assert empty.take(tf.constant([""])).row_lengths().numpy().tolist() == [0]


def test_saved_alike(published, tmp_path):
    encoder = encoder_of(published)
    states = encoder.states(tf.constant(TEXTS))
    head = encoder.head()
    head.save(tmp_path / "head.keras")
    loaded = keras.models.load_model(tmp_path / "head.keras")
    np.testing.assert_array_equal(loaded(states), head(states))


def test_all_weights_learn(published):
    with pytest.raises(ValueError, match="Received: `trained_layers=None`"):
        published.head()
