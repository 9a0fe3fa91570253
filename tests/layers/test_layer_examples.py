import doctest
import importlib
import pkgutil

import keras
import numpy as np
import pytest

from ctr_keras import layers

MODULES = [name for _, name, _ in pkgutil.iter_modules(layers.__path__, layers.__name__ + ".")]
IMPORTED = {"np": np, "keras": keras, **{name: getattr(layers, name) for name in layers.__all__}}


@pytest.mark.parametrize("name", MODULES)
def test_examples_run_as_printed(name):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("examples are those of TensorFlow")
    module = importlib.import_module(name)
    assert doctest.testmod(module, extraglobs=IMPORTED).failed == 0
