"""What a client may do wrong, on purpose or not, must harm nobody else."""

import http.client
import json
import random
import socket
import threading
import time

import numpy as np
import pytest

from ctr_keras.serving import Client, ModelConfig, Server, ServerConfig
from ctr_keras.serving.protocol import grpc, predict_pb2
from ctr_keras.serving.server import Limits
from ctr_keras.serving.tensors import to_proto
from tests.serving.server import saved

BODY = json.dumps(
    {"inputs": {"age": [-4.0, -3.0], "ids": [[1, 0], [2, 2]], "word": ["x", "xyz"]}}
).encode()
RIGHT = saved.expected({"age": [-4, -3], "ids": [[1, 0], [2, 2]], "word": ["x", "xyz"]})
PREDICT = "/tensorflow.serving.PredictionService/Predict"
HEAD = b"POST /v1/models/clicks:predict HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def strict(shared_base):
    """A server that waits for nobody and takes little."""
    limits = Limits(request_bytes=100_000, connections=8, read_seconds=0.5, idle_seconds=0.5)
    config = ServerConfig(
        (ModelConfig("clicks", shared_base),), port=0, rest_port=0, poll_seconds=0, limits=limits,
        running=2, waiting=2,
    )  # fmt: skip
    with Server(config) as server:
        yield server


def connect(server):
    connection = socket.create_connection(("127.0.0.1", server.rest_port), timeout=20)
    return connection


def everything(connection):
    """All bytes until the server closes the connection."""
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    connection.close()
    return received


def exchange(server, data):
    connection = connect(server)
    connection.sendall(data)
    return everything(connection)


def assert_right(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=20)
    connection.request("POST", "/v1/models/clicks:predict", BODY)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    np.testing.assert_allclose(answer["outputs"], RIGHT, atol=1e-6)


def test_slow_head(strict):
    connection = connect(strict)
    for byte in b"POST /v1/models/clicks":
        try:
            connection.send(bytes([byte]))
        except OSError:
            break
        time.sleep(0.05)
    else:
        raise AssertionError("the server waited for a byte every 50 ms")
    assert_right(strict)


def test_slow_body(strict):
    connection = connect(strict)
    connection.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
    assert everything(connection).startswith(b"HTTP/1.1 408 ")
    assert_right(strict)


def test_silent_connections_are_closed(strict):
    assert everything(connect(strict)) == b""


def test_client_that_goes_away_in_the_middle(strict):
    connection = connect(strict)
    connection.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
    connection.close()
    assert_right(strict)


def test_too_many_connections(strict):
    held = [connect(strict) for _ in range(8)]
    time.sleep(0.1)
    assert exchange(strict, b"").startswith(b"HTTP/1.1 503 ")
    for connection in held:
        connection.close()
    for _ in range(100):  # until the server has noticed
        try:
            return assert_right(strict)
        except (OSError, KeyError, http.client.HTTPException):
            time.sleep(0.02)
    raise AssertionError("the connections were not given back")


def test_one_connection_cannot_take_every_grpc_call(strict):
    """By calls whose requests never come."""
    never = threading.Event()
    address = f"127.0.0.1:{strict.port}"
    with grpc.insecure_channel(address) as channel:
        call = channel.stream_unary(PREDICT)
        calls = [call.future(iter(never.wait, True)) for _ in range(20)]
        time.sleep(0.2)
        try:
            with Client(address) as client:
                assert client.status("clicks")[0].version == 1
            assert not any(one.done() for one in calls)
        finally:
            never.set()


@pytest.mark.parametrize("method", [PREDICT, "/grpc.health.v1.Health/Watch"])
def test_grpc_calls_whose_requests_never_come_end(strict, method):
    never = threading.Event()
    with grpc.insecure_channel(f"127.0.0.1:{strict.port}") as channel:
        started = time.monotonic()
        calls = [channel.stream_stream(method)(iter(never.wait, True)) for _ in range(6)]
        try:
            for call in calls:
                # How a reset stream reads: gRPC sends CANCEL or REFUSED_STREAM, as it happens.
                assert call.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
            assert time.monotonic() - started >= 0.5
            with Client(f"127.0.0.1:{strict.port}") as client:
                assert client.status("clicks")[0].version == 1
        finally:
            never.set()


def test_a_grpc_call_without_a_request_is_refused(strict):
    with grpc.insecure_channel(f"127.0.0.1:{strict.port}") as channel:
        with pytest.raises(grpc.RpcError, match="The call has no request"):
            channel.stream_unary(PREDICT)(iter(()))


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (HEAD + b"Content-Length: 100001\r\n\r\n" + b"x" * 100_001, 413),
        (HEAD + b"Content-Length: 99999999999999999999\r\n\r\n", 400),
        (HEAD + b"Content-Length: -1\r\n\r\n", 400),
        (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400),
        (HEAD + b"\r\n", 411),
        (HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\nxx", 411),
        (HEAD + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nxx", 415),
        (b"BREW /v1/models/clicks HTTP/1.1\r\n\r\n", 501),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET //[/v1/models/clicks HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431),
    ],
)
def test_wrong_http(strict, request_, status):
    answer = exchange(strict, request_)
    assert answer.startswith(b"HTTP/1.1 %d " % status) and b'{"error":' in answer
    assert_right(strict)


def test_a_body_of_get_is_not_the_next_request(strict):
    inner = b"GET /v1/models/ghost HTTP/1.1\r\n\r\n"
    outer = b"GET /v1/models/clicks HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(inner)
    answer = exchange(strict, outer + inner)
    assert answer.count(b"HTTP/1.1 ") == 1 and b"AVAILABLE" in answer


def test_expect_continue(strict):
    connection = connect(strict)
    connection.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY))
    assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
    connection.sendall(BODY)
    assert b" 200 " in connection.recv(65536)
    connection.close()


def test_a_connection_serves_many_requests(strict):
    connection = http.client.HTTPConnection("127.0.0.1", strict.rest_port, timeout=20)
    for _ in range(5):
        connection.request("POST", "/v1/models/clicks:predict", BODY)
        assert connection.getresponse().read().startswith(b'{"outputs"')
    sockets = connection.sock
    connection.request("GET", "/v1/models/ghost")
    assert connection.getresponse().read() and connection.sock is sockets
    connection.close()


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The bytes with some of them changed, left out, doubled or exchanged for others."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.randint(1, 8))
        other = [b"", data[at:end] * 2, rng.randbytes(end - at), b"\x00", b"-1e999", b"[{"]
        data[at:end] = rng.choice(other)
    return bytes(data)


def test_rest_survives_a_thousand_fuzzed_requests(server):
    rng = random.Random(7)
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=20)
    statuses = set()
    for _ in range(1000):
        path = "/v1/models/clicks:predict"
        if rng.random() < 0.2:
            path = "/" + mutated(path.encode(), rng).hex()
        connection.request("POST", path, mutated(BODY, rng))
        response = connection.getresponse()
        answer = json.loads(response.read())
        statuses.add(response.status)
        assert ("outputs" in answer) if response.status == 200 else set(answer) == {"error"}
    connection.close()
    assert {200, 400} <= statuses and 500 not in statuses
    assert_right(server)


def test_http_survives_a_thousand_fuzzed_connections(strict):
    rng = random.Random(7)
    whole = HEAD + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(BODY) + BODY
    threads = [
        threading.Thread(target=_send_fuzzed, args=(strict, whole, rng.randrange(1 << 30), 250))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert_right(strict)


def _send_fuzzed(server, whole, seed, count):
    rng = random.Random(seed)
    for _ in range(count):
        try:
            connection = connect(server)
            connection.sendall(mutated(whole, rng))
            connection.shutdown(socket.SHUT_WR)
            everything(connection)
        except OSError:  # The server may close it at any time.
            pass


def test_grpc_survives_a_thousand_fuzzed_requests(server):
    rng = random.Random(7)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "clicks"
    inputs = saved.make_inputs(2)
    for name, array in inputs.items():
        request.inputs[name].CopyFrom(to_proto(array))
    whole = request.SerializeToString(deterministic=True)
    codes = set()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        for _ in range(1000):
            try:
                call(mutated(whole, rng), timeout=20)
                codes.add("OK")
            except grpc.RpcError as error:
                codes.add(error.code().name)
    assert {"OK", "INVALID_ARGUMENT"} <= codes <= {"OK", "INVALID_ARGUMENT", "NOT_FOUND"}
    with Client(f"127.0.0.1:{server.port}") as client:
        got = client.predict("clicks", inputs)["probability"]
    np.testing.assert_allclose(got, saved.expected(inputs), atol=1e-6)
