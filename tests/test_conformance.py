"""No layer or model without the test that holds it to the contract of all."""

import pathlib
import re

import pytest

from ctr_keras import layers, models

TESTS = pathlib.Path(__file__).parent


@pytest.mark.parametrize(
    ("folder", "check", "names"),
    [
        ("layers", "run_layer_conformance(", layers.__all__),
        ("models", "run_model_conformance(", set(models.__all__) - {"CTRModel"}),
    ],
)
def test_every_public_class_is_held_to_it(folder, check, names):
    texts = [path.read_text() for path in (TESTS / folder).glob("test_*.py")]
    tested = " ".join(text for text in texts if check in text)
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", tested)] == []
