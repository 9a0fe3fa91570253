import pytest

from tests.conftest import optimize_graphs


@pytest.fixture(scope="module", autouse=True)
def _optimized_graphs():
    """What is served runs as it does in production."""
    optimize_graphs(True)
    yield
    optimize_graphs(False)
