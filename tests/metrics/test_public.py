import doctest
import importlib
import subprocess
import sys

import pytest

MODULES = ["roc_auc", "logloss", "group_auc", "calibration", "scenario_auc"]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    outcome = doctest.testmod(importlib.import_module(f"ctr_keras.metrics.{name}"))
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_import_needs_neither_pandas_nor_scikit_learn():
    # Keras itself imports both where it finds them; a None in their place hides them.
    code = "import sys; sys.modules.update(pandas=None, sklearn=None); import ctr_keras.metrics"
    subprocess.run([sys.executable, "-c", code], check=True)
