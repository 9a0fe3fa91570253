"""What every streaming metric promises."""

import math

import keras
import numpy as np
import pytest

from ctr_keras import metrics

FACTORIES = {
    "AUC": lambda: metrics.AUC(num_bins=2048, name="area"),
    "LogLoss": lambda: metrics.LogLoss(name="loss_in_nats"),
    "CalibrationRatio": lambda: metrics.CalibrationRatio(name="ratio"),
    "CalibrationError": lambda: metrics.CalibrationError(4, resolution=512, name="ece"),
    "GAUC": lambda: metrics.GAUC("shop", capacity=500, name="by_shop"),
    "ScenarioAUC": lambda: metrics.ScenarioAUC("shop", 2, num_bins=2048, name="in_shops"),
}
GROUPED = {"GAUC", "ScenarioAUC"}
UNGROUPED = sorted(set(FACTORIES) - GROUPED)
SUM = 1e-6  # What the order of a sum may change: that of a GPU is another each time.
every_metric = pytest.mark.parametrize("kind", sorted(FACTORIES))


def _update(metric, labels, predictions, weights=None, groups=None):
    if hasattr(metric, "group"):
        groups = np.zeros(len(labels), "int32") if groups is None else groups
        if isinstance(metric, metrics.ScenarioAUC):
            groups = abs(groups) % 2  # Few scenarios of many rows.
        metric.update_state(labels, predictions, weights, groups=groups)
    else:
        metric.update_state(labels, predictions, weights)


def _value(kind, labels, predictions, weights=None, groups=None):
    metric = FACTORIES[kind]()
    _update(metric, labels, predictions, weights, groups)
    return float(metric.result())


def test_every_metric_is_here():
    public = {name for name in metrics.__all__ if isinstance(getattr(metrics, name), type)}
    assert public - {"GAUCResult", "ScenarioAUCResult"} == set(FACTORIES)


@every_metric
def test_config_round_trip(kind, rows):
    metric = FACTORIES[kind]()
    config = keras.saving.serialize_keras_object(metric)
    assert config["registered_name"] == f"ctr_keras>{kind}"
    copy = keras.saving.deserialize_keras_object(config)
    assert type(copy) is type(metric)
    assert copy.get_config() == metric.get_config()
    assert copy.name == metric.name
    _update(metric, rows.labels, rows.probabilities, groups=rows.groups)
    _update(copy, rows.labels, rows.probabilities, groups=rows.groups)
    assert float(copy.result()) == pytest.approx(float(metric.result()), rel=SUM)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("AUC", {"name": "auc", "dtype": "float32", "num_bins": 16384}),
        ("LogLoss", {"name": "log_loss", "dtype": "float32"}),
        ("CalibrationRatio", {"name": "calibration_ratio", "dtype": "float32"}),
        (
            "CalibrationError",
            {
                "name": "calibration_error",
                "dtype": "float32",
                "num_bins": 10,
                "resolution": 16384,
            },
        ),
        ("GAUC", {"name": "gauc", "dtype": "float32", "group": "user_id", "capacity": 2**20}),
    ],
)
def test_defaults(kind, expected):
    assert getattr(metrics, kind)().get_config() == expected


@every_metric
def test_before_the_first_row_and_after_a_reset_it_is_nan(kind, rows):
    metric = FACTORIES[kind]()
    assert math.isnan(float(metric.result()))
    _update(metric, rows.labels, rows.probabilities)
    before = float(metric.result())
    assert math.isfinite(before)
    metric.reset_state()
    assert math.isnan(float(metric.result()))
    _update(metric, rows.labels, rows.probabilities)
    assert float(metric.result()) == pytest.approx(before, rel=SUM)


@every_metric
def test_batches_of_1_are_one_batch(kind, make_rows):
    rows = make_rows(20, 0.4, users=3)
    metric = FACTORIES[kind]()
    for labels, predictions, groups, weights in rows.batches(1):
        _update(metric, labels, predictions, weights, groups)
    expected = _value(kind, rows.labels, rows.probabilities, rows.weights, rows.groups)
    assert float(metric.result()) == pytest.approx(expected, rel=1e-5)


@every_metric
@pytest.mark.parametrize("labels_as_column", [False, True])
@pytest.mark.parametrize("predictions_as_column", [False, True])
def test_shapes(kind, rows, labels_as_column, predictions_as_column):
    expected = _value(kind, rows.labels, rows.probabilities, rows.weights, rows.groups)
    labels = rows.labels[:, None] if labels_as_column else rows.labels
    predictions = rows.probabilities[:, None] if predictions_as_column else rows.probabilities
    weights = rows.weights[:, None] if labels_as_column else rows.weights
    groups = rows.groups[:, None] if predictions_as_column else rows.groups
    actual = _value(kind, labels, predictions, weights, groups)
    assert actual == pytest.approx(expected, rel=SUM)


@every_metric
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(kind, rows, dtype):
    halved = keras.ops.cast(rows.probabilities, dtype)
    restored = keras.ops.convert_to_numpy(keras.ops.cast(halved, "float32"))
    expected = _value(kind, rows.labels, restored, groups=rows.groups)
    actual = _value(kind, rows.labels, halved, groups=rows.groups)
    assert actual == pytest.approx(expected, rel=SUM)


@every_metric
@pytest.mark.parametrize("dtype", ["bool", "int32", "int64", "float16", "float64"])
def test_labels_of_any_dtype(kind, rows, dtype):
    expected = _value(kind, rows.labels, rows.probabilities, groups=rows.groups)
    actual = _value(kind, rows.labels.astype(dtype), rows.probabilities, groups=rows.groups)
    assert actual == pytest.approx(expected, rel=SUM)


@every_metric
def test_a_weight_is_that_many_rows(kind, make_rows):
    rows = make_rows(40, 0.4, users=4)
    times = np.arange(40) % 3 + 1
    expected = _value(
        kind,
        np.repeat(rows.labels, times),
        np.repeat(rows.probabilities, times),
        groups=np.repeat(rows.groups, times),
    )
    plain = _value(kind, rows.labels, rows.probabilities, groups=rows.groups)
    actual = _value(kind, rows.labels, rows.probabilities, times, rows.groups)
    assert actual == pytest.approx(expected, rel=1e-5)
    assert actual != pytest.approx(plain, rel=1e-3)


@every_metric
def test_one_weight_for_all_rows_changes_nothing(kind, rows):
    expected = _value(kind, rows.labels, rows.probabilities)
    actual = _value(kind, rows.labels, rows.probabilities, 0.5)
    assert actual == pytest.approx(expected, rel=1e-5)


@every_metric
def test_rows_of_weight_0_are_left_out_whatever_they_hold(kind):
    expected = _value(kind, [0, 1, 1], [0.2, 0.1, 0.7])
    labels = np.array([0, 1, -1, 1, 0], "float32")
    predictions = np.array([0.2, 0.1, 0.9, 0.7, np.nan], "float32")
    assert _value(kind, labels, predictions, [1, 1, 0, 1, 0]) == pytest.approx(expected, rel=1e-6)


@every_metric
@pytest.mark.parametrize(
    ("label", "prediction", "weight"),
    [
        (2, 0.5, 1),
        (-1, 0.5, 1),
        (0.5, 0.5, 1),
        (1, math.nan, 1),
        (1, math.inf, 1),
        (1, 0.5, -1),
        (1, 0.5, math.nan),
        (1, 0.5, math.inf),
    ],
)
def test_a_row_that_is_none_makes_the_result_nan(kind, label, prediction, weight):
    metric = FACTORIES[kind]()
    _update(metric, [0, 1, label], [0.2, 0.4, prediction], [1.0, 1.0, weight])
    assert math.isnan(float(metric.result()))
    _update(metric, [0, 1], [0.2, 0.4])
    assert math.isnan(float(metric.result()))
    metric.reset_state()
    _update(metric, [0, 1], [0.2, 0.4])
    assert math.isfinite(float(metric.result()))


@pytest.mark.parametrize("kind", UNGROUPED)
@pytest.mark.parametrize("logit", [-0.001, 1.001, -3.0, 4.0])
def test_a_logit_is_no_probability(kind, logit):
    assert math.isnan(_value(kind, [0, 1, 1], [0.2, 0.4, logit]))


@every_metric
def test_bad_shapes(kind):
    with pytest.raises(ValueError, match=r"one value a row.*`y_pred.shape=\(2, 2\)`"):
        _value(kind, [0, 1], np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"one value a row.*`y_true.shape=\(2, 3\)`"):
        _value(kind, np.ones((2, 3)), [0.5, 0.5])
    with pytest.raises(ValueError, match=r"`y_true`, 2. Received: `y_pred.shape=\(1,\)`"):
        _value(kind, [0, 1], [0.5])
    with pytest.raises(ValueError, match=r"`y_true`, 2. Received: `sample_weight.shape=\(3,\)`"):
        _value(kind, [0, 1], [0.5, 0.5], [1, 1, 1])
    with pytest.raises(ValueError, match=r"`sample_weight.shape=\(2, 2\)`"):
        _value(kind, [0, 1], [0.5, 0.5], np.ones((2, 2)))


@every_metric
def test_stateless_calls_are_the_stateful_ones(kind, rows):
    metric = FACTORIES[kind]()
    state = metric.stateless_reset_state()
    for labels, predictions, groups, weights in rows.batches(200):
        more = {"groups": abs(groups) % 2 if kind == "ScenarioAUC" else groups}
        more = more if kind in GROUPED else {}
        state = metric.stateless_update_state(state, labels, predictions, weights, **more)
    actual = float(metric.stateless_result(state))
    assert math.isnan(float(metric.result()))
    expected = _value(kind, rows.labels, rows.probabilities, rows.weights, rows.groups)
    assert actual == pytest.approx(expected, rel=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="jax.jit")
@every_metric
def test_stateless_calls_compile_on_jax(kind, rows):
    import jax

    metric = FACTORIES[kind]()
    update, result = jax.jit(metric.stateless_update_state), jax.jit(metric.stateless_result)
    state = metric.stateless_reset_state()
    for labels, predictions, groups, weights in rows.batches(250):
        more = {"groups": abs(groups) % 2 if kind == "ScenarioAUC" else groups}
        more = more if kind in GROUPED else {}
        state = update(state, labels, predictions, weights, **more)
    expected = _value(kind, rows.labels, rows.probabilities, rows.weights, rows.groups)
    assert float(result(state)) == pytest.approx(expected, rel=1e-5)


def _identity():
    inputs = keras.Input((1,))
    return keras.Model(inputs, keras.layers.Identity()(inputs))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_evaluate_in_a_compiled_model(rows, jit_compile):
    model = _identity()
    model.compile(
        loss="mse",
        metrics=[FACTORIES[kind]() for kind in UNGROUPED],
        weighted_metrics=[metrics.LogLoss(name="weighted")],
        jit_compile=jit_compile,
    )
    logs = model.evaluate(
        rows.probabilities[:, None],
        rows.labels,
        sample_weight=rows.weights,
        batch_size=130,
        verbose=0,
        return_dict=True,
    )
    for kind in UNGROUPED:
        expected = _value(kind, rows.labels, rows.probabilities)
        assert logs[FACTORIES[kind]().name] == pytest.approx(expected, rel=1e-5)
    weighted = _value("LogLoss", rows.labels, rows.probabilities, rows.weights)
    assert logs["weighted"] == pytest.approx(weighted, rel=1e-5)


def test_fit_starts_anew_each_epoch_and_survives_one_class(rows):
    model = _identity()
    model.compile(loss="mse", optimizer="sgd", metrics=[metrics.AUC(), metrics.LogLoss()])
    x, zeros = rows.probabilities[:, None], np.zeros_like(rows.labels)
    history = model.fit(x, rows.labels, validation_data=(x, zeros), epochs=2, verbose=0).history
    expected = _value("LogLoss", rows.labels, rows.probabilities)
    assert history["log_loss"] == pytest.approx([expected, expected], rel=1e-5)
    assert history["auc"] == pytest.approx([metrics.auc(rows.labels, x)] * 2, abs=1e-4)
    assert np.isnan(history["val_auc"]).all()
    assert np.isfinite(history["val_log_loss"]).all()


def test_a_saved_model_keeps_its_metrics(rows, tmp_path):
    model = _identity()
    model.compile(loss="mse", metrics=[metrics.CalibrationError(4), metrics.AUC(2048)])
    expected = model.evaluate(rows.probabilities[:, None], rows.labels, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    actual = loaded.evaluate(rows.probabilities[:, None], rows.labels, verbose=0)
    assert actual == pytest.approx(expected, rel=SUM)
    assert len(expected) == 3
