import doctest
import importlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from ctr_keras import metrics

MODULES = ["roc_auc", "logloss", "group_auc", "calibration", "scenario_auc",
           "relative_improvement", "top_n_accuracy"]  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    outcome = doctest.testmod(importlib.import_module(f"ctr_keras.metrics.{name}"))
    assert outcome.attempted > 0
    assert outcome.failed == 0


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="takes an import, of either backend")
def test_import_needs_neither_pandas_nor_scikit_learn():
    # Keras itself imports both where it finds them; a None in their place hides them.
    code = "import sys; sys.modules.update(pandas=None, sklearn=None); import ctr_keras.metrics"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_relative_improvement_by_hand():
    # DNN and MetaEmb on few-shot items, table 7 of AntM2C: 0.3583 / 0.3339 - 1.
    assert metrics.relative_improvement(0.8583, 0.8339) == pytest.approx(0.07308, abs=1e-5)
    assert np.isnan(metrics.relative_improvement(0.6, 0.5))
