"""What every layer of the package must do, checked by one call from each layer's test."""

import copy
import inspect
import json
import os
import tempfile

import keras
import numpy as np
from keras import tree

BACKEND = keras.backend.backend()
# What a test trains, it trains the short way: JAX without XLA compiles every operation alone.
JIT = BACKEND == "jax"


def run_layer_conformance(
    cls,
    init_kwargs,
    inputs,
    expected_output_shape,
    keyword_inputs=None,
    masked=None,
    batch_independent=True,
    trains=True,
    without_gradient=(),
    mixed_precision_tolerance=0.05,
    check_export=True,
):
    """Runs the whole contract of a layer.

    Args:
        cls: The layer class.
        init_kwargs: Dict of its `__init__` arguments; each must be kept as an attribute.
        inputs: NumPy array or dict of arrays, the first call argument, or a tuple of several.
        expected_output_shape: Shape tuple, or the same nest of them as the output. The first axis
            of inputs and outputs is the batch.
        keyword_inputs: Dict of arrays that `call` takes by name, such as `mask`.
        masked: Dict of call argument -> call argument with its boolean mask: what lies where the
            mask is `False` must not change the output. If the output has that axis too, it is
            compared where the mask is `True`.
        batch_independent: Whether a row's output in inference depends on that row alone.
        trains: Whether the layer lets gradients through to its inputs or weights.
        without_gradient: Names of trainable weights that this call cannot move.
        mixed_precision_tolerance: Highest difference to float32, relative to the largest output.
            `None` leaves mixed precision out.
        check_export: Whether the layer survives `Model.export` (TensorFlow only).

    Returns:
        The layer, built on `inputs`, for further checks.
    """
    arguments = _bind(cls, inputs, keyword_inputs)
    _check_config(cls, init_kwargs)
    layer = cls(**copy.deepcopy(init_kwargs))
    outputs = _to_numpy(layer(**_tensors(arguments)))
    _check_shapes(layer, arguments, outputs, expected_output_shape)
    _check_symbolic(layer, arguments, outputs)
    if batch_independent:
        _check_batch_of_one(layer, arguments, outputs)
    _check_no_rows(layer, arguments, outputs)
    for name, mask in (masked or {}).items():
        _check_mask(layer, arguments, name, mask)
        if mask == "mask" and arguments[name].ndim == 3:
            _check_keras_mask(layer, arguments, name)
    _check_no_shared_state(cls, init_kwargs, arguments)
    if mixed_precision_tolerance is not None:
        # Eager JAX compiles every operation for every dtype; that of TPUs has to do.
        policies = ("mixed_bfloat16", "mixed_float16")[: 1 if BACKEND == "jax" else 2]
        for policy in policies:
            _check_mixed_precision(
                cls, init_kwargs, layer, arguments, policy, mixed_precision_tolerance
            )
    _check_training_and_saving(
        cls, init_kwargs, arguments, trains, set(without_gradient), check_export
    )
    return layer


def _bind(cls, inputs, keyword_inputs):
    positional = inputs if isinstance(inputs, tuple) else (inputs,)
    bound = inspect.signature(cls.call).bind(None, *positional, **(keyword_inputs or {}))
    bound.arguments.pop("self")
    return dict(bound.arguments)


def _tensors(arguments):
    return tree.map_structure(keras.ops.convert_to_tensor, arguments)


def _to_numpy(outputs):
    return tree.map_structure(keras.ops.convert_to_numpy, outputs)


def _runner(layer, **kwargs):
    """A function from arguments to outputs; under JAX compiled as a whole, and without effect on
    the layer's state: eagerly, every operation is compiled alone for every shape and dtype."""
    if BACKEND != "jax":
        return lambda arguments: layer(**_tensors(arguments), **kwargs)
    import jax

    @jax.jit
    def call(values, arguments):
        with keras.StatelessScope(state_mapping=zip(layer.variables, values, strict=True)):
            return layer(**arguments, **kwargs)

    return lambda arguments: call([v.value for v in layer.variables], _tensors(arguments))


def _as_float(x):
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")))


def _leaves(nest):
    return tree.flatten(nest)


def _check_config(cls, init_kwargs):
    assert keras.saving.get_registered_name(cls).startswith("ctr_keras>"), "not exported"
    before = copy.deepcopy(init_kwargs)
    layer = cls(**init_kwargs)
    assert repr(init_kwargs) == repr(before), "`__init__` changed its arguments"
    for name in inspect.signature(cls.__init__).parameters:
        if name not in ("self", "args", "kwargs"):
            assert hasattr(layer, name), f"`__init__` argument `{name}` is not an attribute"
    config = layer.get_config()
    for name in init_kwargs:
        assert name in config, f"`{name}` is not in the config"
    text = json.dumps(config, sort_keys=True)
    again = cls.from_config(json.loads(text)).get_config()
    assert json.dumps(again, sort_keys=True) == text, "config does not survive a round trip"


def _check_shapes(layer, arguments, outputs, expected):
    expected = [tuple(s) for s in _flatten_shapes(expected)]
    got = [x.shape for x in _leaves(outputs)]
    assert got == expected, f"output shapes {got}, expected {expected}"
    for x in _leaves(outputs):
        if np.issubdtype(x.dtype, np.floating):
            assert np.all(np.isfinite(x)), "output is not finite"
    symbolic = layer(**_symbolic(arguments))
    for spec, x in zip(_leaves(symbolic), _leaves(outputs), strict=True):
        assert tuple(spec.shape) == (None, *x.shape[1:]), (
            f"symbolic shape {spec.shape} of {x.shape}"
        )
        assert spec.dtype == keras.backend.standardize_dtype(x.dtype), "symbolic dtype differs"


def _flatten_shapes(shapes):
    if isinstance(shapes, dict):
        return [leaf for key in sorted(shapes) for leaf in _flatten_shapes(shapes[key])]
    if (
        isinstance(shapes, (list, tuple))
        and shapes
        and not isinstance(shapes[0], (int, type(None)))
    ):
        return [leaf for shape in shapes for leaf in _flatten_shapes(shape)]
    return [shapes]


def _symbolic(arguments):
    return tree.map_structure(
        lambda x: keras.Input(x.shape[1:], dtype=keras.backend.standardize_dtype(x.dtype)),
        arguments,
    )


def _model(layer, arguments):
    symbolic = _symbolic(arguments)
    return keras.Model(_leaves(symbolic), layer(**symbolic))


def _check_symbolic(layer, arguments, outputs):
    model = _model(layer, arguments)
    compiled = model.predict(_leaves(arguments), batch_size=1024, verbose=0)
    for a, b in zip(_leaves(compiled), _leaves(outputs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg="compiled and eager differ")


def _check_batch_of_one(layer, arguments, outputs):
    one = _runner(layer)(tree.map_structure(lambda x: x[:1], arguments))
    for a, b in zip(_leaves(_to_numpy(one)), _leaves(outputs), strict=True):
        np.testing.assert_allclose(a, b[:1], rtol=1e-4, atol=1e-5, err_msg="batch of 1 differs")


def _check_no_rows(layer, arguments, outputs):
    """An empty batch has outputs of no rows, and no statistic is divided by their number."""
    none = tree.map_structure(lambda x: x[:0], arguments)
    takes_training = "training" in inspect.signature(layer.call).parameters
    before = layer.get_weights()
    for kwargs in [{}] + takes_training * [{"training": True}]:
        got = _leaves(_to_numpy(layer(**_tensors(none), **kwargs)))
        assert [x.shape for x in got] == [(0, *x.shape[1:]) for x in _leaves(outputs)]
    # Keras' own batch normalization does divide.
    for variable in [v for v in layer.variables if "batch_norm" not in v.path]:
        assert np.all(np.isfinite(_as_float(variable))), f"an empty batch broke {variable.path}"
    layer.set_weights(before)


def _check_mask(layer, arguments, name, mask_name):
    """Other values under the mask change nothing, neither in inference nor in training."""
    mask, x = arguments[mask_name], arguments[name]
    assert not mask.all(), "the test's mask masks nothing"
    hidden = np.reshape(~mask, mask.shape + (1,) * (x.ndim - mask.ndim))
    other = {**arguments, name: np.where(hidden, x * 3 + 7, x).astype(x.dtype)}
    takes_training = "training" in inspect.signature(layer.call).parameters
    for kwargs in [{}] + takes_training * [{"training": True}]:
        run = _runner(layer, **kwargs)
        _assert_same_unmasked(run(other), run(arguments), mask, "padding leaks")


class _Masked(keras.layers.Layer):
    """Attaches a mask to its inputs, as `Embedding(mask_zero=True)` does."""

    def __init__(self):
        super().__init__()
        self.supports_masking = True

    def call(self, inputs, mask=None):
        return 1 * inputs


def _check_keras_mask(layer, arguments, name):
    """A mask that Keras attached to the sequence counts like one that is passed."""

    def call(tensors):
        others = {key: x for key, x in tensors.items() if key not in (name, "mask")}
        return layer(**{name: _Masked()(tensors[name], mask=tensors["mask"])}, **others)

    tensors, symbolic = _tensors(arguments), _symbolic(arguments)
    expected = layer(**tensors)
    _assert_same_unmasked(call(tensors), expected, arguments["mask"], "Keras' mask is ignored")
    model = keras.Model(_leaves(symbolic), call(symbolic))
    compiled = model.predict(_leaves(arguments), batch_size=1024, verbose=0)
    _assert_same_unmasked(compiled, expected, arguments["mask"], "ignored in a model")


def _assert_same_unmasked(got, expected, mask, message):
    for a, b in zip(_leaves(_to_numpy(got)), _leaves(_to_numpy(expected)), strict=True):
        if a.ndim > mask.ndim and a.shape[: mask.ndim] == mask.shape:
            a, b = a[mask], b[mask]
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=message)


def _check_no_shared_state(cls, init_kwargs, arguments):
    one, two = cls(**copy.deepcopy(init_kwargs)), cls(**copy.deepcopy(init_kwargs))
    for layer in (one, two):
        layer(**_symbolic(arguments))
    assert not {id(v) for v in one.variables} & {id(v) for v in two.variables}
    kept = [np.array(w) for w in two.get_weights()]
    one.set_weights([w + np.ones((), w.dtype) for w in one.get_weights()])
    for a, b in zip(two.get_weights(), kept, strict=True):
        np.testing.assert_array_equal(a, b, err_msg="two instances share state")


def _check_mixed_precision(cls, init_kwargs, layer, arguments, policy, tolerance):
    mixed = cls(**copy.deepcopy(init_kwargs), dtype=policy)
    mixed(**_symbolic(arguments))
    mixed.set_weights(layer.get_weights())
    outputs = _runner(mixed)(arguments)
    for variable in mixed.trainable_variables:
        assert keras.backend.standardize_dtype(variable.dtype) == "float32"
    expected = _runner(layer)(arguments)
    for got, want in zip(_leaves(outputs), _leaves(expected), strict=True):
        if "float" not in keras.backend.standardize_dtype(want.dtype):
            continue
        assert keras.backend.standardize_dtype(got.dtype) == mixed.compute_dtype, policy
        got, want = _as_float(got), _as_float(want)
        assert np.all(np.isfinite(got)), f"{policy} output is not finite"
        largest = max(float(np.max(np.abs(want))), 1e-3)
        difference = float(np.max(np.abs(got - want)))
        assert difference <= tolerance * largest, f"{policy} differs by {difference} of {largest}"
    if BACKEND == "tensorflow":
        _check_mixed_gradients(mixed, arguments, policy)


def _check_mixed_gradients(mixed, arguments, policy):
    import tensorflow as tf

    training = {"training": True} if "training" in inspect.signature(mixed.call).parameters else {}
    with tf.GradientTape() as tape:
        outputs = _leaves(mixed(**_tensors(arguments), **training))
        loss = tf.add_n([tf.reduce_sum(tf.cast(x, "float32")) for x in outputs])
    for gradient in tape.gradient(loss, [v.value for v in mixed.trainable_variables]):
        if gradient is not None:
            assert np.all(np.isfinite(tf.convert_to_tensor(gradient))), f"{policy} gradient"


def _check_training_and_saving(cls, init_kwargs, arguments, trains, without_gradient, check_export):
    layer = cls(**copy.deepcopy(init_kwargs))
    model = _model(layer, arguments)
    data = _leaves(arguments)
    if trains:
        _train_one_step(model, layer, data, without_gradient)
    expected = model.predict(data, batch_size=1024, verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.keras")
        model.save(path)
        restored = keras.models.load_model(path)
        got = restored.predict(data, batch_size=1024, verbose=0)
        for a, b in zip(_leaves(got), _leaves(expected), strict=True):
            np.testing.assert_array_equal(a, b, err_msg="`.keras` round trip")
        if check_export and BACKEND == "tensorflow":
            _check_saved_model(model, os.path.join(folder, "saved_model"), data, expected)


def _train_one_step(model, layer, data, without_gradient):
    flat = [keras.layers.Flatten()(x) for x in _leaves(model.outputs)]
    joined = keras.layers.Concatenate()(flat) if len(flat) > 1 else flat[0]
    trainer = keras.Model(model.inputs, keras.layers.Dense(1, name="head")(joined))
    trainer.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=JIT)
    trainer.optimizer.build(trainer.trainable_variables)  # So that a step is traced once.
    before = [v.numpy() for v in layer.trainable_variables]
    labels = np.linspace(-1.0, 2.0, len(data[0]), dtype="float32")[:, None]
    history = trainer.fit(data, labels, batch_size=1024, epochs=2, verbose=0).history
    assert np.all(np.isfinite(history["loss"])), "loss is not finite"
    for variable, old in zip(layer.trainable_variables, before, strict=True):
        new = variable.numpy()
        assert np.all(np.isfinite(new)), f"{variable.path} is not finite after a step"
        if variable.name not in without_gradient:
            assert np.any(new != old), f"{variable.path} did not move: no gradient reaches it"


def _check_saved_model(model, path, data, expected):
    import tensorflow as tf

    model.export(path, format="tf_saved_model", verbose=False)
    restored = tf.saved_model.load(path)  # Kept, as its functions do not hold their variables.
    served = restored.serve([tf.constant(x) for x in data])
    for a, b in zip(_leaves(served), _leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6, err_msg="SavedModel round trip")
