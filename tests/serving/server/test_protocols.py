"""What both protocols answer, over loopback, asked by the client or by hand."""

import json
import re
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

import ctr_keras as ck
from ctr_keras.serving import Client, ModelConfig, Server, ServerConfig
from ctr_keras.serving.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
)
from ctr_keras.serving.protocol import grpc
from ctr_keras.serving.server import BatchingConfig
from ctr_keras.serving.status import State
from tests.serving.server import saved
from tests.serving.test_export import columns


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def http(server):
    """Sends a request by hand; the status and the JSON of the response."""

    def send(path, body=None, **headers):
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.rest_port}{path}", data, headers
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    return send


def request_of(inputs, signature="serving_default", **spec):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "clicks"
    request.model_spec.signature_name = signature
    for name, array in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    return request


def code_of(call, *arguments, **options):
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **options)
    return caught.value.code().name, caught.value.details()


# Numbers


def test_every_way_gives_the_same_probabilities(small_schema, small_rows, small_data, tmp_path):
    model = ck.models.FM(small_schema, embedding_dim=4)
    version = ck.serving.export(model, tmp_path / "m")
    features, _ = next(iter(ck.data.read(small_data, small_schema, 600)))
    expected = model.predict(features, verbose=0)[:, 0]
    inputs = {name: value.numpy() for name, value in columns(small_rows).items()}
    loaded = tf.saved_model.load(str(version)).signatures["serving_default"]
    in_process = loaded(**columns(small_rows))["probability"]
    np.testing.assert_allclose(in_process, expected, atol=1e-6)
    config = ServerConfig((ModelConfig("m", tmp_path / "m"),), port=0, rest_port=0, poll_seconds=0)
    with Server(config) as server:
        for port, protocol in ((server.port, "grpc"), (server.rest_port, "rest")):
            with Client(f"127.0.0.1:{port}", protocol) as client:
                got = client.predict("m", inputs)["probability"]
            assert got.dtype == np.float32
            np.testing.assert_allclose(got, expected, atol=1e-6)


def test_client_predicts(client):
    inputs = saved.make_inputs(7)
    got = client.predict("clicks", inputs)["probability"]
    np.testing.assert_allclose(got, saved.expected(inputs), atol=1e-6)
    lists = {name: value.tolist() for name, value in inputs.items()}
    np.testing.assert_array_equal(client.predict("clicks", lists)["probability"], got)


def test_client_ranks(client):
    words = ["", "x", "xxx", "xx"]
    got = client.rank("clicks", {"age": -4, "ids": [1, 0, 2]}, {"word": words})
    rows = {"age": [-4] * 4, "ids": [[1, 0, 2]] * 4, "word": words}
    np.testing.assert_allclose(got, saved.expected(rows), atol=1e-6)
    empty = client.rank("clicks", {"age": -4, "ids": []}, {"word": words})
    np.testing.assert_allclose(empty, saved.expected(rows | {"ids": [[]] * 4}), atol=1e-6)
    assert client.rank("clicks", {"age": -4, "ids": [1]}, {"word": []}).shape == (0,)


def test_no_rows(client):
    """Lists are empty before it shows that a feature has lists of values."""
    got = client.predict("clicks", {"age": [], "ids": [], "word": []})["probability"]
    assert got.shape == (0,) and got.dtype == np.float32


def test_a_million_candidates(client):
    words = ["x"] * 1_000_000
    got = client.rank("clicks", {"age": -4, "ids": [1]}, {"word": words}, timeout=60)
    assert got.shape == (1_000_000,)
    np.testing.assert_allclose(got[::100_000], 1 / (1 + np.exp(2 - 1 - 1)), atol=1e-6)


def test_strings_that_are_no_text(client):
    words = [b"\x00\xfe", "žluť", b""]
    got = client.predict("clicks", {"word": words}, signature="bytes")
    assert got["word_bytes"].tolist() == [b"\x00\xfe\xff", "žluť".encode() + b"\xff", b"\xff"]
    assert got["length"].tolist() == [2, 6, 0] and got["length"].dtype == np.int32


def test_client_status_and_metadata(client):
    (status,) = client.status("clicks")
    assert (status.version, status.state, status.code) == (1, State.AVAILABLE, "OK")
    metadata = client.metadata("clicks", label="stable")
    assert (metadata.name, metadata.version) == ("clicks", 1)
    assert metadata.signatures["rank"].inputs["ids"].shape == (1, None)
    assert metadata.signatures["rank"].inputs["ids"].dtype == tf.int64


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"age": None}, InvalidArgumentError, "'age' is missing"),
        ({"price": [1.0]}, InvalidArgumentError, "'price'"),
        ({"age": [1.0]}, InvalidArgumentError, "'(age|ids|word)' must have as many rows"),
        ({"ids": [1, 2]}, InvalidArgumentError, "'ids' must have the shape"),
        ({"ids": [1.5, 2.5]}, ValueError, "'ids' must be an array of int64"),
        ({"ids": [[1 << 63]] * 2}, ValueError, "'ids' must be .*int64.* out of its range"),
        ({"ids": [[1], [2, 3]]}, ValueError, "'ids' must be .* equal length"),
        ({"age": ["a", "b"]}, ValueError, "'age' must be an array of float32"),
        ({"word": [1, 2]}, ValueError, "'word' must be an array of string"),
    ],
)
def test_wrong_inputs_are_named(client, change, error, message):
    inputs = saved.make_inputs(2) | change
    inputs = {name: value for name, value in inputs.items() if value is not None}
    with pytest.raises(error, match=message):
        client.predict("clicks", inputs)


def test_what_there_is_not(client):
    inputs = saved.make_inputs(1)
    with pytest.raises(NotFoundError, match="Latest.ghost"):
        client.predict("ghost", inputs)
    with pytest.raises(NotFoundError, match="Specific.clicks, 7"):
        client.predict("clicks", inputs, version=7)
    with pytest.raises(NotFoundError, match="canary"):
        client.predict("clicks", inputs, label="canary")
    with pytest.raises(InvalidArgumentError, match="signatures.*rank"):
        client.predict("clicks", inputs, signature="click")
    with pytest.raises(NotFoundError, match="version 7"):
        client.status("clicks", version=7)


# Load


def test_full_server_refuses_and_recovers(client, server, start, shared_base):
    busy = start(shared_base, running=1, waiting=1)
    port = busy.port if client.protocol == "grpc" else busy.rest_port
    codes = []

    def ask():
        with Client(f"127.0.0.1:{port}", client.protocol) as other:
            try:
                other.predict("clicks", {"steps": [20_000]}, signature="slow")
                codes.append("OK")
            except ResourceExhaustedError as error:
                codes.append(error.code)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(codes) == 8 and set(codes) == {"OK", "RESOURCE_EXHAUSTED"}
    with Client(f"127.0.0.1:{port}", client.protocol) as other:
        other.predict("clicks", {"steps": [1]}, signature="slow")


def test_deadline(client):
    with pytest.raises(DeadlineExceededError):
        client.predict("clicks", {"steps": [300_000]}, signature="slow", timeout=0.05)
    inputs = saved.make_inputs(1)
    with pytest.raises(DeadlineExceededError):
        client.predict("clicks", inputs, timeout=1e-9)


def test_batched_server_is_right(start, shared_base):
    server = start(shared_base, batching=BatchingConfig(32, 2000))
    requests = [saved.make_inputs(1 + n % 5, seed=n, width=1 + n % 2) for n in range(30)]
    answers = [None] * len(requests)

    def ask(number):
        with Client(f"127.0.0.1:{server.port}") as client:
            answers[number] = client.predict("clicks", requests[number])["probability"]

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for request, answer in zip(requests, answers, strict=True):
        np.testing.assert_allclose(answer, saved.expected(request), atol=1e-6)


# gRPC by hand


def test_grpc_names_the_version_that_answered(stub):
    response = stub.Predict(request_of(saved.make_inputs(1), signature=""))
    assert response.model_spec.version.value == 1
    assert response.model_spec.signature_name == "serving_default"


def test_grpc_output_filter(stub):
    request = request_of({"word": ["ab"]}, signature="bytes")
    request.output_filter.append("length")
    assert set(stub.Predict(request).outputs) == {"length"}
    request.output_filter.append("click")
    assert code_of(stub.Predict, request)[0] == "INVALID_ARGUMENT"


def test_grpc_metadata_field(stub):
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = "clicks"
    assert code_of(stub.GetModelMetadata, request)[0] == "INVALID_ARGUMENT"
    request.metadata_field.append("weights")
    assert code_of(stub.GetModelMetadata, request) == (
        "INVALID_ARGUMENT",
        "Metadata field weights is not supported",
    )


def test_grpc_other_methods_are_unimplemented(stub):
    assert code_of(stub.Classify, classification_pb2.ClassificationRequest())[0] == "UNIMPLEMENTED"


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ("dtype: DT_FLOAT tensor_shape { dim { size: 3 } } tensor_content: 'abcd'", "4 bytes"),
        ("dtype: DT_FLOAT tensor_shape { dim { size: -1 } } float_val: 1", "shape must be known"),
        ("dtype: DT_FLOAT tensor_shape { unknown_rank: true }", "shape must be known"),
        ("dtype: 1234", "no data type"),
        ("dtype: DT_FLOAT tensor_shape { dim { size: 1 } } float_val: 1 float_val: 2", "no tensor"),
        (
            "dtype: DT_FLOAT tensor_shape { dim { size: 99999999999 } } float_val: 1",
            "bytes are more than the 33,554,432 that all may have",
        ),
        ("dtype: DT_VARIANT tensor_shape { }", "no "),
    ],
)
def test_grpc_malformed_tensors(stub, tensor, message):
    request = request_of(saved.make_inputs(1))
    request.inputs["age"].CopyFrom(text_format.Parse(tensor, tensor_pb2.TensorProto()))
    code, details = code_of(stub.Predict, request)
    assert code == "INVALID_ARGUMENT"
    assert "Tensor 'age'" in details and message in details


def test_grpc_repeated_value_stands_for_all(stub):
    request = request_of(saved.make_inputs(3))
    text = "dtype: DT_FLOAT tensor_shape { dim { size: 3 } } float_val: -5"
    request.inputs["age"].CopyFrom(text_format.Parse(text, tensor_pb2.TensorProto()))
    got = tf.make_ndarray(stub.Predict(request).outputs["probability"])
    inputs = saved.make_inputs(3) | {"age": [-5] * 3}
    np.testing.assert_allclose(got, saved.expected(inputs), atol=1e-6)


def test_grpc_small_request_for_much_memory(stub):
    """Each input may be as large as a request; all of them together may not be larger."""
    request = request_of(saved.make_inputs(1))
    text = "dtype: DT_FLOAT float_val: 1 tensor_shape { dim { size: 4000000 } }"
    for number in range(20):
        request.inputs[f"x{number}"].CopyFrom(text_format.Parse(text, tensor_pb2.TensorProto()))
    code, details = code_of(stub.Predict, request)
    assert code == "INVALID_ARGUMENT" and "33,554,432 that all may have" in details


def test_grpc_repeated_strings_count_with_their_length(stub):
    request = request_of(saved.make_inputs(1))
    text = f"dtype: DT_STRING string_val: '{1000 * 'x'}' tensor_shape {{ dim {{ size: 100000 }} }}"
    request.inputs["word"].CopyFrom(text_format.Parse(text, tensor_pb2.TensorProto()))
    code, details = code_of(stub.Predict, request)
    assert code == "INVALID_ARGUMENT" and "that all may have" in details


def test_grpc_too_large(start, shared_base):
    server = start(shared_base, limits=ck.serving.server.Limits(request_bytes=10_000))
    with Client(f"127.0.0.1:{server.port}") as client:
        with pytest.raises(ResourceExhaustedError, match="larger than max"):
            client.predict("clicks", saved.make_inputs(5000))
        client.predict("clicks", saved.make_inputs(5))


@pytest.mark.parametrize("letter", ["x", "é"])
def test_grpc_cuts_long_messages(stub, letter):
    """A client takes 8 KB of headers, and a letter that is not ASCII may need six bytes there."""
    code, details = code_of(stub.Predict, request_of(saved.make_inputs(1), letter * 50_000))
    assert code == "INVALID_ARGUMENT" and details.startswith("Serving signature name: ")
    assert details.endswith(letter + "...TRUNCATED") and 500 < len(details) <= 1024 + 12


def test_grpc_reload_config(start, base, versions, tmp_path):
    server = start(base)
    saved.publish(versions[2], tmp_path / "other", 2)
    request = model_management_pb2.ReloadConfigRequest()
    listed = request.config.model_config_list
    listed.config.add(name="other", base_path=str(tmp_path / "other"))
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        assert stub.HandleReloadConfigRequest(request).status.error_code == 0
        status = get_model_status_pb2.GetModelStatusRequest()
        status.model_spec.name = "other"
        assert stub.GetModelStatus(status).model_version_status[0].version == 2
        status.model_spec.name = "clicks"
        assert code_of(stub.GetModelStatus, status)[0] == "NOT_FOUND"
        listed.config[0].base_path = "relative"
        code, details = code_of(stub.HandleReloadConfigRequest, request)
        assert code == "INVALID_ARGUMENT" and "'relative'" in details
        listed.config[0].base_path = str(tmp_path / "nowhere")
        assert code_of(stub.HandleReloadConfigRequest, request)[0] == "FAILED_PRECONDITION"


def test_grpc_reload_below_the_root_of_models(start, base, versions, tmp_path):
    server = start(base, models_root=tmp_path)
    saved.publish(versions[2], tmp_path / "other", 2)
    request = model_management_pb2.ReloadConfigRequest()
    request.config.model_config_list.config.add(name="other", base_path="/models/other")
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        assert stub.HandleReloadConfigRequest(request).status.error_code == 0


def test_grpc_health(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    response = stub.Check(health_pb2.HealthCheckRequest())
    assert response.status == health_pb2.HealthCheckResponse.SERVING


# REST by hand

PREDICT = "/v1/models/clicks:predict"


def test_rest_rows_and_columns(http):
    inputs = {name: value.tolist() for name, value in saved.make_inputs(3).items()}
    inputs["word"] = [word.decode() for word in inputs["word"]]
    status, answer = http(PREDICT, {"inputs": inputs})
    assert status == 200
    np.testing.assert_allclose(answer["outputs"], saved.expected(inputs), atol=1e-6)
    rows = [dict(zip(inputs, row, strict=True)) for row in zip(*inputs.values(), strict=True)]
    status, by_rows = http("/v1/models/clicks/versions/1:predict", {"instances": rows})
    assert (status, by_rows) == (200, {"predictions": answer["outputs"]})


def test_rest_only_input_and_bytes(http):
    body = {"signature_name": "bytes", "instances": ["ab", {"b64": "//4="}]}
    status, answer = http("/v1/models/clicks/labels/stable:predict", body)
    assert status == 200
    assert answer["predictions"] == [
        {"word_bytes": {"b64": "YWL/"}, "length": 2},
        {"word_bytes": {"b64": "//7/"}, "length": 2},
    ]
    body = {"signature_name": "bytes", "inputs": {"b64": "//4="}}
    status, answer = http(PREDICT, body)
    assert status == 400 and "'word' must have the shape" in answer["error"]


def test_rest_status_and_metadata(http):
    assert http("/v1/models/clicks") == (
        200,
        {
            "model_version_status": [
                {
                    "version": "1",
                    "state": "AVAILABLE",
                    "status": {"error_code": "OK", "error_message": ""},
                }
            ]
        },
    )
    status, answer = http("/v1/models/clicks/metadata")
    assert status == 200 and answer["model_spec"]["version"] == "1"
    signature = answer["metadata"]["signature_def"]["signature_def"]["rank"]
    assert signature["inputs"]["ids"]["dtype"] == "DT_INT64"
    assert signature["inputs"]["ids"]["tensor_shape"]["dim"][0]["size"] == "1"


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/v1/models/ghost", None, 404, "ghost"),
        ("/v1/models/clicks/versions/9", None, 404, "version 9"),
        ("/v1/models/clicks/versions/x", None, 400, "Malformed request: GET /v1/models/clicks/v"),
        ("/", None, 400, "Malformed request: GET /"),
        ("/v1/models/clicks", {"inputs": 1}, 400, "Malformed request: POST"),
        ("/v1/models/clicks:classify", {"inputs": 1}, 501, "classify is not implemented"),
        (PREDICT, b"{", 400, "JSON Parse error"),
        (PREDICT, b"", 400, "JSON Parse error"),
        (PREDICT, b"\xff\xfe\xfd", 400, "JSON Parse error"),
        (PREDICT, b"[" * 200_000, 400, "JSON Parse error"),
        (PREDICT, b'{"inputs": ' + b"1" * 100_000 + b"}", 400, "JSON Parse error"),
        (PREDICT, [], 400, "must be an object"),
        (PREDICT, {}, 400, "either 'instances' or 'inputs'"),
        (PREDICT, {"inputs": {}, "instances": []}, 400, "either 'instances' or 'inputs'"),
        (PREDICT, {"inputs": {}, "input": 1}, 400, "'input'"),
        (PREDICT, {"inputs": {}, "signature_name": 3}, 400, "'signature_name' must be a string"),
        (PREDICT, {"inputs": {}, "signature_name": "click"}, 400, "'click' not found"),
        (PREDICT, {"inputs": [1.0]}, 400, "expected an object with their names"),
        (PREDICT, {"inputs": {"price": 1}}, 400, "no input 'price'"),
        (PREDICT, {"inputs": {"age": 1.0}}, 400, "'ids' is missing"),
        (PREDICT, {"inputs": {"age": ["1"]}}, 400, "'age' must be float32.*str"),
        (PREDICT, {"inputs": {"age": [True]}}, 400, "'age' must be float32.*bool"),
        (PREDICT, {"inputs": {"age": [None]}}, 400, "'age' must be float32.*NoneType"),
        (PREDICT, {"inputs": {"age": [1e300]}}, 400, "'age'.*out of its range"),
        (PREDICT, {"inputs": {"age": [[1], 2]}}, 400, "'age'.*different length or depth"),
        (PREDICT, {"inputs": {"ids": [[1.5]]}}, 400, "'ids' must be int64.*float"),
        (PREDICT, {"inputs": {"ids": [[2**70]]}}, 400, "'ids'.*out of its range"),
        (PREDICT, {"inputs": {"ids": [[1], [2, 3]]}}, 400, "'ids'.*different length"),
        (PREDICT, {"inputs": {"word": [3]}}, 400, "'word' must be string.*int"),
        (PREDICT, {"inputs": {"word": [{"b64": "%"}]}}, 400, "'word'.*cannot be read"),
        (PREDICT, b'{"inputs": {"word": ["\\ud800"]}}', 400, "'word'.*cannot be read"),
        (PREDICT, {"instances": []}, 400, "at least one row"),
        (PREDICT, {"instances": [{"age": 1}, {"ids": 1}]}, 400, "row 1"),
    ],
)
def test_rest_errors(http, path, body, status, message):
    got, answer = http(path, body)
    assert got == status
    assert set(answer) == {"error"}
    assert re.search(message, answer["error"]), answer


def test_rest_infinite_numbers_are_numbers(http):
    inputs = {"age": [float("inf"), float("nan")], "ids": [[], []], "word": ["", ""]}
    status, answer = http(PREDICT, {"inputs": inputs})
    assert status == 200 and answer["outputs"][0] == 1 and np.isnan(answer["outputs"][1])


def test_rest_metrics(http, server):
    http(PREDICT, {"inputs": {}})
    url = f"http://127.0.0.1:{server.rest_port}/monitoring/prometheus/metrics"
    with urllib.request.urlopen(url) as response:
        text = response.read().decode()
    assert 'ctr_serving_version_available{model="clicks",version="1"} 1.0' in text
    labels = 'code="INVALID_ARGUMENT",method="Predict",model="clicks",protocol="rest"'
    assert f"ctr_serving_requests_total{{{labels}}}" in text
    assert 'model="ghost"' not in text  # what anybody asks for must not become a series
