import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import ctr_keras as ck
from ctr_keras.api_export import export
from ctr_keras.models.features import embed, joined, model_inputs, scaled


def compiled(schema, **kwargs):
    model = ck.models.FM(schema, embedding_dim=4)
    model.compile(**kwargs)
    return model


@export
class WithAuxiliary(ck.models.CTRModel):
    """A base with one auxiliary loss whose head only training needs."""

    def __init__(self, schema, weight=0.5, **kwargs):
        schema = ck.Schema.of(schema)
        inputs = model_inputs(schema)
        user = joined(embed(schema, scaled(schema, inputs), 4, "embedding").of_roles("user"))
        logit = keras.layers.Dense(1, name="logit")(user)
        super().__init__(
            schema, inputs, logit, tensors={"user": user}, auxiliary_weights={"norm_loss": weight},
            **kwargs,
        )  # fmt: skip
        self.weight = weight
        self.head = keras.layers.Dense(3, name="head")
        self.head.build(user.shape)

    def auxiliary_losses(self, x, y, tensors, sample_weight):
        return {"norm_loss": tf.reduce_mean(tf.square(self.head(tensors["user"]) - 1))}

    def get_config(self):
        return {**super().get_config(), "weight": self.weight}


def test_auxiliary_loss_is_added_and_logged(small_schema, small_data):
    rows = ck.data.read(small_data, small_schema, 600)
    model = WithAuxiliary(small_schema)
    model.compile(ck.optimizers.LazyAdam(0.01))
    x, y = next(iter(rows))
    inputs = {name: x[name] for name in model.input}
    user = keras.Model(model.input, model.tensors["user"])(inputs, training=True)
    head = float(tf.reduce_mean(tf.square(model.head(user) - 1)))
    probability = model(x, training=True)[:, 0]
    ctr = float(keras.losses.binary_crossentropy(y, probability))
    logs = {k: v[0] for k, v in model.fit(rows, verbose=0, shuffle=False).history.items()}
    assert set(logs) == {"loss", "ctr_loss", "norm_loss", "auc"}
    assert logs["norm_loss"] == pytest.approx(head, abs=1e-4)
    assert logs["ctr_loss"] == pytest.approx(ctr, abs=1e-3)
    assert logs["loss"] == pytest.approx(logs["ctr_loss"] + 0.5 * logs["norm_loss"], abs=1e-5)


def test_evaluation_reports_no_parts_of_the_loss(small_schema, small_data):
    rows = ck.data.read(small_data, small_schema, 300)
    model = WithAuxiliary(small_schema)
    model.compile(metrics=["AUC", ck.metrics.GAUC(group="group")])
    history = model.fit(rows, validation_data=rows, verbose=0, shuffle=False).history
    evaluated = {"loss", "auc", "gauc"}
    trained = {"loss", "ctr_loss", "norm_loss", "auc"}
    assert set(history) == trained | {f"val_{name}" for name in evaluated}
    logs = model.evaluate(rows, verbose=0, return_dict=True)
    assert set(logs) == evaluated
    assert len(model.evaluate(rows, verbose=0)) == len(evaluated)
    assert set(model.test_on_batch(*next(iter(rows)), return_dict=True)) == evaluated


def test_auxiliary_head_learns_and_stays_out_of_inference(small_schema, small_data, tmp_path):
    rows = ck.data.read(small_data, small_schema, 100)
    model = WithAuxiliary(small_schema)
    model.compile()
    before = model.head.kernel.numpy().copy()
    model.fit(rows, verbose=0, shuffle=False)
    assert np.abs(model.head.kernel.numpy() - before).max() > 0
    inference = {w.path for w in model.inference_model().variables}
    assert inference and not any("head" in path for path in inference)
    assert any("head" in w.path for w in model.trainable_variables)

    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.head.kernel, model.head.kernel)
    version = ck.serving.export(model, tmp_path / "saved")
    names = [name for name, _ in tf.train.list_variables(str(version / "variables/variables"))]
    exported = sum("weights" in name for name in names)
    assert exported == len(model.inference_model().variables)


def test_wrong_auxiliary_names_are_refused(small_schema, small_data):
    model = WithAuxiliary(small_schema)
    model.auxiliary_weights = {"other_loss": 1.0}
    model.compile()
    with pytest.raises(ValueError, match="other_loss"):
        model.fit(ck.data.read(small_data, small_schema, 100), verbose=0, shuffle=False)


def test_defaults(small_schema):
    model = compiled(small_schema)
    assert isinstance(model.optimizer, ck.optimizers.LazyAdam)
    assert model.loss == "binary_crossentropy"
    assert model.jit_compile is False


def test_a_step_is_traced_once(small_schema, small_data, monkeypatch):
    model = compiled(small_schema)
    steps = []
    step = model.train_step
    monkeypatch.setattr(model, "train_step", lambda data: steps.append(data) or step(data))
    model.fit(ck.data.read(small_data, small_schema, 100), epochs=2, verbose=0, shuffle=False)
    assert len(steps) == 1


MODELS_OF_GROUPS = {
    "FM": lambda schema: ck.models.FM(schema, embedding_dim=4),
    "DIEN": lambda schema: ck.models.DIEN(schema, embedding_dim=4, units=(8,)),
    "AT4CTR": lambda schema: ck.models.AT4CTR(ck.models.DIN(schema, embedding_dim=4, units=(8,))),
}


@pytest.mark.parametrize("name", MODELS_OF_GROUPS)
def test_group_metric_in_fit_is_the_plain_function(name, small_schema, small_data):
    """With losses that training alone has, too."""
    rows = ck.data.read(small_data, small_schema, 64)
    model = MODELS_OF_GROUPS[name](small_schema)
    model.compile(metrics=["AUC", ck.metrics.GAUC(group="group")])
    history = model.fit(rows, validation_data=rows, epochs=2, verbose=0, shuffle=False).history
    logs = model.evaluate(rows, verbose=0, return_dict=True)
    assert "gauc" not in history and history["val_gauc"][-1] == logs["gauc"]
    batches = list(rows)
    scores = np.concatenate([model.predict_on_batch(x)[:, 0] for x, _ in batches])
    labels = np.concatenate([y for _, y in batches])
    groups = np.concatenate([x["group"] for x, _ in batches])
    assert logs["gauc"] == pytest.approx(ck.metrics.gauc(labels, scores, groups).value, abs=1e-5)


def test_only_weighted_metrics_take_sample_weights(small_schema, small_data, tmp_path):
    x, y = next(iter(ck.data.read(small_data, small_schema, 600)))
    weight = np.random.default_rng(0).random(len(y)).astype("float32")
    x["group"] = tf.where(x["group"] % 5 == 0, tf.constant(-1, tf.int64), x["group"])
    model = compiled(
        small_schema,
        metrics=[ck.metrics.GAUC(group="group")],
        weighted_metrics=["AUC", ck.metrics.GAUC(group="group", name="weighted")],
    )
    model.save(tmp_path / "m.keras")
    scores = model.predict(x, verbose=0)
    present = x["group"].numpy() != -1
    labels, groups = y.numpy()[present], x["group"].numpy()[present]
    plain = ck.metrics.gauc(labels, scores[present], groups)
    weighted = ck.metrics.gauc(labels, scores[present], groups, weight[present])
    assert plain.value != weighted.value
    for each in (model, keras.models.load_model(tmp_path / "m.keras")):
        data = tf.data.Dataset.from_tensors((x, y, weight))
        logs = each.evaluate(data, verbose=0, return_dict=True)
        assert logs["gauc"] == pytest.approx(plain.value, abs=1e-5)
        assert logs["weighted"] == pytest.approx(weighted.value, abs=1e-5)


def test_users_out_of_vocabulary_are_not_one_user(tmp_path):
    users = ck.Vocabulary.write(tmp_path / "users.txt", ["7", "8"])
    label = ck.Feature("label", "label", kind="number")
    schema = ck.Schema([ck.Feature("user_id", "user", vocabulary=users), label])
    model = compiled(schema, metrics=[ck.metrics.GAUC(), ck.metrics.ScenarioAUC("user_id", 4)])
    # Missing, unknown, the first user, the second: none but the third has both classes and counts.
    x = {"user_id": np.array([0, 0, 1, 1, 2, 2, 3], "int32")}
    y = np.array([0, 1, 0, 1, 0, 1, 1], "float32")
    model.evaluate(x, y, verbose=0)
    gauc, by_scenario = (metric.report() for metric in model.metrics[-2:])
    assert (gauc.num_rows, gauc.num_groups, gauc.skipped_groups) == (3, 2, 1)
    assert list(by_scenario.by_scenario) == [0, 1, 2, 3]  # Scenarios are counted, known or not.


def test_group_metric_survives_saving_and_compiling_again(small_schema, small_data, tmp_path):
    rows = ck.data.read(small_data, small_schema, 64)
    model = compiled(small_schema, metrics=["AUC", ck.metrics.GAUC(group="group")])
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    for each in (model, loaded):
        assert set(each.evaluate(rows, verbose=0, return_dict=True)) == {"loss", "auc", "gauc"}
    model.compile(metrics=[])
    assert set(model.evaluate(rows, verbose=0, return_dict=True)) == {"loss"}


def test_group_metric_needs_its_feature(small_schema):
    with pytest.raises(ValueError, match="group='colour'"):
        compiled(small_schema, metrics=[ck.metrics.GAUC(group="colour")])


def test_metrics_must_be_a_list(small_schema):
    for metrics in ("AUC", {"probability": ["AUC"]}):
        with pytest.raises(TypeError, match="`metrics` must be a list"):
            compiled(small_schema, metrics=metrics)


def test_auc_by_name_is_that_of_the_package(small_schema):
    model = compiled(small_schema, metrics=["AUC"], weighted_metrics=["AUC"])
    x = {name: np.zeros((2, *shape.shape[1:]), shape.dtype) for name, shape in model.input.items()}
    model.evaluate(x, np.array([0.0, 1.0]), verbose=0)
    found = {type(m) for m in model._compile_metrics.metrics}
    assert found == {ck.metrics.AUC}


def test_float16_scales_losses_without_dense_tables(small_schema, small_data):
    keras.config.set_dtype_policy("mixed_float16")
    model = compiled(small_schema)
    assert type(model.optimizer) is ck.optimizers.LossScaleOptimizer
    logs = model.fit(ck.data.read(small_data, small_schema, 100), verbose=0, shuffle=False).history
    assert np.isfinite(logs["loss"][0])


def test_missing_feature_is_named(small_schema, small_data):
    model = compiled(small_schema)
    x, _ = next(iter(ck.data.read(small_data, small_schema, 8)))
    del x["age"]
    with pytest.raises(ValueError, match="'age'"):
        model(x)


def test_callbacks(small_schema, small_data, tmp_path):
    rows = ck.data.read(small_data, small_schema, 100)
    model = compiled(small_schema)
    seen = []
    history = model.fit(
        rows,
        validation_data=rows,
        epochs=4,
        verbose=0,
        shuffle=False,
        callbacks=[
            keras.callbacks.BackupAndRestore(tmp_path / "backup"),
            keras.callbacks.CSVLogger(tmp_path / "log.csv"),
            keras.callbacks.EarlyStopping("val_loss", patience=9, restore_best_weights=True),
            keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs)),
            keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5),
            keras.callbacks.ModelCheckpoint(
                tmp_path / "{epoch}.keras", monitor="val_auc", mode="max"
            ),
            keras.callbacks.ReduceLROnPlateau("val_loss", patience=9),
            keras.callbacks.TensorBoard(tmp_path / "board", histogram_freq=1),
            keras.callbacks.TerminateOnNaN(),
        ],
    )
    assert len(seen) == 4 and seen[0].keys() >= {"loss", "auc", "val_loss", "val_auc"}
    assert float(model.optimizer.learning_rate.numpy()) == pytest.approx(1e-3 / 16)
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert (tmp_path / "log.csv").read_text().count("\n") == 5
    keras.models.load_model(tmp_path / "4.keras")
    assert list((tmp_path / "board").rglob("events*"))


def test_sample_weight_of_zero_leaves_a_row_out(small_schema, small_data):
    x, y = next(iter(ck.data.read(small_data, small_schema, 40)))
    first = {name: value[:20] for name, value in x.items()}
    weight = np.repeat([1.0, 0.0], 20).astype("float32")
    model = compiled(small_schema, metrics=[])
    weighted = model.evaluate(x, y, sample_weight=weight, batch_size=40, verbose=0)
    # Keras divides by the number of rows, weighted or not.
    assert weighted == pytest.approx(model.evaluate(first, y[:20], verbose=0) / 2, abs=1e-5)


def test_one_class_only_is_no_failure(small_schema, small_data):
    x, y = next(iter(ck.data.read(small_data, small_schema, 40)))
    model = compiled(small_schema)
    logs = model.fit(x, tf.zeros_like(y), verbose=0).history
    assert np.isfinite(logs["loss"][0]) and np.isnan(logs["auc"][0])


def test_all_padding_histories_train(small_schema, small_data):
    x, y = next(iter(ck.data.read(small_data, small_schema, 40)))
    x["history_item_id"] = tf.zeros_like(x["history_item_id"])
    model = ck.models.DIN(small_schema, embedding_dim=4, units=(4,))
    model.compile()
    assert np.isfinite(model.fit(x, y, verbose=0).history["loss"][0])
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_mixed_precision(small_schema, small_data, tmp_path):
    rows = ck.data.read(small_data, small_schema, 100)
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = ck.models.DIN(small_schema, embedding_dim=4, units=(8,))
    model.compile()
    assert np.isfinite(model.fit(rows, verbose=0, shuffle=False).history["loss"][0])
    x, _ = next(iter(rows))
    expected = model.predict(x, verbose=0)
    assert expected.dtype == np.float32
    model.save(tmp_path / "m.keras")
    keras.config.set_dtype_policy("float32")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), expected)
    assert keras.config.dtype_policy().name == "float32"


WRAPPED = {
    "no other": lambda base: base,
    "AT4CTR": lambda base: ck.models.AT4CTR(base, rows=20),
    "DropoutNet": ck.models.DropoutNet,
}


@pytest.mark.parametrize("wrap", WRAPPED)
def test_frozen_layers_stay_frozen(wrap, small_schema, small_data, tmp_path):
    base = ck.models.DNN(small_schema, embedding_dim=4, units=(4,))
    base.get_layer("embedding").trainable = False
    model = WRAPPED[wrap](base)
    if wrap == "AT4CTR":
        model.user_item_match.trainable = False
    model.compile(metrics=[])
    rows = ck.data.read(small_data, small_schema, 300)
    model.fit(rows, verbose=0, shuffle=False)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert not loaded.get_layer("embedding").trainable
    paths = [[w.path for w in m.trainable_weights] for m in (model, loaded)]
    assert paths[0] == paths[1] and len(paths[0]) < len(model.weights)
    assert loaded.optimizer.iterations == model.optimizer.iterations == 2
    before = loaded.get_layer("embedding").get_weights()
    loaded.fit(rows, verbose=0, shuffle=False)
    np.testing.assert_array_equal(loaded.get_layer("embedding").get_weights(), before)


def test_configuration_of_earlier_versions(small_schema):
    config = compiled(small_schema).get_config()
    del config["frozen"]
    assert all(layer.trainable for layer in ck.models.FM.from_config(config).layers)


def test_model_file_stands_alone(small_schema, small_data, tmp_path):
    model = compiled(small_schema.save(tmp_path / "schema"))
    model.save(tmp_path / "m.keras")
    for path in (tmp_path / "schema" / "vocabularies").iterdir():
        path.unlink()
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.schema.fingerprint == small_schema.fingerprint
    assert len(list(ck.data.read(small_data, loaded.schema, 300))) == 2
    ck.serving.export(loaded, tmp_path / "saved")


COPIED = {
    "DNN": lambda schema: ck.models.DNN(schema, embedding_dim=4, units=(4,)),
    "AT4CTR": lambda schema: ck.models.AT4CTR(ck.models.FM(schema, embedding_dim=4)),
    "KnowledgeExtractor": lambda schema: ck.models.KnowledgeExtractor(
        schema, 3, units=(4,), attention_units=(2,)
    ),
}


@pytest.mark.parametrize("name", COPIED)
def test_a_copy_has_the_vocabularies(name, small_schema, tmp_path):
    model = COPIED[name](small_schema.save(tmp_path / "schema"))
    model.save(tmp_path / "m.keras")
    shutil.move(tmp_path / "schema", tmp_path / "elsewhere")
    for each in (keras.models.load_model(tmp_path / "m.keras"), COPIED[name](small_schema)):
        copy = type(each).from_config(each.get_config())
        copy.save(tmp_path / "copy.keras")
        loaded = keras.models.load_model(tmp_path / "copy.keras")
        assert loaded.schema.fingerprint == each.schema.fingerprint
        ck.serving.export(copy, tmp_path / "saved")


def test_a_copy_takes_no_changed_vocabulary(small_schema, tmp_path):
    schema = small_schema.save(tmp_path)
    config = compiled(schema).get_config()
    file = tmp_path / "vocabularies/item_id.txt"
    assert config["schema"]["features"][2]["vocabulary"]["file"] == str(file)
    file.write_text(file.read_text() + "another\n")
    copy = ck.models.FM.from_config(config)
    assert copy.schema.fingerprint == schema.fingerprint
    with pytest.raises(ValueError, match="does not exist"):
        copy.save(tmp_path / "m.keras")
