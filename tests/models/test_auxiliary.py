import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import ctr_keras as ck
from ctr_keras.models.auxiliary.cl4ctr import alignment_loss, uniformity_loss
from ctr_keras.models.auxiliary.deep_mcp import is_elsewhere, skip_gram_loss
from ctr_keras.models.auxiliary.recency_attention import RecencyAttention
from tests.models.conformance import run_model_conformance


def din(schema, **kwargs):
    return ck.models.DIN(schema, embedding_dim=4, units=(8,), attention_units=(4,), **kwargs)


def at4ctr(schema, **kwargs):
    return ck.models.AT4CTR(din(schema), **kwargs)


MODELS = {
    "AT4CTR": at4ctr,
    "CL4CTR": lambda schema: ck.models.CL4CTR(ck.models.FM(schema, embedding_dim=4), num_layers=1),
    "DeepMCP": lambda schema: ck.models.DeepMCP(schema, embedding_dim=4, units=(8,)),
    "DMR": lambda schema: ck.models.DMR(schema, embedding_dim=4, units=(8,), negatives=10),
}
LOSSES = {
    "AT4CTR": {"uim_loss", "nip_loss"},
    "CL4CTR": {"contrastive_loss", "alignment_loss", "uniformity_loss"},
    "DeepMCP": {"matching_loss", "correlation_loss"},
    "DMR": {"match_loss"},
}


def losses_of(model, x, y, sample_weight=None):
    """The auxiliary losses of a batch, and the tensors they are made of."""
    inputs = {name: x[name] for name in model.input}
    tensors = keras.Model(model.input, model.tensors)(inputs, training=True)
    found = model.auxiliary_losses(x, y, tensors, sample_weight)
    return {k: float(v) for k, v in found.items()}, {k: np.array(v) for k, v in tensors.items()}


@pytest.fixture(scope="module")
def batch(small_data, small_schema):
    return next(iter(ck.data.read(small_data, small_schema, 40)))


@pytest.mark.parametrize("name", MODELS)
def test_conformance(name, small_schema, small_data, tmp_path):
    model = run_model_conformance(MODELS[name], small_schema, small_data, tmp_path)
    assert set(model.auxiliary_weights) == LOSSES[name]


@pytest.mark.parametrize("name", MODELS)
def test_losses_are_logged_learned_from_and_gone_at_inference(name, small_schema, batch):
    model = MODELS[name](small_schema)
    model.compile(ck.optimizers.LazyAdam(0.01))
    logs = model.fit(*batch, epochs=8, batch_size=40, verbose=0, shuffle=False).history
    assert set(logs) == {"loss", "ctr_loss", "auc", *LOSSES[name]}
    total = logs["ctr_loss"][0] + sum(
        weight * logs[loss][0] for loss, weight in model.auxiliary_weights.items()
    )
    assert logs["loss"][0] == pytest.approx(total, abs=1e-5)
    assert logs["loss"][-1] < logs["loss"][0]
    assert len(model.inference_model().variables) < len(model.variables)


ALL_MODELS = {
    **MODELS, "DIEN": lambda schema: ck.models.DIEN(schema, embedding_dim=4, units=(8,)),
}  # fmt: skip


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("name", ALL_MODELS)
def test_losses_in_mixed_precision(name, policy, small_schema, batch):
    keras.config.set_dtype_policy(policy)
    model = ALL_MODELS[name](small_schema)
    model.compile(metrics=[], run_eagerly=True)
    logs = model.train_on_batch(*batch, return_dict=True)
    assert set(logs) == {"loss", "ctr_loss", *model.auxiliary_weights}
    assert np.isfinite(list(logs.values())).all()


@pytest.mark.parametrize("name", ALL_MODELS)
def test_losses_with_columns_of_labels_and_weights(name, small_schema, batch):
    x, y = batch
    weight = np.random.default_rng(0).random(len(y)).astype("float32")
    found = []
    for shape in ((-1,), (-1, 1)):
        keras.utils.set_random_seed(7)
        model = ALL_MODELS[name](small_schema)
        inputs = {name: x[name] for name in model.input}
        tensors = keras.Model(model.input, model.tensors)(inputs, training=True)
        losses = model.auxiliary_losses(x, tf.reshape(y, shape), tensors, weight.reshape(shape))
        found.append({loss: float(value) for loss, value in losses.items()})
    assert found[1] == pytest.approx(found[0], rel=1e-5)


OF_CLICKS = [("AT4CTR", "uim_loss"), ("DeepMCP", "matching_loss")]


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("name, loss", OF_CLICKS)
def test_what_looks_at_clicks_scales_with_their_weights(name, loss, policy, small_schema, batch):
    keras.config.set_dtype_policy(policy)
    x, y = batch
    model = MODELS[name](small_schema)
    plain = losses_of(model, x, y)[0][loss]
    for scale in (1.0, 1e6, 1e-9, 0.0):
        weighted = losses_of(model, x, y, np.full(40, scale, "float32"))[0][loss]
        assert weighted == pytest.approx(scale * plain, rel=1e-5, abs=1e-15)


@pytest.mark.parametrize("name, loss", OF_CLICKS)
def test_rows_of_weight_0_are_as_if_left_out(name, loss, small_schema, batch):
    """As of `ctr_loss`: the mean over the rows, of which DeepMCP's has those of weight 0 too."""
    x, y = batch
    model = MODELS[name](small_schema)
    weight = np.random.default_rng(0).integers(0, 3, 40).astype("float32")
    found, tensors = losses_of(model, x, y, weight)
    kept = np.flatnonzero(weight)
    part = [{key: value.numpy()[kept] for key, value in x.items()}, y.numpy()[kept]]
    part += [{key: value[kept] for key, value in tensors.items()}, weight[kept]]
    expected = float(model.auxiliary_losses(*part)[loss])
    if name == "DeepMCP":
        expected *= len(kept) / 40
    assert found[loss] == pytest.approx(expected, rel=1e-4)


def test_a_batch_of_weight_0_moves_nothing(small_schema, batch):
    x, y = batch
    model = at4ctr(small_schema, nip_weight=0)
    model.compile(keras.optimizers.SGD(0.1), metrics=[], run_eagerly=True)
    before = [w.numpy() for w in model.trainable_weights]
    model.train_on_batch(x, y, sample_weight=np.zeros(40, "float32"))
    for weight, was in zip(model.trainable_weights, before, strict=True):
        np.testing.assert_array_equal(weight, was, err_msg=weight.path)


def test_probability_is_the_bases(small_schema, batch, tmp_path):
    base = din(small_schema)
    model = ck.models.AT4CTR(base)
    model.compile()
    model.fit(*batch, verbose=0)
    x, _ = batch
    np.testing.assert_array_equal(model.predict(x, verbose=0), base.predict(x, verbose=0))
    names = [{w.path for w in m.inference_model().variables} for m in (model, base)]
    assert names[0] == names[1]
    saved = [ck.serving.export(m, tmp_path / m.name) for m in (model, base)]
    graphs = [
        tf.saved_model.load(str(path)).signatures["serving_default"].graph.as_graph_def()
        for path in saved
    ]
    assert len(graphs[0].library.function) == len(graphs[1].library.function)
    count = [sum(len(f.node_def) for f in graph.library.function) for graph in graphs]
    assert count[0] == count[1]  # so its latency is the base's too


def test_loaded_base_can_be_used_alone(small_schema, batch, tmp_path):
    model = at4ctr(small_schema)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    x, _ = batch
    np.testing.assert_array_equal(loaded.base.predict(x, verbose=0), model.predict(x, verbose=0))
    ck.serving.export(loaded.base, tmp_path / "saved")


# AT4CTR


def cosine(a, b):
    return a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12)


def contrast(queries, keys, anchors, candidates, temperature, same):
    """Sum of the losses of the anchors, one pair at a time."""
    total = 0.0
    for i in anchors:
        others = [j for j in candidates if j == i or not same(i, j)]
        scores = np.array([cosine(queries[i], keys[j]) / temperature for j in others])
        total += np.log(np.exp(scores).sum()) - cosine(queries[i], keys[i]) / temperature
    return total


@pytest.mark.parametrize("keep_repeats", [False, True])
def test_user_item_match_by_hand(small_schema, batch, keep_repeats):
    x, y = batch
    model = at4ctr(small_schema, nip_weight=0, uim_temperature=0.3, keep_repeats=keep_repeats)
    losses, tensors = losses_of(model, x, y)
    task = model.user_item_match
    mask = tensors["history_mask"]
    attended = np.array(task.attention(tensors["history"], mask=mask))
    pooled = np.stack(
        [a[m].mean(axis=0) if m.any() else np.zeros(4) for a, m in zip(attended, mask, strict=True)]
    )
    user = np.array(task.of_user(np.concatenate([tensors["user"], pooled], axis=1)))
    item = np.array(task.of_item(tensors["item"]))
    group, item_id, clicked = x["group"].numpy(), x["item_id"].numpy(), np.flatnonzero(y)
    assert len(set(group)) < 40 and len(set(item_id)) < 40
    rows = range(40)
    expected = contrast(
        user, item, clicked, rows, 0.3, lambda i, j: not keep_repeats and item_id[i] == item_id[j]
    ) + contrast(
        item, user, clicked, rows, 0.3, lambda i, j: not keep_repeats and group[i] == group[j]
    )
    assert losses == {"uim_loss": pytest.approx(expected / len(clicked), rel=1e-4)}


def test_next_item_prediction_by_hand(small_schema, batch):
    x, y = batch
    model = at4ctr(small_schema, uim_weight=0, nip_temperature=0.4)
    losses, tensors = losses_of(model, x, y)
    history, mask = tensors["history"], tensors["history_mask"]
    seen = np.array(model.next_item_prediction.attention(history, mask=mask))
    ids = x["history_item_id"].numpy()
    total = pairs = 0
    for k in range(history.shape[1] - 1):
        there = np.flatnonzero(mask[:, k + 1])

        def same(i, j, k=k):
            return ids[i, k + 1] == ids[j, k + 1]

        for a, b in ((seen[:, k], history[:, k + 1]), (history[:, k + 1], seen[:, k])):
            total += contrast(a, b, there, there, 0.4, same)
        pairs += len(there)
    assert losses == {"nip_loss": pytest.approx(total / pairs, rel=1e-4)}


def test_rows_are_the_first_of_the_batch(small_schema, batch):
    x, y = batch
    model = at4ctr(small_schema)
    _, tensors = losses_of(model, x, y)
    part = [{name: value[:16] for name, value in each.items()} for each in (x, tensors)]
    expected = model.auxiliary_losses(part[0], y[:16], part[1], None)
    few = ck.models.AT4CTR(model.base, rows=16)
    few.user_item_match = model.user_item_match
    few.next_item_prediction = model.next_item_prediction
    got = few.auxiliary_losses(x, y, tensors, None)
    assert set(got) == {"uim_loss", "nip_loss"}
    for name, value in got.items():
        assert float(value) == pytest.approx(float(expected[name]), rel=1e-5)


def test_nothing_to_match_is_zero(small_schema, batch):
    x, y = batch
    model = at4ctr(small_schema)
    losses, _ = losses_of(model, x, np.zeros(40, "float32"))
    assert losses["uim_loss"] == 0 and losses["nip_loss"] > 0
    empty = {**x, "history_item_id": tf.zeros_like(x["history_item_id"])}
    losses, _ = losses_of(model, empty, y)
    assert losses["nip_loss"] == 0 and np.isfinite(losses["uim_loss"])
    one = {name: value[:1] for name, value in x.items()}
    losses, _ = losses_of(model, one, np.ones(1, "float32"))
    assert losses == {
        "uim_loss": pytest.approx(0, abs=1e-5),
        "nip_loss": pytest.approx(0, abs=1e-5),
    }
    model.compile()
    logs = model.fit(one, np.ones(1), verbose=0).history
    assert np.isfinite(list(logs["loss"])).all()


def test_history_of_one_has_no_next_item(small_schema, small_rows, tmp_path):
    features = [
        ck.Feature("history_item_id", "history", length=1, shares="item_id", dtype="string")
        if feature.name == "history_item_id"
        else feature
        for feature in small_schema
    ]
    schema = ck.Schema(features)
    ck.data.write(tmp_path, schema, small_rows)
    x, y = next(iter(ck.data.read(tmp_path, schema, 40)))
    losses, _ = losses_of(at4ctr(schema), x, y)
    assert losses["nip_loss"] == 0


def test_base_without_a_history_has_the_user_item_match_alone(small_schema, batch):
    schema = ck.Schema([f for f in small_schema if f.role != "history"])
    model = ck.models.AT4CTR(ck.models.FM(schema, embedding_dim=4))
    assert set(model.auxiliary_weights) == {"uim_loss"}
    x, y = batch
    losses, _ = losses_of(model, x, y)
    assert losses["uim_loss"] > 0


def test_weights_of_zero_leave_a_task_out(small_schema, batch):
    plain = at4ctr(small_schema, uim_weight=0, nip_weight=0)
    assert plain.auxiliary_weights == {}
    assert len(plain.variables) == len(plain.base.variables)
    plain.compile()
    assert set(plain.fit(*batch, verbose=0).history) == {"loss", "auc"}


def test_a_task_is_not_added_twice(small_schema):
    with pytest.raises(ValueError, match="has the auxiliary losses .*'uim_loss'"):
        ck.models.AT4CTR(at4ctr(small_schema))
    once = MODELS["CL4CTR"](small_schema)
    with pytest.raises(ValueError, match="contrastive_loss"):
        ck.models.CL4CTR(once)
    assert set(ck.models.AT4CTR(once).auxiliary_weights) == LOSSES["AT4CTR"] | LOSSES["CL4CTR"]


@pytest.mark.parametrize("name, weight", [("DMR", "match_weight"), ("DeepMCP", "matching_weight"),
                                          ("DeepMCP", "correlation_weight")])  # fmt: skip
def test_negative_weights_are_refused(name, weight, small_schema):
    with pytest.raises(ValueError, match="weight of '.*_loss' must not be negative.*: -1"):
        getattr(ck.models, name)(small_schema, embedding_dim=4, units=(8,), **{weight: -1})


def test_user_key(small_schema, batch):
    x, y = batch
    model = at4ctr(small_schema, nip_weight=0, user_key="user_id")
    assert model._ids(x)["user"] is not x["group"]
    np.testing.assert_array_equal(model._ids(x)["user"], x["user_id"])


def test_unknown_users_are_not_one(small_schema, batch):
    x, y = batch
    rows = np.arange(40)
    distinct = {"group": rows + 7, "user_id": rows.astype("int32") + 2}
    unknown = {"group": np.full(40, -1), "user_id": np.ones(40, "int32")}
    for key in ("group", "user_id"):
        model = at4ctr(small_schema, nip_weight=0, user_key=key)
        _, tensors = losses_of(model, x, y)
        some = np.where(rows % 2, distinct[key], unknown[key])
        losses = [
            float(model.auxiliary_losses({**x, key: ids}, y, tensors, None)["uim_loss"])
            for ids in (distinct[key], unknown[key], some, np.full(40, 7, some.dtype))
        ]
        assert losses[1] == losses[2] == losses[0] != losses[3]


def test_losses_of_the_base_stay(small_schema, batch, tmp_path):
    base = ck.models.DIEN(small_schema, embedding_dim=4, units=(8,))
    model = ck.models.AT4CTR(base)
    assert set(model.auxiliary_weights) == {"interest_loss", "uim_loss", "nip_loss"}
    model.compile()
    logs = model.fit(*batch, verbose=0).history
    assert logs["interest_loss"][0] > 0
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    x, _ = batch
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    for ours, theirs in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def own_model():
    """A functional model that knows nothing of this package's models."""
    user = keras.Input((), dtype="int32", name="user_id")
    item = keras.Input((), dtype="int32", name="item_id")
    users = keras.layers.Embedding(30, 4, name="user_vector")(user)
    items = keras.layers.Embedding(42, 4, name="item_vector")(item)
    joint = keras.layers.Concatenate()([users, items])
    logit = keras.layers.Dense(1, name="score")(joint)
    probability = keras.layers.Activation("sigmoid")(logit)
    return keras.Model({"user_id": user, "item_id": item}, probability, name="own")


OWN = {"logit": "score", "user": "user_vector", "item": "item_vector"}


def test_users_own_functional_model(small_schema, batch, tmp_path):
    own = own_model()
    model = ck.models.AT4CTR(own, schema=small_schema, tensors=OWN)
    model.compile()
    assert set(model.fit(*batch, verbose=0).history) >= {"ctr_loss", "uim_loss"}
    x, _ = batch
    inputs = {name: x[name] for name in ("user_id", "item_id")}
    np.testing.assert_allclose(
        model.predict(x, verbose=0), own.predict(inputs, verbose=0), atol=1e-6
    )
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    assert loaded.base_tensors == OWN
    assert loaded.schema.fingerprint == small_schema.fingerprint


def test_bad_arguments(small_schema, batch):
    for name, value in (
        ("uim_weight", -1), ("nip_weight", -0.1), ("uim_temperature", 0),
        ("nip_temperature", -1.0), ("rows", 0), ("rows", 1.5),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"Received: `{name}={value}`"):
            at4ctr(small_schema, **{name: value})
    with pytest.raises(TypeError, match="`base` must be a model of ctr_keras"):
        ck.models.AT4CTR("DIN")
    with pytest.raises(ValueError, match="needs `schema`, and `tensors`"):
        ck.models.AT4CTR(own_model())
    for tensors, match in (
        ({"user": "user_vector", "item": "item_vector"}, "`logit`"),
        ({"logit": "score", "user": "user_vector"}, "`item`"),
        ({"logit": "score", "item": "item_vector"}, "`user`"),
        ({**OWN, "history": "user_vector"}, "`history_mask`"),
        ({**OWN, "user": "nobody"}, "must name a layer"),
        ({**OWN, "profile": "user_vector"}, "takes logit, user, item"),
    ):
        with pytest.raises(ValueError, match=match):
            ck.models.AT4CTR(own_model(), schema=small_schema, tensors=tensors)
    with pytest.raises(ValueError, match="knows its schema"):
        ck.models.AT4CTR(din(small_schema), schema=small_schema)
    x, y = batch
    without = {name: value for name, value in x.items() if name != "group"}
    model = at4ctr(small_schema)
    model.compile()
    with pytest.raises(ValueError, match="the batch needs \\['group'\\]"):
        model.fit(without, y, verbose=0)


# CL4CTR


def test_alignment_and_uniformity_are_those_of_all_pairs():
    fields = np.random.default_rng(0).normal(size=(5, 3, 4)).astype("float32")
    squared = [
        ((fields[i, f] - fields[j, f]) ** 2).sum()
        for f in range(3) for i in range(5) for j in range(5)
    ]  # fmt: skip
    assert float(alignment_loss(fields)) == pytest.approx(np.mean(squared), rel=1e-5)
    cosines = [
        cosine(fields[i, f], fields[j, g])
        for f in range(3) for g in range(3) for i in range(5) for j in range(5) if f != g
    ]  # fmt: skip
    assert float(uniformity_loss(fields)) == pytest.approx(np.mean(cosines), rel=1e-4)


@pytest.mark.parametrize("mask, axis", [("random", ()), ("feature", (2,)), ("dimension", (1,))])
def test_views_hide_what_they_should(small_schema, mask, axis):
    base = ck.models.FM(small_schema, embedding_dim=4)
    model = ck.models.CL4CTR(base, mask=mask, mask_rate=0.3, num_layers=1, seed=1)
    hidden = np.array(model._view(ops.ones((400, 6, 4)))) == 0
    assert hidden.mean() == pytest.approx(0.3, abs=0.03)
    assert (hidden == hidden.all(axis=axis, keepdims=True)).all()
    assert (np.array(model._view(ops.ones((400, 6, 4)))) == 0).tolist() != hidden.tolist()


def test_cl4ctr_bad_arguments(small_schema):
    base = ck.models.FM(small_schema, embedding_dim=4)
    with pytest.raises(ValueError, match="`mask=field`|`mask='field'`"):
        ck.models.CL4CTR(base, mask="field")
    with pytest.raises(ValueError, match="mask_rate=1"):
        ck.models.CL4CTR(base, mask_rate=1)
    with pytest.raises(TypeError, match="must be a model of ctr_keras"):
        ck.models.CL4CTR(own_model())


# DeepMCP


def test_skip_gram_loss_by_hand():
    rng = np.random.default_rng(0)
    items = rng.normal(size=(3, 5, 4)).astype("float32")
    mask = np.arange(5) < np.array([[5], [3], [1]])
    drawn = [(rng.normal(size=(3, 5, 4)).astype("float32"), mask) for _ in range(2)]
    total = count = 0
    for row, length in enumerate((5, 3, 1)):
        for t in range(length):
            context = [s for s in range(length) if 0 < abs(s - t) <= 2]
            if not context:
                continue
            count += 1
            total += sum(np.log1p(np.exp(-items[row, t] @ items[row, s])) for s in context)
            total += sum(np.log1p(np.exp(items[row, t] @ other[row, t])) for other, _ in drawn)
    got = skip_gram_loss(items, mask, window=2, negatives=drawn)
    assert float(got) == pytest.approx(total / count, rel=1e-4)
    assert float(skip_gram_loss(items, np.zeros_like(mask), 2, drawn)) == 0


def test_which_drawn_items_are_elsewhere():
    rng = np.random.default_rng(0)
    ids, drawn = rng.integers(2, 9, (2, 30, 6))
    ids[:, 4:] = 0
    expected = [
        [
            not any(drawn[row, t] == ids[row, s] for s in range(6) if abs(s - t) <= 2)
            for t in range(6)
        ]
        for row in range(30)
    ]
    got = np.array(is_elsewhere(drawn, ids, window=2))
    np.testing.assert_array_equal(got, expected)
    assert 0 < got.mean() < 1


def test_an_item_is_no_negative_of_itself_or_its_context(small_schema, batch):
    """Where all users have the same two items, there is nothing else to draw."""
    x, y = batch
    x = {**x, "history_item_id": tf.tile([[2, 3, 0, 0, 0, 0, 0]], (40, 1))}
    model = ck.models.DeepMCP(small_schema, embedding_dim=4, units=(8,), matching_weight=0)
    losses, tensors = losses_of(model, x, y)
    past = model.past_item_tower(tensors["history"])
    expected = float(skip_gram_loss(past, tensors["history_mask"], 2, []))
    assert losses["correlation_loss"] == pytest.approx(expected, rel=1e-6)


def test_negatives_are_of_other_rows(small_schema, batch):
    x, y = batch
    model = ck.models.DeepMCP(small_schema, embedding_dim=4, units=(8,), matching_weight=0)
    losses, _ = losses_of(model, x, y)
    again, _ = losses_of(model, x, y)
    assert losses != again  # drawn anew
    one = {name: value[:1] for name, value in x.items()}
    alone, tensors = losses_of(model, one, y[:1])
    past = np.array(model.past_item_tower(tensors["history"]))
    expected = float(skip_gram_loss(past, tensors["history_mask"], 2, []))
    assert alone["correlation_loss"] == pytest.approx(expected, rel=1e-5)


def test_matching_loss_by_hand(small_schema, batch):
    x, y = batch
    model = ck.models.DeepMCP(small_schema, embedding_dim=4, units=(8,), correlation_weight=0)
    losses, tensors = losses_of(model, x, y)
    user = np.array(model.user_tower(tensors["user_side"]))
    item = np.array(model.item_tower(tensors["item_side"]))
    assert np.abs(user).max() < 1
    p = 1 / (1 + np.exp(-(user * item).sum(axis=1)))
    expected = -np.mean(np.where(y.numpy() == 1, np.log(p), np.log(1 - p)))
    assert losses == {"matching_loss": pytest.approx(expected, rel=1e-4)}
    weight = np.arange(40, dtype="float32")
    found = model.auxiliary_losses(x, y, tensors, weight[:, None])["matching_loss"]
    expected = -np.mean(weight * np.where(y.numpy() == 1, np.log(p), np.log(1 - p)))
    assert float(found) == pytest.approx(expected, rel=1e-4)


# DMR


def test_recency_attention():
    rng = np.random.default_rng(0)
    items = rng.normal(size=(3, 4, 5)).astype("float32")
    target = rng.normal(size=(3, 6)).astype("float32")
    mask = np.arange(4) < np.array([[4], [2], [0]])
    layer = RecencyAttention(3)
    pooled, scores = map(np.array, layer(items, mask, target))
    layer.positions.assign(rng.normal(size=(4, 3)))
    pooled, scores = map(np.array, layer(items, mask, target))
    w, b = map(np.array, layer.of_item.weights)
    c, z, p = map(np.array, (layer.of_target.kernel, layer.score.kernel, layer.positions))
    for row, length in enumerate((4, 2, 0)):
        expected = [
            (np.tanh(items[row, t] @ w + b + target[row] @ c + p[length - 1 - t]) @ z)[0]
            for t in range(length)
        ]
        np.testing.assert_allclose(scores[row, :length], expected, rtol=1e-5)
        assert (scores[row, length:] == 0).all()
        weights = np.exp(expected) / np.exp(expected).sum() if length else np.zeros(0)
        np.testing.assert_allclose(pooled[row], weights @ items[row, :length], atol=1e-5)
    with_target = {
        "items": items, "mask": mask, "target": target,
    }  # fmt: skip
    assert layer(**with_target)[0].shape == (3, 5)


def test_match_loss_is_the_full_softmax_where_all_items_are_drawn(small_schema, batch):
    x, y = batch
    model = ck.models.DMR(small_schema, embedding_dim=4, units=(8,))
    losses, tensors = losses_of(model, x, y)
    ids = x["history_item_id"].numpy()
    table = model.get_layer("output_embedding").rows("item_id")
    attention, vector = map(model.get_layer, ("user_to_item_attention", "user_vector"))
    found = []
    for row, length in enumerate((ids != 0).sum(axis=1)):
        if length < 2:
            continue
        before = np.arange(7) < length - 1
        pooled, _ = attention(tensors["history"][row : row + 1], before[None])
        user = np.array(vector(pooled))[0]
        last = ids[row, length - 1]
        others = [n for n in range(2, 42) if n != last]
        scores = np.array([user @ table[n] for n in [last, *others]])
        found.append(np.log(np.exp(scores).sum()) - scores[0])
    assert losses == {"match_loss": pytest.approx(np.mean(found), rel=1e-4)}


def test_match_loss_does_not_see_what_it_predicts(small_schema, batch):
    """The gradient of the last past item's own embedding is zero."""
    x, y = batch
    model = ck.models.DMR(small_schema, embedding_dim=4, units=(8,))
    inputs = {name: x[name] for name in model.input}
    tensors = keras.Model(model.input, model.tensors)(inputs)
    with tf.GradientTape() as tape:
        tape.watch(tensors["history"])
        loss = model.auxiliary_losses(x, y, tensors, None)["match_loss"]
    gradient = tape.gradient(loss, tensors["history"]).numpy()
    lengths = (x["history_item_id"].numpy() != 0).sum(axis=1)
    assert (np.abs(gradient).max(axis=(1, 2)) > 0).sum() > 10
    for row, length in enumerate(lengths):
        assert (gradient[row, max(length - 1, 0) :] == 0).all()


def test_drawn_negatives(small_schema):
    model = ck.models.DMR(small_schema, embedding_dim=4, units=(8,), negatives=20, seed=1)
    first, second = (np.array(model._draw()) for _ in range(2))
    assert len(first) == 20 and first.tolist() != second.tolist()
    assert first.min() >= 2 and first.max() < 42


@pytest.mark.parametrize("name", ["DMR", "DeepMCP"])
def test_a_history_is_needed(name, small_schema):
    schema = ck.Schema([f for f in small_schema if f.role != "history"])
    with pytest.raises(ValueError, match=f"{name} needs a history"):
        getattr(ck.models, name)(schema)
    with pytest.raises(ValueError, match="`negatives=0`"):
        getattr(ck.models, name)(small_schema, negatives=0)
