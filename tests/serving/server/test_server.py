"""Starting, stopping, secrets, and the client's patience."""

import math
import os
import signal
import socket
import subprocess
import threading
import time

import numpy as np
import pytest

from ctr_keras.serving import Client, ClientOptions, ModelConfig, Server, ServerConfig
from ctr_keras.serving.errors import (
    DeadlineExceededError,
    ServingError,
    UnauthenticatedError,
    UnavailableError,
)
from ctr_keras.serving.loaded_model import LoadedModel
from ctr_keras.serving.server import Limits, run
from ctr_keras.serving.server.gate import Gate
from ctr_keras.serving.server.servable import Servable
from tests.serving.server import saved

PROTOCOLS = ("grpc", "rest")
INPUTS = saved.make_inputs(2)
QUICK = ClientOptions(retries=0)


def client_of(server, protocol, options=None):
    port = server.port if protocol == "grpc" else server.rest_port
    return Client(f"127.0.0.1:{port}", protocol, options)


def assert_right(client):
    np.testing.assert_allclose(
        client.predict("clicks", INPUTS)["probability"], saved.expected(INPUTS), atol=1e-6
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_stop_finishes_what_is_under_way(start, shared_base, protocol):
    server = start(shared_base)
    with client_of(server, protocol, QUICK) as client:
        client.predict("clicks", {"steps": [1]}, signature="slow")
        answers = []
        asking = threading.Thread(
            target=lambda: answers.append(
                client.predict("clicks", {"steps": [50_000]}, signature="slow")
            )
        )
        asking.start()
        while not any(v.users for v in server.manager._models["clicks"]._versions.values()):
            time.sleep(0.001)
        server.stop()
        asking.join(10)
        assert answers[0]["total"].shape == (1,)
        with pytest.raises(UnavailableError):
            client.predict("clicks", INPUTS)


def test_stop_does_not_wait_for_idle_connections(start, shared_base):
    server = start(shared_base)
    with client_of(server, "grpc") as one, client_of(server, "rest") as other:
        assert_right(one)
        assert_right(other)
        started = time.monotonic()
        server.stop(20.0)
        assert time.monotonic() - started < 10


def test_stop_ends_what_takes_too_long(start, shared_base):
    server = start(shared_base)
    with client_of(server, "grpc", QUICK) as client:
        client.metadata("clicks")
        failed = []

        def ask():
            try:
                client.predict("clicks", {"steps": [300_000]}, signature="slow")
            except ServingError as error:
                failed.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        while not any(v.users for v in server.manager._models["clicks"]._versions.values()):
            time.sleep(0.001)
        server.stop(0.1)
        asking.join(30)
        assert failed


def test_run_until_told_to_stop(shared_base):
    lines = []
    config = ServerConfig((ModelConfig("clicks", shared_base),), port=0, rest_port=0)
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    def ready(line):
        lines.append(line)
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()

    run(config, report=ready)
    (line,) = lines
    assert line.startswith("ready: gRPC 127.0.0.1:") and line.endswith("; clicks [1]")
    assert handlers == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))


def test_run_told_to_stop_while_models_load(shared_base, monkeypatch):
    """It waits no longer than it may for the one that loads, and no other is loaded."""
    loads, go_on, lines = [], threading.Event(), []

    def load(folder, *how):
        loads.append(folder)
        os.kill(os.getpid(), signal.SIGTERM)
        go_on.wait(5)
        return Servable(LoadedModel(folder), Gate(1, 1))

    monkeypatch.setattr(Servable, "load", load)
    models = tuple(ModelConfig(name, shared_base) for name in ("clicks", "more"))
    started = time.monotonic()
    run(ServerConfig(models, port=0, rest_port=0), report=lines.append, drain_seconds=0.1)
    assert time.monotonic() - started < 4
    go_on.set()
    for thread in threading.enumerate():
        if thread.name == "background":
            thread.join(20)
    assert (lines, len(loads)) == ([], 1)


def test_a_base_path_without_a_version_is_told_of(start, tmp_path, caplog):
    (tmp_path / "empty").mkdir()
    start(None, models=tuple(ModelConfig(name, tmp_path / name) for name in ("empty", "typo")))
    empty, typo = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert empty == f"Model empty: {tmp_path / 'empty'} holds no version yet"
    assert typo == f"Model typo: {tmp_path / 'typo'} does not exist yet"


@pytest.mark.parametrize("which", ["port", "rest_port"])
def test_taken_port(shared_base, which):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = {"port": 0, "rest_port": 0} | {which: taken.getsockname()[1]}
        with pytest.raises(OSError):
            Server(ServerConfig((ModelConfig("clicks", shared_base),), **ports))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_token(start, shared_base, protocol):
    server = start(shared_base, token="sesame")
    with client_of(server, protocol, ClientOptions(token="sesame")) as client:
        assert_right(client)
    for token in (None, "sesame2", "Sesame"):
        with client_of(server, protocol, ClientOptions(token=token)) as client:
            with pytest.raises(UnauthenticatedError, match="token is missing or wrong"):
                client.predict("clicks", INPUTS)
            with pytest.raises(UnauthenticatedError):
                client.status("clicks")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        + ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", cert]
        + ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"],
        check=True,
        capture_output=True,
    )
    return {"tls_cert": cert, "tls_key": key}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tls(start, shared_base, certificate, protocol):
    server = start(shared_base, **certificate)
    trusting = ClientOptions(tls=True, tls_ca=certificate["tls_cert"])
    with client_of(server, protocol, trusting) as client:
        assert_right(client)
    for options in (ClientOptions(tls=True, retries=0), QUICK):
        with client_of(server, protocol, options) as client, pytest.raises(UnavailableError):
            client.predict("clicks", INPUTS)


def test_a_client_that_never_shakes_hands_is_in_nobodys_way(start, shared_base, certificate):
    server = start(shared_base, **certificate)
    with socket.create_connection(("127.0.0.1", server.rest_port)):
        trusting = ClientOptions(tls=True, tls_ca=certificate["tls_cert"])
        with client_of(server, "rest", trusting) as client:
            assert_right(client)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_client_waits_for_a_server_that_comes_back(start, shared_base, protocol):
    port = free_port()
    ports = {"port": port} if protocol == "grpc" else {"rest_port": port}
    starting = threading.Timer(0.2, lambda: start(shared_base, **ports))
    starting.start()
    with Client(f"127.0.0.1:{port}", protocol, ClientOptions(retries=10)) as client:
        assert_right(client)
    starting.join()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_client_gives_up(protocol):
    address = f"127.0.0.1:{free_port()}"
    with Client(address, protocol, ClientOptions(retries=2, first_wait_seconds=0.01)) as client:
        with pytest.raises(UnavailableError):
            client.predict("clicks", INPUTS)
    with Client(address, protocol, ClientOptions(retries=1000)) as client:
        started = time.monotonic()
        with pytest.raises((UnavailableError, DeadlineExceededError)):
            client.predict("clicks", INPUTS, timeout=0.3)
        assert time.monotonic() - started < 5


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("timeout", [math.inf, 400 * 24 * 3600.0])
def test_client_that_waits_for_ever(start, shared_base, protocol, timeout):
    """Also for a server that is not there yet."""
    port = free_port()
    ports = {"port": port} if protocol == "grpc" else {"rest_port": port}
    starting = threading.Timer(0.1, lambda: start(shared_base, **ports))
    starting.start()
    options = ClientOptions(timeout_seconds=timeout, retries=10)
    with Client(f"127.0.0.1:{port}", protocol, options) as client:
        assert_right(client)
    starting.join()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_client_tries_again_only_what_was_unavailable(start, shared_base, protocol):
    server = start(shared_base)
    with client_of(server, protocol) as client:
        attempts = []
        transport = client._transport
        predict = transport.predict
        transport.predict = lambda *args: (attempts.append(1), predict(*args))[1]
        with pytest.raises(ServingError, match="assertion failed"):
            client.predict("clicks", {"ids": [200]}, signature="checked")
        assert len(attempts) == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_client_follows_a_changed_schema(start, base, versions, protocol):
    server = start(base)
    with client_of(server, protocol) as client:
        assert_right(client)
        saved.publish(versions["changed"], base, 2)
        server.manager.poll()
        outputs = client.predict("clicks", {"age": [0, 3]})
        np.testing.assert_allclose(outputs["probability"], [0.5, 0.95257413], atol=1e-6)
        assert outputs["age"].tolist() == [0, 3] and outputs["age"].dtype == np.int64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout_seconds": 0}, "timeout_seconds=0"),
        ({"retries": -1}, "retries=-1"),
        ({"tls_ca": "x"}, "`tls_ca` needs `tls=True`"),
    ],
)
def test_wrong_client_options(options, message):
    with pytest.raises(ValueError, match=message):
        ClientOptions(**options)


def test_wrong_arguments(shared_base):
    with pytest.raises(ValueError, match="protocol='soap'"):
        Client("127.0.0.1:1", "soap")
    models = (ModelConfig("clicks", shared_base),)
    with pytest.raises(ValueError, match="go together"):
        ServerConfig(models, tls_cert=shared_base)
    with pytest.raises(ValueError, match="`port` must be from 0 to 65535.*`port=99999`"):
        ServerConfig(models, port=99_999)
    with pytest.raises(ValueError, match="`rest_port=-1`"):
        ServerConfig(models, rest_port=-1)
    with pytest.raises(ValueError, match="running=0"):
        Server(ServerConfig(models, port=0, rest_port=0, running=0))
    with pytest.raises(ValueError, match="`limits.connections=8`.*`waiting=8`"):
        ServerConfig(models, waiting=8, limits=Limits(connections=8))
    with pytest.raises(ValueError, match="`tls_cert` and `tls_key` must be PEM .*`tls_cert='/"):
        Server(ServerConfig(models, port=0, rest_port=0, tls_cert=__file__, tls_key=__file__))
    with pytest.raises(ValueError, match="printable ASCII"):
        Server(ServerConfig(models, port=0, rest_port=0, token=""))
