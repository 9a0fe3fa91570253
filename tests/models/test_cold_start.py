import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import ctr_keras as ck
from ctr_keras.models.cold_start.task_batch import halves
from tests.models.conformance import run_model_conformance


def maml(schema, cls=ck.models.MAML, **kwargs):
    return cls(schema, **{"embedding_dim": 4, "units": (6,), **kwargs})


def melu(schema, **kwargs):
    return maml(schema, ck.models.MeLU, **kwargs)


def dropout_net(schema, base=ck.models.DeepFM, **kwargs):
    return ck.models.DropoutNet(base(schema, embedding_dim=4, units=(6,)), **kwargs)


def a_base(schema, cls=ck.models.DeepFM, **kwargs):
    """A base that has seen ages, as a trained one has."""
    base = cls(schema, embedding_dim=4, units=(6,), **kwargs)
    if "age" in schema:
        base.get_layer("age_scale").moving_mean.assign([40.0])
        base.get_layer("age_scale").moving_variance.assign([100.0])
    return base


def meta_emb(schema, **kwargs):
    return ck.models.MetaEmb(a_base(schema), **kwargs)


MODELS = {"MAML": maml, "MeLU": melu, "DropoutNet": dropout_net, "MetaEmb": meta_emb}
ON_TASKS = ("MAML", "MeLU", "MetaEmb")


@pytest.fixture(scope="module")
def tasks(small_data, small_schema):
    return ck.data.read_tasks(small_data, small_schema, "user_id", support=9, query=6, tasks=7)


@pytest.mark.parametrize("name", MODELS)
def test_conformance(name, small_schema, small_data, tasks, tmp_path):
    train = tasks if name in ON_TASKS else None
    run_model_conformance(MODELS[name], small_schema, small_data, tmp_path, train=train)


# MAML and MeLU

TOY = ck.Schema(
    [
        ck.Feature("user_id", "user", vocabulary=ck.Vocabulary.of_size(9)),
        ck.Feature("item_id", "item", vocabulary=ck.Vocabulary.of_size(8)),
        ck.Feature("past", "history", length=3, shares="item_id"),
        ck.Feature("label", "label", kind="number"),
    ]
)
# Rows of the support and of the query of each task; two tasks lack one of them.
COUNTS = {"support": [4, 2, 0, 3], "query": [3, 1, 2, 0]}


def toy_batch(seed=0):
    """A batch of four tasks; an item comes several times in a task, as target and in the past."""
    rng = np.random.default_rng(seed)
    batch = {}
    for half, counts in COUNTS.items():
        mask = np.arange(max(counts)) < np.array(counts)[:, None]
        x = {
            "user_id": np.arange(2, 6)[:, None] * mask,
            "item_id": rng.integers(1, 8, mask.shape) * mask,
            "past": rng.integers(0, 8, (*mask.shape, 3)) * mask[..., None],
        }
        label = (rng.random(mask.shape) < 0.5) * mask
        batch[half] = ({k: v.astype("int32") for k, v in x.items()}, *(
            v.astype("float32") for v in (label, mask)
        ))  # fmt: skip
    return batch


def toy_model(build, **kwargs):
    """Weights large enough for an inner step to matter."""
    model = build(TOY, activation="tanh", **{"inner_learning_rate": 0.7, **kwargs})
    rng = np.random.default_rng(1)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(0, 0.6, weight.shape))
    model.compile(metrics=[])
    return model


class Reading:
    """The network and its gradients in NumPy, one task at a time, dense tables and no masks."""

    def __init__(self, model):
        table = model.get_layer("embedding")
        self.w = {name: table.rows(name).astype(float) for name in ("user_id", "item_id")}
        decision = model.get_layer("decision")
        weights = zip(decision.kernels, decision.biases, strict=True)
        for name, value in zip(("k0", "b0", "k1", "b1"), sum(weights, ()), strict=True):
            self.w[name] = np.array(value, float)

    @staticmethod
    def rows_of(part, task):
        x, y, mask = part
        kept = mask[task] > 0
        return {k: v[task][kept] for k, v in x.items()}, y[task][kept]

    def forward(self, x, w):
        past = [w["item_id"][p[p > 0]].mean(axis=0) if p.any() else np.zeros(4) for p in x["past"]]
        joint = np.concatenate(
            [w["user_id"][x["user_id"]], w["item_id"][x["item_id"]], np.reshape(past, (-1, 4))],
            axis=1,
        )
        hidden = np.tanh(joint @ w["k0"] + w["b0"])
        return joint, hidden, (hidden @ w["k1"] + w["b1"])[:, 0]

    def loss(self, x, y, w):
        logit = self.forward(x, w)[2]
        return np.mean(np.log1p(np.exp(logit)) - y * logit)

    def gradient(self, x, y, w):
        joint, hidden, logit = self.forward(x, w)
        g = {name: np.zeros_like(value) for name, value in w.items()}
        up = ((1 / (1 + np.exp(-logit)) - y) / len(y))[:, None]
        g["k1"], g["b1"] = hidden.T @ up, up.sum(axis=0)
        up = (up @ w["k1"].T) * (1 - hidden**2)
        g["k0"], g["b0"] = joint.T @ up, up.sum(axis=0)
        up = up @ w["k0"].T
        for row in range(len(y)):
            g["user_id"][x["user_id"][row]] += up[row, :4]
            g["item_id"][x["item_id"][row]] += up[row, 4:8]
            past = x["past"][row][x["past"][row] > 0]
            for item in past:
                g["item_id"][item] += up[row, 8:] / len(past)
        return g

    def adapted(self, batch, task, model, moves_embeddings):
        w = {name: value.copy() for name, value in self.w.items()}
        x, y = self.rows_of(batch["support"], task)
        for _ in range(model.inner_steps if len(y) else 0):
            for name, gradient in self.gradient(x, y, w).items():
                if moves_embeddings or name[0] in "kb":
                    w[name] -= model.inner_learning_rate * gradient
        return w


def outer_loss(model, batch):
    return model._after_adapting(*halves(batch, list(model.input)))[1]


def outer_gradients(model, batch):
    with tf.GradientTape() as tape:
        loss = outer_loss(model, batch)
    found = tape.gradient(loss, model.trainable_weights)
    return {w.path: tf.convert_to_tensor(g).numpy() for w, g in
            zip(model.trainable_weights, found, strict=True)}  # fmt: skip


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("name", ["MAML", "MeLU"])
def test_all_tasks_at_once_are_one_task_at_a_time(name, steps):
    model, batch = toy_model(MODELS[name], inner_steps=steps), toy_batch()
    reading, losses = Reading(model), []
    adapted = model.adapt(batch["support"]).predict(batch["query"][0])
    assert adapted.shape == (4, 3)
    for task in range(4):
        w = reading.adapted(batch, task, model, name == "MAML")
        x, y = reading.rows_of(batch["query"], task)
        if len(y):
            losses.append(reading.loss(x, y, w))
            expected = 1 / (1 + np.exp(-reading.forward(x, w)[2]))
            np.testing.assert_allclose(adapted[task, : len(y)], expected, atol=1e-5)
    assert len(losses) == 3
    assert float(outer_loss(model, batch)) == pytest.approx(np.mean(losses), abs=1e-5)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("name", ["MAML", "MeLU"])
def test_outer_gradient_is_a_finite_difference(name, steps):
    model, batch = toy_model(MODELS[name], inner_steps=steps), toy_batch()
    gradients, rng = outer_gradients(model, batch), np.random.default_rng(2)
    for weight in model.trainable_weights:
        start, losses = weight.numpy(), []
        direction = rng.normal(size=start.shape).astype("float32")
        for step in (0.01, -0.01):
            weight.assign(start + step * direction)
            losses.append(float(outer_loss(model, batch)))
        weight.assign(start)
        expected = (losses[0] - losses[1]) / 0.02
        assert np.sum(gradients[weight.path] * direction) == pytest.approx(expected, abs=2e-4)
        assert abs(expected) > 1e-3


@pytest.mark.parametrize("name", ["MAML", "MeLU"])
def test_first_order_takes_the_inner_gradient_as_a_constant(name):
    model, batch = toy_model(MODELS[name], first_order=True, inner_steps=2), toy_batch()
    reading, parts = Reading(model), []
    for task in (0, 1, 2):
        w = reading.adapted(batch, task, model, name == "MAML")
        parts.append(reading.gradient(*reading.rows_of(batch["query"], task), w))
    expected = {key: np.mean([part[key] for part in parts], axis=0) for key in reading.w}
    found = outer_gradients(model, batch)
    for key, path in {"k0": "kernel_0", "b0": "bias_0", "k1": "kernel_1", "b1": "bias_1"}.items():
        np.testing.assert_allclose(found[f"decision/{path}"], expected[key], atol=1e-5)
    table = np.concatenate([expected["user_id"], expected["item_id"]])
    np.testing.assert_allclose(found["embedding/embeddings_4"], table, atol=1e-5)

    second = outer_gradients(toy_model(MODELS[name], inner_steps=2), batch)
    for path, gradient in found.items():
        assert np.abs(second[path] - gradient).max() > 1e-3


def test_maml_moves_the_embeddings_of_the_support_and_melu_none():
    batch = toy_batch()
    moved = toy_model(maml).adapt(batch["support"]).fast
    touched, x = set(), batch["support"][0]
    for task in range(4):
        touched |= {("user", task, i) for i in x["user_id"][task]}
        touched |= {("item", task, i) for i in (*x["item_id"][task], *x["past"][task].ravel())}
    assert moved.moves.shape == (len([t for t in touched if t[2]]), 4)
    assert (np.abs(moved.moves).max(axis=1) > 0).all()
    fixed = toy_model(melu).adapt(batch["support"]).fast
    assert fixed.moves is None and fixed.touched is None


def test_adapting_leaves_the_model_as_it_is():
    model, batch = toy_model(maml), toy_batch()
    before = model.get_weights()
    model.adapt(batch["support"])
    for x, y in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(x, y)


def test_one_task_needs_no_axis_of_tasks():
    model, batch = toy_model(maml), toy_batch()
    several = model.adapt(batch["support"]).predict(batch["query"][0])
    (x, y, _), (z, _, _) = batch["support"], batch["query"]
    one = model.adapt(({k: v[0] for k, v in x.items()}, y[0]))
    found = one.predict({k: v[0] for k, v in z.items()})
    np.testing.assert_allclose(found, several[0], atol=1e-6)
    lists = model.adapt(({k: v[0].tolist() for k, v in x.items()}, y[0].tolist()))
    found = lists.predict({k: v[0].tolist() for k, v in z.items()})
    np.testing.assert_allclose(found, several[0], atol=1e-6)
    with pytest.raises(ValueError, match="needs the feature 'user_id'"):
        one.predict({k: v[0] for k, v in z.items() if k != "user_id"})


def test_without_support_the_shared_weights_predict():
    model, batch = toy_model(maml), toy_batch()
    x = {k: v[2] for k, v in batch["query"][0].items()}
    alone = model.predict(x, verbose=0)[:, 0]
    adapted = model.adapt(batch["support"]).predict(batch["query"][0])
    np.testing.assert_allclose(adapted[2, :2], alone[:2], atol=1e-6)


def test_adapted_probabilities_are_corrected_for_down_sampling():
    model, batch = toy_model(melu), toy_batch()
    before = model.adapt(batch["support"]).predict(batch["query"][0])
    model.negative_ratio = 0.1
    after = model.adapt(batch["support"]).predict(batch["query"][0])
    np.testing.assert_allclose(after, ck.data.recalibrate(before, 0.1), atol=1e-6)


@pytest.mark.parametrize("name", ["MAML", "MeLU"])
def test_no_query_at_all_is_no_failure(name):
    model, batch = toy_model(MODELS[name]), toy_batch()
    x, y, weight = batch["query"]
    before = model.get_weights()
    empty = ({k: np.zeros_like(v) for k, v in x.items()}, 0 * y, 0 * weight)
    logs = model.train_step({"support": batch["support"], "query": empty})
    assert float(logs["loss"]) == 0
    for old, new in zip(before, model.get_weights(), strict=True):
        assert np.isfinite(new).all() and np.abs(new - old).max() == 0


def test_a_batch_of_padding_alone_is_refused():
    model, batch = toy_model(maml), toy_batch()
    with pytest.raises(tf.errors.InvalidArgumentError, match="needs a row whose weight is not 0"):
        model.train_step(tf.nest.map_structure(np.zeros_like, batch))


def test_numbers_are_scaled_by_rows_that_are_there(small_schema, tasks):
    batch = next(iter(tasks))
    model = maml(small_schema)
    model.compile(metrics=[])
    model.train_step(batch)
    ages = [x["age"][w > 0] for x, _, w in batch.values()]
    scale = model.get_layer("age_scale")
    assert float(scale.moving_mean[0]) == pytest.approx(np.concatenate(ages).mean(), rel=1e-4)


def test_a_task_is_learned(small_schema, small_data):
    """What a user clicks is decided by the user: adapting tells new users apart."""
    tasks = ck.data.read_tasks(small_data, small_schema, "user_id", support=9, query=6, tasks=28)
    model = maml(small_schema, inner_learning_rate=0.5)
    model.compile(ck.optimizers.LazyAdam(0.03))
    logs = model.fit(tasks, epochs=16, verbose=0).history
    assert logs["auc"][-1] > 0.85 and logs["auc"][-1] > logs["auc"][0]


def test_mixed_precision(small_schema, tasks):
    keras.config.set_dtype_policy("mixed_float16")
    model = maml(small_schema)
    model.compile()
    assert np.isfinite(model.fit(tasks, verbose=0).history["loss"][0])


def test_bad_arguments_of_meta_learners(small_schema, small_data, tasks):
    for build in (maml, melu):
        for name, value in {"inner_learning_rate": 0, "inner_steps": 0}.items():
            with pytest.raises(ValueError, match=f"Received: `{name}=0`"):
                build(small_schema, **{name: value})
    model = maml(small_schema)
    model.compile()
    with pytest.raises(ValueError, match="batches of tasks, as `ck.data.read_tasks`"):
        model.fit(ck.data.read(small_data, small_schema, 50), verbose=0)
    x, y, weight = next(iter(tasks))["support"]
    with pytest.raises(ValueError, match="'age'"):
        model.adapt(({k: v for k, v in x.items() if k != "age"}, y, weight))
    with pytest.raises(ValueError, match="`label.shape="):
        model.adapt((x, y[..., None], weight[..., None]))


# DropoutNet


@pytest.fixture(scope="module")
def batch(small_data, small_schema):
    return next(iter(ck.data.read(small_data, small_schema, 200)))


def used_vectors(model, x, training):
    """The id embeddings that reach the network: user's and item's."""
    names = {"user_id": "embedding_user_dropout", "item_id": "embedding_item_dropout"}
    outputs = {key: model.get_layer(name).output for key, name in names.items()}
    graph = keras.Model(model.input, outputs)
    found = graph({name: x[name] for name in model.input}, training=training)
    return {key: value.numpy() for key, value in found.items()}


@pytest.mark.parametrize("fill", ["zero", "mean"])
def test_shares_of_rows_lose_one_of_their_ids(fill, small_schema, batch):
    x, _ = batch
    model = dropout_net(small_schema, user_rate=0.3, item_rate=0.5, fill=fill, seed=4)
    table = model.base.get_layer("embedding")
    kept = {name: table.rows(name)[x[name]] for name in ("user_id", "item_id")}
    unknown = {name: x[name].numpy() == 1 for name in kept}
    assert unknown["item_id"].any() and not unknown["user_id"].any()
    means = {}
    for name in kept:
        known = kept[name][~unknown[name]]
        means[name] = 0.01 * known.mean(axis=0) if fill == "mean" else np.zeros(4)
    used = used_vectors(model, x, training=True)
    dropped = {name: ~(used[name] == kept[name]).all(axis=1) for name in kept}
    for name in kept:
        filled = used[name][dropped[name]]
        np.testing.assert_allclose(filled, np.tile(means[name], (len(filled), 1)), atol=1e-6)
        assert dropped[name][unknown[name]].all()
    item = dropped["item_id"] & ~unknown["item_id"]
    assert not (dropped["user_id"] & item).any()
    assert abs(dropped["user_id"].mean() - 0.3) < 0.1
    assert abs(item[~unknown["item_id"]].mean() - 0.5) < 0.1
    again = used_vectors(model, x, training=True)
    assert not all((again[name] == used[name]).all() for name in used)  # drawn anew

    alone = used_vectors(model, x, training=False)
    for name in kept:
        np.testing.assert_array_equal(alone[name][~unknown[name]], kept[name][~unknown[name]])
    assert np.allclose(alone["item_id"][unknown["item_id"]], means["item_id"] if fill == "zero"
                       else model.get_layer("embedding_item_dropout").mean)  # fmt: skip


def test_known_ids_are_predicted_as_by_the_base(small_schema, batch):
    x, _ = batch
    base = ck.models.DIN(small_schema, embedding_dim=4, units=(6,), attention_units=(4,))
    base.negative_ratio = 0.5
    model = ck.models.DropoutNet(base)
    known = x["item_id"].numpy() > 1
    mine, theirs = (m.predict(x, verbose=0)[:, 0] for m in (model, base))
    np.testing.assert_allclose(mine[known], theirs[known], atol=1e-6)
    assert np.abs(mine[~known] - theirs[~known]).max() > 1e-6
    assert {id(w) for w in base.trainable_weights} == {id(w) for w in model.trainable_weights}


def test_losses_of_the_base_of_dropout_net_stay(small_schema, batch):
    model = dropout_net(small_schema, base=ck.models.DIEN)
    x, y = batch
    inputs = {name: x[name] for name in model.input}
    tensors = keras.Model(model.input, model.tensors)(inputs, training=True)
    assert model.auxiliary_weights == {"interest_loss": 1.0}
    assert model.auxiliary_losses(x, y, tensors, None)["interest_loss"] > 0


def test_one_side_alone(small_schema, batch):
    schema = ck.Schema([f for f in small_schema if f.role != "user"])
    base = ck.models.FM(schema, embedding_dim=4)
    model = ck.models.DropoutNet(base, user_rate=0)
    assert np.isfinite(model.predict(batch[0], verbose=0)).all()
    with pytest.raises(ValueError, match="role 'user'. Received: `base="):
        ck.models.DropoutNet(base)


def test_bad_arguments_of_dropout_net(small_schema):
    for bad in ({"user_rate": -0.1}, {"user_rate": 0.6, "item_rate": 0.6}):
        with pytest.raises(ValueError, match="Received: `user_rate="):
            dropout_net(small_schema, **bad)
    with pytest.raises(ValueError, match="Received: `fill='noise'`"):
        dropout_net(small_schema, fill="noise")
    with pytest.raises(TypeError, match="model of ctr_keras"):
        ck.models.DropoutNet(keras.Sequential())


# MetaEmb


@pytest.fixture(scope="module")
def item_tasks(small_data, small_schema):
    return ck.data.read_tasks(small_data, small_schema, "item_id", support=5, query=5, tasks=8)


def generated(model, x):
    """The generator read from its formula, for features of items (rows, ...)."""
    table = model.base.get_layer("embedding")
    projection = model.base.get_layer("embedding_item_vector").kernel.numpy()
    vectors = []
    for name in ("genres", "title"):
        ids = np.array(x[name])
        rows = table.rows(name)[ids] * (ids > 0)[..., None]
        vectors.append(rows.sum(axis=1) / np.maximum((ids > 0).sum(axis=1), 1)[:, None])
    vectors.append(np.array(x["item_vector"]) @ projection)
    kernel, bias = (w.numpy() for w in model.get_layer("generator").weights)
    return model.scale * np.tanh(np.mean(vectors, axis=0) @ kernel + bias)


def test_generated_embeddings_by_hand(small_schema, batch):
    x, _ = batch
    model = meta_emb(small_schema)
    found = model.initial_embeddings(x)
    assert {name: v.shape for name, v in found.items()} == {
        "linear": (200, 1), "embedding": (200, 4),
    }  # fmt: skip
    expected = generated(model, x)
    np.testing.assert_allclose(
        np.concatenate([found["linear"], found["embedding"]], axis=1), expected, atol=1e-5
    )


@pytest.mark.parametrize("key", ["item", "user"])
def test_unknown_ids_alone_are_predicted_from_generated_ones(key, small_schema, batch):
    x = dict(batch[0])
    base = a_base(small_schema)
    base.negative_ratio = 0.5
    model = ck.models.MetaEmb(base, key)
    feature = f"{key}_id"
    ids = x[feature].numpy().copy()
    ids[:20], ids[20:30] = 1, 0
    x[feature] = tf.constant(ids)
    found, plain = (m.predict(x, verbose=0)[:, 0] for m in (model, base))
    np.testing.assert_allclose(found[ids != 1], plain[ids != 1], atol=1e-6)
    assert np.abs(found[ids == 1] - plain[ids == 1]).max() > 1e-4
    # The same as if each new one had its row in the tables.
    for row in np.flatnonzero(ids == 1)[:5]:
        one = {name: value[row : row + 1] for name, value in x.items()}
        for table, vector in model.initial_embeddings(one).items():
            base.get_layer(table).assign_rows(feature, vector, [5])
        as_known = {**one, feature: tf.constant([5], "int32")}
        assert base.predict(as_known, verbose=0)[0, 0] == pytest.approx(found[row], abs=1e-5)


def test_only_the_generator_learns(small_schema, item_tasks):
    base = a_base(small_schema, ck.models.DIN)
    model = ck.models.MetaEmb(base)
    model.compile(ck.optimizers.LazyAdam(0.02))
    before = {id(w): w.numpy() for w in base.variables if "optimizer" not in w.path}
    start = [w.numpy() for w in model.get_layer("generator").weights]
    logs = model.fit(item_tasks, epochs=6, verbose=0).history
    assert logs["loss"][-1] < logs["loss"][0]
    for weight in base.weights:
        np.testing.assert_array_equal(weight, before[id(weight)])
    for old, new in zip(start, model.get_layer("generator").weights, strict=True):
        assert np.abs(new.numpy() - old).max() > 1e-3
    assert {w.path for w in model.trainable_weights} == {"generator/dense/kernel",
                                                         "generator/dense/bias"}  # fmt: skip
    assert base.trainable_weights  # the base can go on learning by itself


def test_generator_loss_by_hand(small_schema, item_tasks):
    """Each task by itself: phi, a finite-difference step on mini-batch a, the loss on b."""
    base = a_base(small_schema, activation="tanh")
    model = ck.models.MetaEmb(base, alpha=0.3, inner_learning_rate=2.0)
    model.compile(metrics=[])
    data = next(iter(item_tasks))
    data = {half: (nobodys_past(x), *y) for half, (x, *y) in data.items()}
    losses = [generator_loss(model, data, task) for task in range(8)]
    logs = model.train_step(data)
    assert float(logs["loss"]) == pytest.approx(np.mean(losses), rel=1e-3)


def nobodys_past(x):
    """Features in which row 5, which is to stand for new items, is in no history."""
    history = x["history_item_id"]
    return {**x, "history_item_id": tf.where(history == 5, 0, history)}


def rows_of(half, task):
    x, y, weight = half
    kept = weight[task].numpy() > 0
    rows = {name: value[task][kept] for name, value in x.items()}
    return {**rows, "item_id": tf.fill((kept.sum(),), 5)}, y[task].numpy()[kept]


def logit_as_new(model, x, vector):
    """The base's logits if row 5 of its tables were `vector`."""
    for table, part in {"linear": vector[:1], "embedding": vector[1:]}.items():
        model.base.get_layer(table).assign_rows("item_id", part[None], [5])
    logits = keras.Model(model.base.input, model.base.tensors["logit"])
    return logits({name: x[name] for name in model.input}).numpy()[:, 0].astype(float)


def loss_as_new(model, x, y, vector):
    logit = logit_as_new(model, x, vector)
    return np.mean(np.logaddexp(0, logit) - y * logit)


def gradient_as_new(model, x, y, start):
    loss = [[loss_as_new(model, x, y, start + s * d) for s in (1, -1)] for d in 0.01 * np.eye(5)]
    return np.array([(up - down) / 0.02 for up, down in loss])


def generator_loss(model, data, task):
    a, b = (rows_of(data[half], task) for half in ("support", "query"))
    saved = [w.numpy() for w in model.base.weights]
    # The rows of an item differ in their vectors, so the start is a mean.
    start = np.mean(np.concatenate([generated(model, x) for x, _ in (a, b)]), axis=0)
    end = start - model.inner_learning_rate * gradient_as_new(model, *a, start)
    total = model.alpha * loss_as_new(model, *a, start)
    total += (1 - model.alpha) * loss_as_new(model, *b, end)
    for weight, value in zip(model.base.weights, saved, strict=True):
        weight.assign(value)
    return total


def test_adapting_meta_emb_is_an_inner_step(small_schema, item_tasks):
    model = ck.models.MetaEmb(a_base(small_schema, activation="tanh"), inner_learning_rate=2.0)
    data = {half: (nobodys_past(x), *y) for half, (x, *y) in next(iter(item_tasks)).items()}
    support, query = data["support"], data["query"]
    none = (support[0], support[1], tf.zeros_like(support[2]))
    found, unmoved = (model.adapt(part).predict(query[0]) for part in (support, none))
    unknown = {name: x[0] for name, x in query[0].items()}
    unknown["item_id"] = tf.ones_like(unknown["item_id"])
    np.testing.assert_allclose(unmoved[0], model.predict(unknown, verbose=0)[:, 0], atol=1e-5)
    for task in range(3):
        rows, labels = rows_of(support, task)
        start = generated(model, rows).mean(axis=0)
        move = -model.inner_learning_rate * gradient_as_new(model, rows, labels, start)
        x, _ = rows_of(query, task)
        for number, vector in enumerate(generated(model, x) + move):
            one = {name: value[number : number + 1] for name, value in x.items()}
            expected = 1 / (1 + np.exp(-logit_as_new(model, one, vector)[0]))
            assert found[task, number] == pytest.approx(expected, abs=1e-4)


def test_bad_arguments_of_meta_emb(small_schema, small_data, item_tasks, tmp_path):
    with pytest.raises(ValueError, match="`DropoutNet` fills in .*give the model that it wraps"):
        ck.models.MetaEmb(dropout_net(small_schema))
    bad = {"key": "scenario", "alpha": 1.5, "inner_learning_rate": 0, "scale": -1}
    for name, value in bad.items():
        with pytest.raises(ValueError, match=f"Received: `{name}={value!r}`"):
            meta_emb(small_schema, **{name: value})
    schema = ck.Schema([f for f in small_schema if f.name != "age"])
    with pytest.raises(ValueError, match="beside 'user_id', to generate from"):
        meta_emb(schema, key="user")
    model = meta_emb(small_schema)
    model.base.negative_ratio = 0.5
    model.compile()
    with pytest.raises(ValueError, match="`x.negative_ratio=1.0`"):
        model.fit(item_tasks, verbose=0)
    with pytest.raises(ValueError, match="needs the feature 'genres'"):
        model.initial_embeddings({"title": np.zeros((2, 4), int)})


def test_a_meta_learner_learns_from_saturated_rows(small_schema):
    """Whatever is far off has the gradient of its logit, not none as beyond a clipped score."""
    model = meta_emb(small_schema)
    model.compile(metrics=[])
    rows = types.SimpleNamespace(label=tf.constant([[0.0, 1.0]]), mean_weight=tf.ones((1, 2)))
    logit = tf.Variable([[30.0, -40.0]])
    with tf.GradientTape() as tape:
        loss = model._mean_loss(rows, logit)
    assert float(loss) == pytest.approx(35, rel=1e-5)
    np.testing.assert_allclose(tape.gradient(loss, logit), [[0.5, -0.5]], atol=1e-5)


@pytest.mark.parametrize("name", ["MAML", "MeLU", "DropoutNet"])
def test_the_graph_inside_can_be_saved_as_a_keras_model(name, small_schema, batch, tmp_path):
    model = MODELS[name](small_schema)
    inner = keras.Model(model.input, model.tensors["logit"])
    inner.save(tmp_path / "inner.keras")
    x = {name: batch[0][name] for name in model.input}
    loaded = keras.models.load_model(tmp_path / "inner.keras")
    np.testing.assert_allclose(loaded(x), inner(x), atol=1e-6)
