import doctest
import importlib

import keras
import pytest

from ctr_keras import layers, optimizers


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's optimizers")
@pytest.mark.parametrize("name", ["lazy_adam", "rowwise_adagrad", "loss_scale_optimizer"])
def test_examples_run_as_printed(name):
    module = importlib.import_module(f"ctr_keras.optimizers.{name}")
    names = {"keras": keras, **vars(layers), **vars(optimizers)}
    assert doctest.testmod(module, extraglobs=names).failed == 0
