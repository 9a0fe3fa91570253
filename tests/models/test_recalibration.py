import keras
import numpy as np
import pytest
import tensorflow as tf

import ctr_keras as ck
from ctr_keras.models.recalibration import Recalibration
from ctr_keras.negative_ratio import negative_ratio_of
from tests.conftest import make_rows
from tests.models.test_ctr_model import WithAuxiliary, compiled


@pytest.fixture
def batch(small_schema, small_data):
    return next(iter(ck.data.read(small_data, small_schema, 600)))


def sampled(data, schema, ratio=0.1):
    return ck.data.read(data, schema, 100, negative_ratio=ratio)


def test_layer_is_the_formula():
    logit = np.linspace(-30, 30, 13, dtype=np.float32)[:, None]
    layer = Recalibration()
    np.testing.assert_array_equal(layer(logit), logit)
    layer.negative_ratio.assign(0.03)
    np.testing.assert_array_equal(layer(logit, training=True), logit)
    p = 1 / (1 + np.exp(-logit.astype(np.float64)))
    got = keras.ops.sigmoid(layer(logit, training=False))
    np.testing.assert_allclose(got, p / (p + (1 - p) / 0.03), rtol=1e-5)
    np.testing.assert_array_equal(layer(logit), layer(logit, training=False))
    np.testing.assert_allclose(got, ck.data.recalibrate(p, 0.03), rtol=1e-5)


def test_layer_computes_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    layer = Recalibration()
    for training in (False, True):
        out = layer(tf.ones((2, 1), tf.bfloat16), training=training)
        assert out.dtype == tf.float32
    assert layer.negative_ratio.dtype == "float32" and not layer.trainable_weights
    again = Recalibration.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


def test_weights_of_older_files_are_ratio_one():
    layer = Recalibration()
    layer.build((None, 1))
    layer.load_own_variables({})
    assert float(layer.negative_ratio.numpy()) == 1
    layer.load_own_variables({"0": np.float32(0.5)})
    assert float(layer.negative_ratio.numpy()) == 0.5


def test_ratio_is_a_weight_that_is_not_trained(small_schema):
    model = compiled(small_schema)
    assert model.negative_ratio == 1.0
    model.negative_ratio = 0.1
    assert model.negative_ratio == 0.1
    paths = [weight.path for weight in model.non_trainable_weights]
    assert paths.count("recalibration/negative_ratio") == 1
    assert len({weight.path for weight in model.weights}) == len(model.weights)
    copy = type(model).from_config(model.get_config())
    assert copy.negative_ratio == 1
    copy.set_weights(model.get_weights())
    assert copy.negative_ratio == 0.1


@pytest.mark.parametrize("ratio", [0, -1, 1.5, float("nan"), "all", None])
def test_bad_ratio(small_schema, ratio):
    model = compiled(small_schema)
    with pytest.raises(ValueError, match=r"`negative_ratio` must be .* in \(0, 1\]"):
        model.negative_ratio = ratio
    assert model.negative_ratio == 1


def test_all_ways_to_infer_agree(small_schema, small_data, batch, tmp_path):
    x, y = batch
    model = compiled(small_schema, metrics=[ck.metrics.CalibrationRatio()])
    model.fit(ck.data.read(small_data, small_schema, 100), verbose=0, shuffle=False)
    in_training = model(x, training=True).numpy()
    model.negative_ratio = 0.2
    np.testing.assert_array_equal(model(x, training=True), in_training)
    model.negative_ratio = 1
    # After the calls in training, which move the averages of normalized numbers.
    before = model.predict(x, verbose=0)
    model.negative_ratio = 0.2
    expected = ck.data.recalibrate(before, 0.2)
    for got in (
        model(x),
        model(x, training=False),
        model.predict(x, verbose=0),
        model.predict_on_batch(x),
        model.inference_model()({name: x[name] for name in model.input}),
        copied(model)({name: x[name] for name in model.input}),
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-5)
    logs = model.evaluate(x, y, batch_size=600, verbose=0, return_dict=True)
    assert logs["calibration_ratio"] == pytest.approx(expected.sum() / y.numpy().sum(), rel=1e-5)
    loss = -np.log(np.where(y == 1, expected[:, 0], 1 - expected[:, 0].astype(np.float64)))
    assert logs["loss"] == pytest.approx(loss.mean(), rel=1e-3)
    result = ck.training.evaluate(model, small_data)
    assert result.calibration_ratio == pytest.approx(logs["calibration_ratio"], rel=1e-5)
    assert result.log_loss == pytest.approx(ck.metrics.log_loss(y, expected[:, 0]), rel=1e-3)
    check_export(model, expected, tmp_path)


def copied(model):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def check_export(model, expected, folder, rtol=1e-5):
    ck.data.write(folder / "rows", model.schema, make_rows(600), layout="row")
    records = tf.data.TFRecordDataset([str(p) for p in (folder / "rows").glob("part-*")])
    version = ck.serving.export(model, folder / "saved")
    serve = tf.saved_model.load(str(version)).signatures["serving_examples"]
    got = serve(examples=tf.stack(list(records)))["probability"]
    np.testing.assert_allclose(got, expected[:, 0], rtol=rtol)


def test_ratio_is_saved_and_restored(small_schema, small_data, batch, tmp_path):
    model = compiled(small_schema)
    model.fit(sampled(small_data, small_schema), verbose=0, shuffle=False)
    expected = model.predict(batch[0], verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.negative_ratio == 0.1
    np.testing.assert_array_equal(loaded.predict(batch[0], verbose=0), expected)
    model.save_weights(tmp_path / "m.weights.h5")
    other = compiled(small_schema)
    other.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_array_equal(other.predict(batch[0], verbose=0), expected)


def test_fit_takes_the_ratio_from_the_rows(small_schema, small_data, batch):
    model = compiled(small_schema)
    model.fit(sampled(small_data, small_schema, 0.25), verbose=0, shuffle=False)
    assert model.negative_ratio == 0.25
    model.fit(*batch, verbose=0)
    assert model.negative_ratio == 0.25
    model.fit(ck.data.read(small_data, small_schema, 100), verbose=0, shuffle=False)
    assert model.negative_ratio == 1


@pytest.mark.parametrize(
    "derived",
    [
        lambda rows: rows.prefetch(2).map(lambda x, y: (x, y)),
        lambda rows: rows.take(2),
        lambda rows: rows.unbatch().batch(64),
        lambda rows: tf.data.Dataset.zip(rows, tf.data.Dataset.range(99)).map(lambda row, i: row),
        lambda rows: rows.concatenate(rows).cache().repeat(2).with_options(tf.data.Options()),
        lambda rows: tf.data.Dataset.sample_from_datasets([rows, rows.skip(1)]),
    ],
    ids=["prefetch-map", "take", "unbatch", "zip", "concatenate", "sample"],
)
def test_the_ratio_comes_through_operations_on_the_rows(small_schema, small_data, derived):
    assert negative_ratio_of(derived(sampled(small_data, small_schema, 0.25))) == 0.25


def test_fit_takes_the_ratio_from_what_is_made_of_the_rows(small_schema, small_data):
    model = compiled(small_schema)
    model.fit(sampled(small_data, small_schema, 0.25).take(1), verbose=0, shuffle=False)
    assert model.negative_ratio == 0.25
    whole = ck.data.read(small_data, small_schema, 100)
    own = whole.filter(lambda x, y: True).take(1)
    with pytest.warns(UserWarning, match="may lack negatives.*`model.negative_ratio=0.25`"):
        model.fit(own, verbose=0, shuffle=False)
    assert model.negative_ratio == 0.25
    own.negative_ratio = 0.5
    model.fit(own, verbose=0, shuffle=False)
    assert model.negative_ratio == 0.5
    mixed = whole.concatenate(sampled(small_data, small_schema))
    with pytest.raises(ValueError, match=r"different shares.*`negative_ratio=\[0.1, 1.0\]`"):
        model.fit(mixed, verbose=0)


def test_training_does_not_see_the_ratio(small_schema, small_data):
    weights = []
    for ratio in (None, 0.1):
        keras.utils.set_random_seed(1)
        model = compiled(small_schema)
        rows = ck.data.read(small_data, small_schema, 100)
        del rows.negative_ratio
        if ratio is not None:
            model.negative_ratio = ratio
        logs = model.fit(rows, verbose=0, shuffle=False).history
        weights.append([np.array(w.numpy()) for w in model.trainable_weights] + [logs["loss"]])
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_validation_is_corrected_and_must_be_whole(small_schema, small_data):
    model = compiled(small_schema, metrics=[ck.metrics.CalibrationRatio()])
    whole = ck.data.read(small_data, small_schema, 100)
    rows = sampled(small_data, small_schema)
    logs = model.fit(rows, validation_data=whole, verbose=0, shuffle=False).history
    assert logs["val_loss"][0] == pytest.approx(model.evaluate(whole, verbose=0)[0], rel=1e-5)
    with pytest.warns(UserWarning, match="validation rows lack negatives.*=0.1"):
        model.fit(whole, validation_data=rows, verbose=0, shuffle=False)


def test_auxiliary_tasks_see_the_logit_of_training(small_schema, small_data, batch):
    model = WithAuxiliary(small_schema)
    model.compile()
    model.negative_ratio = 0.1
    graph = keras.Model(model.input, {"p": model.outputs[0], "logit": model.tensors["logit"]})
    inputs = {name: batch[0][name] for name in model.input}
    for training, shift in ((True, 0), (False, np.log(0.1))):
        out = graph(inputs, training=training)
        np.testing.assert_allclose(out["p"], tf.sigmoid(out["logit"] + shift), rtol=1e-5)
    history = model.fit(sampled(small_data, small_schema, 0.5), verbose=0, shuffle=False).history
    assert set(history) >= {"ctr_loss", "norm_loss"} and model.negative_ratio == 0.5


def test_a_model_on_anothers_logit_shares_its_ratio(small_schema, batch, tmp_path):
    base = compiled(small_schema)
    outer = ck.models.CTRModel(small_schema, base.input, base.tensors["logit"])
    outer.base = base
    outer.negative_ratio = 0.3
    assert base.negative_ratio == 0.3
    assert len({w.path for w in outer.weights}) == len(outer.weights) == len(base.weights)
    x = batch[0]
    np.testing.assert_array_equal(outer.predict(x, verbose=0), base.predict(x, verbose=0))
    another = compiled(small_schema)
    assert another.negative_ratio == 1


def test_auxiliary_match_tasks_share_the_ratio_of_their_base(
    small_schema, small_data, batch, tmp_path
):
    base = ck.models.DIN(small_schema, embedding_dim=4, units=(8,), attention_units=(6, 3))
    model = ck.models.AT4CTR(base, units=(8, 4))
    model.compile()
    model.fit(sampled(small_data, small_schema, 0.2), verbose=0, shuffle=False)
    assert model.negative_ratio == base.negative_ratio == 0.2
    assert [w.path for w in model.weights].count("recalibration/negative_ratio") == 1
    expected = model.predict(batch[0], verbose=0)
    np.testing.assert_array_equal(base.predict(batch[0], verbose=0), expected)
    model.negative_ratio = 1
    before = model.predict(batch[0], verbose=0)
    np.testing.assert_allclose(expected, ck.data.recalibrate(before, 0.2), rtol=1e-5)
    model.negative_ratio = 0.2
    check_export(model, expected, tmp_path)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.negative_ratio == loaded.base.negative_ratio == 0.2
    np.testing.assert_array_equal(loaded.predict(batch[0], verbose=0), expected)


def test_mixed_precision(small_schema, small_data, batch, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = compiled(small_schema)
    model.fit(sampled(small_data, small_schema), verbose=0, shuffle=False)
    expected = model.predict_on_batch(batch[0])
    model.negative_ratio = 1
    before = model.predict_on_batch(batch[0])
    np.testing.assert_allclose(expected, ck.data.recalibrate(before, 0.1), rtol=1e-5)
    model.negative_ratio = 0.1
    check_export(model, expected, tmp_path, rtol=0.02)
