import gc

import pytest

from ctr_keras.serving import Client, ModelConfig, Server, ServerConfig
from tests.serving.server import saved


@pytest.fixture(scope="session", autouse=True)
def _freeze():
    """As a server's process does: what is there already is not gone through at each unloading."""
    gc.freeze()


@pytest.fixture(scope="session")
def versions(tmp_path_factory):
    """A version of each weight, and one with another schema, to be copied to base paths."""
    folder = tmp_path_factory.mktemp("versions")
    return {
        1: saved.save(folder / "1", 0.5),
        2: saved.save(folder / "2", 0.75),
        "large": saved.save(folder / "large", ballast=4_000_000),
        "changed": saved.save_changed_schema(folder / "changed"),
    }


@pytest.fixture
def base(versions, tmp_path):
    """A base path with version 1."""
    saved.publish(versions[1], tmp_path / "clicks", 1)
    return tmp_path / "clicks"


@pytest.fixture(scope="session")
def shared_base(versions, tmp_path_factory):
    base = tmp_path_factory.mktemp("shared") / "clicks"
    saved.publish(versions[1], base, 1)
    return base


@pytest.fixture(scope="session")
def server(shared_base):
    """A server that the tests share; none of them may change its models."""
    config = ModelConfig("clicks", shared_base, labels={"stable": 1})
    with Server(ServerConfig((config,), port=0, rest_port=0, poll_seconds=0)) as server:
        yield server
        gc.freeze()  # Nor is what all other tests have left.


@pytest.fixture(scope="session", params=["grpc", "rest"])
def client(request, server):
    port = server.port if request.param == "grpc" else server.rest_port
    with Client(f"127.0.0.1:{port}", request.param) as client:
        yield client


@pytest.fixture
def start():
    """Starts servers of `clicks` that are stopped after the test."""
    started = []

    def start(base, **options):
        models = options.pop("models", None) or (ModelConfig("clicks", base),)
        config = ServerConfig(models, **{"port": 0, "rest_port": 0, "poll_seconds": 0} | options)
        started.append(Server(config))
        started[-1].start()
        return started[-1]

    yield start
    for server in started:
        server.stop(1.0)
