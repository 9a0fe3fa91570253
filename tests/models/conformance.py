"""What every model must pass: one helper, called by each model's test."""

import json
import re

import keras
import numpy as np
import tensorflow as tf

import ctr_keras as ck
from ctr_keras.examples import parse_examples
from tests.conftest import make_rows


def run_model_conformance(
    build, schema, data, folder, examples=None, train=None, *, continues=True
):
    """Fit, any batch size, reload bit for bit, continue alike, config, export, same numbers.

    Args:
        build: Function from a schema to a model.
        schema: `small_schema`.
        data: Folder with rows of it.
        folder: Empty folder to save in.
        examples: The 600 rows of `data`; those of `make_rows` by default.
        train: What `fit` takes, by default batches of the rows.
        continues: Whether to train on after reloading: not needed of a model whose training is
            that of `CTRModel`, with no state beside weights and optimizer, both of which are
            compared anyway.

    Returns:
        The trained model.
    """
    model = build(schema)
    rows = ck.data.read(data, model.schema, batch_size=100)
    assert isinstance(model, ck.models.CTRModel)
    model.compile(ck.optimizers.LazyAdam(0.01))
    train = rows if train is None else train
    history = model.fit(train, epochs=2, verbose=0, shuffle=False).history
    assert set(history) >= {"loss", "auc"}
    assert history["loss"][1] < history["loss"][0]

    features, _ = next(iter(rows))
    expected = model.predict(features, verbose=0)
    assert expected.shape == (100, 1) and expected.dtype == np.float32
    assert ((expected > 0) & (expected < 1)).all()
    _check_batch_sizes(model, features, expected)
    _check_reload(model, train if continues else None, features, expected, folder)
    _check_config(build, schema)
    _check_export(model, features, folder, make_rows(600) if examples is None else examples)
    return model


def _check_batch_sizes(model, features, expected):
    for size in (1, 3):
        part = {name: x[:size] for name, x in features.items()}
        np.testing.assert_allclose(model(part, training=False), expected[:size], atol=1e-6)


def _check_reload(model, train, features, expected, folder):
    file = folder / f"{model.name}.keras"
    model.save(file)
    loaded = keras.models.load_model(file)
    np.testing.assert_array_equal(loaded.predict(features, verbose=0), expected)
    assert _without_paths(loaded.get_config()) == _without_paths(model.get_config())
    for ours, theirs in (
        (model.weights, loaded.weights),
        (model.optimizer.variables, loaded.optimizer.variables),
    ):
        for mine, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(mine, other, err_msg=mine.path)
    if train is None:
        return
    # Optimizer and random state included: both go on alike.
    after = []
    for each in (model, loaded):
        keras.utils.set_random_seed(3)
        each.fit(train, epochs=1, verbose=0, shuffle=False)
        after.append(each.predict(features, verbose=0))
    np.testing.assert_array_equal(*after)


def _without_paths(config):
    """A configuration as text, wherever the vocabulary files lie."""
    return re.sub(r'"file": "[^"]*"', '"file"', json.dumps(config))


def _check_config(build, schema):
    model = build(schema)
    config = model.get_config()
    again = type(model).from_config(config)
    assert again.get_config() == config
    assert again.schema == model.schema
    shapes = [[tuple(w.shape) for w in m.weights] for m in (model, again)]
    assert shapes[0] == shapes[1] and shapes[0]
    # No state is shared by accident.
    assert not {id(w) for w in model.weights} & {id(w) for w in again.weights}
    # A model that holds another one has its ratio of negatives too.
    paths = [w.path for w in model.weights if not w.path.endswith("/negative_ratio")]
    assert len(set(paths)) == len(paths)


def _check_export(model, features, folder, rows_of_data):
    expected = model(features, training=False).numpy()[:, 0]
    version = ck.serving.export(model, folder / "saved")
    signatures = tf.saved_model.load(str(version)).signatures
    assert set(signatures) == {"serving_default", "serving_examples", "rank"}
    inputs = signatures["serving_default"].structured_input_signature[1]
    assert set(inputs) == {feature.name for feature in model.schema.inputs}
    examples = folder / "examples"
    if not (examples / "manifest.json").exists():
        ck.data.write(examples, model.schema, rows_of_data, layout="row")
    records = tf.stack(list(tf.data.TFRecordDataset([str(p) for p in examples.glob("part-*")])))
    got = signatures["serving_examples"](examples=records[: len(expected)])["probability"]
    np.testing.assert_allclose(got, expected, atol=1e-6)
    check_rank(signatures, model.schema, parse_examples(model.schema.inputs, records[:40]))


def check_rank(signatures, schema, columns):
    """Each of some users with all items, against the same rows one below the other."""
    columns = {
        name: x.to_tensor(schema.padding(name)) if isinstance(x, tf.RaggedTensor) else x
        for name, x in columns.items()
    }
    of_items = {f.name for f in schema.inputs if schema.is_of_item(f.name)}
    assert 0 < len(of_items) < len(columns)
    inputs = signatures["rank"].structured_input_signature[1]
    assert {name for name in inputs if inputs[name].shape[0] == 1} == set(inputs) - of_items
    for user in (0, 1, 7):
        one = {n: x if n in of_items else x[user : user + 1] for n, x in columns.items()}
        rows = {n: x if n in of_items else tf.repeat(one[n], 40, 0) for n, x in columns.items()}
        got = signatures["rank"](**one)["probability"]
        expected = signatures["serving_default"](**rows)["probability"]
        assert got.shape == (40,) and got.dtype == tf.float32
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)
