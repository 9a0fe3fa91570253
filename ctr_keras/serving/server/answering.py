"""What both protocols do with a request: answer it or say why not, and count it."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from ctr_keras.serving.errors import ServingError
from ctr_keras.serving.server.manager import ModelManager
from ctr_keras.serving.server.metrics import Metrics

_LOG = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")


class Answering:
    """Runs what answers a request, and lets no error out that is not a `ServingError`.

    Args:
        manager: The models; others than these are not counted by name.
        metrics: Counts requests.
        protocol: What they are counted as.
    """

    def __init__(self, manager: ModelManager, metrics: Metrics, protocol: str):
        self._manager = manager
        self._metrics = metrics
        self._protocol = protocol

    def run(self, model: str, method: str, answer: Callable[[], _Answer]) -> _Answer:
        """What `answer` returns.

        Raises:
            ServingError: it could not be answered.
        """
        started = time.perf_counter()
        code = "OK"
        try:
            return answer()
        except ServingError as error:
            code = error.code
            raise
        except Exception:  # A bug must not take more than this request with it.
            _LOG.exception("A request failed (%s)", self._protocol)
            code = ServingError.code
            raise ServingError("Internal error; the server's log has it") from None
        finally:
            known = model if model in self._manager.names else ""
            seconds = time.perf_counter() - started
            self._metrics.observe(known, self._protocol, method, code, seconds)
