"""`ctr-keras serve` as a user runs it."""

import os
import pathlib
import signal
import sys
import threading
import time

import numpy as np
import pytest

from ctr_keras import cli
from ctr_keras.serving import Client, ClientOptions
from ctr_keras.serving.protocol import grpc, predict_pb2, prediction_service_pb2_grpc
from ctr_keras.serving.server_files import SERVER_ROOT, write_server_files
from ctr_keras.serving.tensors import to_proto
from tests.serving.server import saved


@pytest.fixture
def serve(monkeypatch, capfd):
    """Exit status and stdout of `ctr-keras serve`; `ask` gets the addresses once it is ready."""

    def serve(*arguments, ask=None):
        monkeypatch.setattr(sys, "argv", ["ctr-keras", "serve", *map(str, arguments)])
        failed = []
        asking = threading.Thread(target=_ask_when_ready, args=(capfd, ask, failed))
        if ask is not None:
            asking.start()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        if ask is not None:
            asking.join(10)
        assert failed == []
        return stop.value.code or 0, capfd.readouterr()

    return serve


def _ask_when_ready(capfd, ask, failed):
    line = ""
    for _ in range(2000):
        line += capfd.readouterr().out
        if line.endswith("\n"):
            break
        time.sleep(0.01)
    try:
        words = line.replace(",", "").replace(";", "").split()
        ask({"grpc": words[2], "rest": words[4]}, line)
    except Exception as error:
        failed.append(error)
    os.kill(os.getpid(), signal.SIGTERM)


def check_both(options=None):
    def ask(addresses, line):
        assert line.endswith("; clicks [1]\n")
        inputs = saved.make_inputs(2)
        for protocol, address in addresses.items():
            with Client(address, protocol, options) as client:
                got = client.predict("clicks", inputs)["probability"]
            np.testing.assert_allclose(got, saved.expected(inputs), atol=1e-6)

    return ask


FREE = ("--port", 0, "--rest-port", 0)


def test_model(serve, shared_base):
    assert serve("--model", f"clicks={shared_base}", *FREE, ask=check_both())[0] == 0


def test_as_many_wait_as_may(serve, shared_base):
    def ask(addresses, line):
        with grpc.insecure_channel(addresses["grpc"]) as channel:
            predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
            long = [predict.future(_slow(50_000)) for _ in range(os.cpu_count())]
            short = [predict.future(_slow(1)) for _ in range(300)]
            codes = [call.code() for call in long + short]
        assert set(codes) == {grpc.StatusCode.OK}

    options = ("--max-waiting", 300)
    assert serve("--model", f"clicks={shared_base}", *options, *FREE, ask=ask)[0] == 0


def _slow(steps):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "clicks", "slow"
    request.inputs["steps"].CopyFrom(to_proto(np.array([steps])))
    return request


def test_batching(serve, shared_base):
    options = ("--batching", "--max-batch-size", 16)
    assert serve("--model", f"clicks={shared_base}", *options, *FREE, ask=check_both())[0] == 0


def test_config_batching_file_and_token(serve, shared_base, tmp_path):
    (tmp_path / "models.config").write_text(
        f'model_config_list {{ config {{ name: "clicks" base_path: "{shared_base}" }} }}'
    )
    (tmp_path / "batching.config").write_text("max_batch_size { value: 16 }")
    (tmp_path / "token").write_text("sesame\n")
    status, _ = serve(
        *("--config", tmp_path / "models.config"),
        *("--batching-file", tmp_path / "batching.config"),
        *("--token-file", tmp_path / "token"),
        *FREE,
        ask=check_both(ClientOptions(token="sesame")),
    )
    assert status == 0


@pytest.mark.parametrize("root", [None, "elsewhere"])
def test_the_config_that_export_writes(serve, versions, tmp_path, root):
    """It names the paths of a container, where the folder of models is `/models`."""
    if root is None and pathlib.Path(SERVER_ROOT).exists():
        pytest.skip(f"this machine has {SERVER_ROOT}")
    folder = tmp_path / (root or "saved_models")
    saved.publish(versions[1], folder / "clicks", 1)
    config = tmp_path / "saved_models" / "models.config"
    config.parent.mkdir(exist_ok=True)
    write_server_files(config.parent, "clicks")
    assert '"/models/clicks"' in config.read_text()
    options = () if root is None else ("--models-root", folder)
    assert serve("--config", config, *options, *FREE, ask=check_both())[0] == 0


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "give either --model or --config"),
        (["--model", "clicks"], 2, "expected NAME=BASE_PATH, got 'clicks'"),
        (["--config", "nowhere.config"], 1, "nowhere.config"),
        (["--model", "a=b", "--models-root", "c"], 2, "--models-root goes with --config"),
        (["--model", "a=b", "--max-batch-size", "8"], 2, "--max-batch-size goes with --batching"),
        (
            ["--model", "a=b", "--batching", "--batching-file", "c", "--batch-timeout-micros", "0"],
            2,
            "--batch-timeout-micros goes with --batching, without",
        ),
        (["--model", "a=b", "--max-request-mb", "0"], 1, "`request_bytes=0`"),
        (["--model", "a=b", "--tls-cert", "x"], 1, "go together"),
        (["--model", "a=b", "--tls-cert", "x", "--tls-key", "y"], 1, "`tls_cert='x'`"),
        (["--model", "a=b", "--token-file", "x"], 2, "Invalid value for '--token-file'"),
        (["--model", "a=b", "--model", "a=c"], 1, "same name"),
        (["--model", "a=b", "--port", "99999"], 2, "Invalid value for '--port'"),
        (["--model", "a=b", "--rest-port", "-1"], 2, "Invalid value for '--rest-port'"),
    ],
)
def test_wrong_usage(serve, arguments, status, message):
    got, captured = serve(*FREE, *arguments)
    assert got == status and message in captured.err
