"""A server as a process: until it is told to stop."""

import concurrent.futures
import contextlib
import gc
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from ctr_keras.serving.server.background import in_thread
from ctr_keras.serving.server.server import Server, ServerConfig

# How long a thread that computes in Python may keep the others waiting, seconds. Python's default
# of 5 ms would be in the way of a request several times.
_SWITCH_SECONDS = 0.0005
# How soon it is noticed, while models load, that the server is to stop.
_LOOK_SECONDS = 0.05


def run(config: ServerConfig, report: Callable[[str], None], drain_seconds: float = 10.0) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is under way.

    Told so while models load, it loads no further one and does not get ready.

    Args:
        config: What to serve, and how.
        report: Takes the line that says that the server is ready, and with which ports.
        drain_seconds: How long to wait for requests that are under way, or a model that loads.
    """
    server = Server(config)
    gc.freeze()  # What was imported stays: a collection that goes through it stops all requests.
    with _told_to_stop() as told, _switching_threads_often():
        try:
            if _started(server, told):
                report(_ready(server, config.host))
                told.wait()
        finally:
            server.stop(drain_seconds)


def _started(server: Server, told: threading.Event) -> bool:
    """Start a server; whether it was not told to stop before it was ready.

    In another thread, as a signal does not interrupt the loading of a model.
    """
    starting = in_thread(server.start)
    while not told.is_set():
        if concurrent.futures.wait([starting], _LOOK_SECONDS).done:
            starting.result()
            return True
    return False


@contextlib.contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set."""
    told = threading.Event()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: told.set()) for number in numbers]
    try:
        yield told
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def _switching_threads_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _ready(server: Server, host: str) -> str:
    models = ", ".join(
        f"{name} {versions or 'without a version'}"
        for name, versions in sorted(server.manager.available().items())
    )
    return f"ready: gRPC {host}:{server.port}, REST {host}:{server.rest_port}; {models}"
