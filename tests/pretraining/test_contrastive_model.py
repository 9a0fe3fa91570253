import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import special

import ctr_keras as ck
from ctr_keras.pretraining import ContrastiveModel
from tests.pretraining import tiny_bert

RNG = np.random.default_rng(0)


@keras.saving.register_keras_serializable("tests")
class Linear(keras.Model):
    """An encoder of one matrix, of which everything can be told by hand."""

    width = 3

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.matrix = self.add_weight(name="matrix", shape=(5, 3))
        self.built = True

    def call(self, x, training=False):
        return keras.ops.normalize(x @ self.matrix, axis=-1)

    def get_config(self):
        return {"name": self.name}


def batch_of(rows, ids):
    names = ("query", "item", "negative")
    batch = {name: RNG.normal(size=(rows, 5)).astype("float32") for name in names}
    return {**batch, "item_id": np.array(ids), "has_negative": np.arange(rows) % 2 == 0}


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def loss_by_hand(batch, fast, slow, keys, ids, temperature, margin):
    q, k, n = (unit(batch[x] @ m) for x, m in (("query", fast), ("item", slow), ("negative", slow)))
    nce = []
    for i, own in enumerate(batch["item_id"]):
        others = [k[j] for j, number in enumerate(batch["item_id"]) if j == i or number != own]
        others += [key for key, number in zip(keys, ids, strict=True) if number != own]
        logits = np.array(others) @ q[i] / temperature
        nce.append(special.logsumexp(logits) - k[i] @ q[i] / temperature)
    gaps = np.maximum(0, margin + (q * n).sum(1) - (q * k).sum(1))[batch["has_negative"]]
    return np.mean(nce), gaps.mean()


def test_steps_are_those_of_a_plain_moco():
    model = ContrastiveModel(Linear(), bank_size=7, momentum=0.6, triplet_weight=0.5, margin=0.3)
    model.compile(keras.optimizers.SGD(0.3))
    slow, keys, ids = model.encoder.matrix.numpy(), [], []
    for step, numbers in enumerate(([1, 2, 3, 1], [4, 2, 5], [6, 7, 8, 3], [9, 9, 4, 2])):
        batch = batch_of(len(numbers), numbers)
        before, temperature = model.encoder.matrix.numpy(), np.exp(-float(model.sharpness))
        nce, triplet = loss_by_hand(batch, before, slow, keys, ids, temperature, 0.3)
        for metric in model.metrics:
            metric.reset_state()
        logs = model.train_step(batch)
        assert float(logs["info_nce"]) == pytest.approx(nce, abs=1e-5), step
        assert float(logs["triplet"]) == pytest.approx(triplet, abs=1e-5)
        assert float(logs["loss"]) == pytest.approx(nce + 0.5 * triplet, abs=1e-5)
        # The keys of this batch join the bank by the copy as it was, which then follows.
        keys = [*keys, *unit(batch["item"] @ slow)][-7:]
        ids = [*ids, *numbers][-7:]
        after = model.encoder.matrix.numpy()
        assert np.abs(after - before).max() > 1e-3
        slow = 0.6 * slow + 0.4 * after
        np.testing.assert_allclose(model.slow_encoder.matrix, slow, atol=1e-6)
        found = {tuple(np.round(k, 4)) for k in model.bank.keys.numpy()[model.bank.in_use.numpy()]}
        assert found == {tuple(np.round(np.float32(k), 4)) for k in keys}


def test_without_a_bank_the_batch_gives_negatives():
    model = ContrastiveModel(Linear(), bank_size=0, triplet_weight=0)
    model.compile(keras.optimizers.SGD(0.1))
    batch = batch_of(4, [1, 2, 3, 1])
    matrix = model.encoder.matrix.numpy()
    nce, _ = loss_by_hand(batch, matrix, matrix, [], [], 0.07, 0.2)
    logs = model.train_step(batch)
    assert float(logs["loss"]) == pytest.approx(nce, abs=1e-5)
    assert set(logs) == {"loss", "info_nce", "temperature"}
    assert {v.path.split("/")[-1] for v in model.trainable_variables} == {"matrix", "sharpness"}


def test_queries_of_another_kind(tmp_path):
    project = keras.layers.Dense(3, use_bias=False)
    project.build((None, 4))
    model = ContrastiveModel(Linear(), bank_size=0, triplet_weight=0, query_encoder=project)
    model.compile(keras.optimizers.SGD(0.1))
    batch = batch_of(4, [1, 2, 3, 1])
    batch["query"] = RNG.normal(size=(4, 4)).astype("float32")
    queries = unit(batch["query"] @ project.kernel.numpy())
    items = unit(batch["item"] @ model.encoder.matrix.numpy())
    logits = queries @ items.T / 0.07
    # Rows 0 and 3 are of one item, which is no negative of itself in either direction.
    logits[[0, 3], [3, 0]] = -np.inf
    own = np.diag(logits)
    nce = [np.mean(special.logsumexp(logits, axis=axis) - own) for axis in (0, 1)]
    logs = model.train_step(batch)
    assert float(logs["loss"]) == pytest.approx(np.mean(nce), abs=1e-5)
    names = {v.path.split("/")[-1] for v in model.trainable_variables}
    assert names == {"matrix", "sharpness", "kernel"}

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.query_encoder.kernel, model.query_encoder.kernel)
    loaded.train_step(batch)
    with pytest.raises(ValueError, match="Received: `bank_size=5`"):
        ContrastiveModel(Linear(), bank_size=5, query_encoder=project)


def test_the_temperature_is_learned_and_clipped():
    model = ContrastiveModel(Linear(), bank_size=0, triplet_weight=0, temperature=0.011)
    model.compile(keras.optimizers.Adam(0.5))
    x = np.eye(5, dtype="float32")[:3]
    model.encoder.matrix.assign(np.eye(5, 3))
    for _ in range(3):
        model.train_step({"query": x, "item": x, "item_id": np.arange(3)})
        assert float(model.sharpness) <= np.log(100) + 1e-5


def test_pairs_are_learned_saved_and_gone_on_with(tmp_path):
    bert = tmp_path / "bert"
    tiny_bert.write(bert)
    texts = [
        ["tea", "green tea"],
        ["coffee", "cafe"],
        ["green", "green;green"],
        ["coffee;tea", ";"],
    ]
    rows = {
        "query": [a for a, _ in texts] * 4,
        "item": [b for _, b in texts] * 4,
        "item_id": list(range(4)) * 4,
    }
    pairs = tf.data.Dataset.from_tensor_slices(rows).shuffle(16, seed=1).batch(8)
    encoder = ck.pretraining.TextEncoder.from_preset(bert, 9)
    model = ContrastiveModel(encoder, bank_size=10, momentum=0.9, triplet_weight=0)
    model.compile(keras.optimizers.Adam(1e-2))
    history = model.fit(pairs, epochs=8, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] - 0.2
    assert model.evaluate(pairs, verbose=0, return_dict=True)["loss"] > 0
    queries, items = (encoder.encode([t[n] for t in texts]) for n in (0, 1))
    assert ck.metrics.top_n_accuracy(queries, items) == 1

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert len(loaded.trainable_variables) == len(model.trainable_variables)
    np.testing.assert_array_equal(loaded.bank.keys, model.bank.keys)
    np.testing.assert_array_equal(loaded.bank.in_use, model.bank.in_use)
    text = tf.constant(["green coffee"])
    np.testing.assert_array_equal(loaded(text), model(text))
    np.testing.assert_array_equal(loaded.slow_encoder(text), model.slow_encoder(text))
    assert np.abs(loaded.slow_encoder(text) - loaded(text)).max() > 1e-3
    loaded.fit(pairs, epochs=1, verbose=0)


def test_layers_that_do_not_learn_stay_so_when_loaded(tmp_path):
    tiny_bert.write(tmp_path / "bert")
    encoder = ck.pretraining.TextEncoder.from_preset(tmp_path / "bert", 9)
    encoder.train_last(1)
    model = ContrastiveModel(encoder, bank_size=4)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert 1 < len(loaded.trainable_variables) == len(model.trainable_variables) < 20


def test_strings_are_not_compiled_by_xla(tmp_path, monkeypatch):
    tiny_bert.write(tmp_path)
    text = ck.pretraining.TextEncoder.from_preset(tmp_path, max_tokens=9, trained_layers=1)
    gpu = types.SimpleNamespace(device_type="GPU")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [gpu])
    for encoder, is_compiled in (
        (Linear(), True),  # As Keras does where it can.
        (text, False),
        (text.head(), False),
        (ck.pretraining.ImageEncoder.small(8, 16), False),
    ):
        model = ContrastiveModel(encoder, bank_size=7)
        model.compile("sgd")
        assert model.jit_compile is is_compiled
    texts = keras.Input((), dtype="string")
    assert not keras.Model(texts, text(texts)).jit_compile  # In somebody else's model.


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = ContrastiveModel(Linear(), bank_size=4)
    model.compile("sgd")
    logs = model.train_step(batch_of(3, [1, 2, 3]))
    assert np.isfinite(float(logs["loss"])) and model.bank.keys.dtype == tf.float32


def test_the_mean_of_the_triplet_loss_is_that_of_the_rows_with_a_negative():
    model = ContrastiveModel(Linear(), bank_size=0, margin=2.0)
    model.compile(keras.optimizers.SGD(0.0))
    expected, count = 0.0, 0
    for rows, numbers in ((6, [0]), (4, [0, 1, 2]), (3, [])):
        batch = batch_of(rows, range(rows))
        batch["has_negative"] = np.isin(np.arange(rows), numbers)
        logs = model.test_step(batch)
        q, k, n = (model(batch[name]).numpy() for name in ("query", "item", "negative"))
        expected += (2.0 + (q * n).sum(1) - (q * k).sum(1))[numbers].sum()
        count += len(numbers)
    assert float(logs["triplet"]) == pytest.approx(expected / count, abs=1e-5)


def test_bad_arguments():
    bad = {"bank_size": -1, "momentum": 1.0, "temperature": 0.001, "triplet_weight": -1.0,
           "margin": -0.5}  # fmt: skip
    for name, value in bad.items():
        with pytest.raises(ValueError, match=f"Received: `{name}={value}`"):
            ContrastiveModel(Linear(), **{name: value})
    model = ContrastiveModel(Linear(), bank_size=4)
    model.compile("sgd")
    batch = batch_of(3, [1, 2, 3])
    del batch["negative"]
    with pytest.raises(ValueError, match="set `triplet_weight=0`"):
        model.train_step(batch)
    del batch["item_id"]
    with pytest.raises(ValueError, match="without `item_id`"):
        model.train_step(batch)


def test_a_batch_without_hard_negatives_has_no_triplet_loss(tmp_path):
    tiny_bert.write(tmp_path)
    encoder = ck.pretraining.TextEncoder.from_preset(tmp_path, max_tokens=6)
    model = ContrastiveModel(encoder, bank_size=4)
    model.compile(keras.optimizers.Adam(1e-3))
    batch = {
        "query": tf.constant(["tea", "coffee"]),
        "item": tf.constant(["green tea", "cafe"]),
        "negative": tf.constant(["", ""]),
        "item_id": tf.constant([1, 2]),
        "has_negative": tf.constant([False, False]),
    }
    logs = model.train_on_batch(batch, return_dict=True)
    assert logs["triplet"] == 0 and np.isfinite(logs["loss"])
