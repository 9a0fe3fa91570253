import pytest

import ctr_keras as ck
from tests.models.conformance import run_model_conformance


def maml(schema, cls=ck.models.MAML, **kwargs):
    return cls(schema, **{"embedding_dim": 4, "units": (6,), **kwargs})


MODELS = {
    "MAML": maml,
    "MeLU": lambda schema: maml(schema, ck.models.MeLU),
}


@pytest.fixture(scope="module")
def tasks(small_data, small_schema):
    return ck.data.read_tasks(small_data, small_schema, "user_id", support=9, query=6, tasks=7)


@pytest.mark.parametrize("name", MODELS)
def test_conformance(name, small_schema, small_data, tasks, tmp_path):
    run_model_conformance(MODELS[name], small_schema, small_data, tmp_path, tasks)
