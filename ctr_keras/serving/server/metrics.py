"""What a server counts, in the text format of Prometheus."""

from typing import Any

from ctr_keras.extras import require
from ctr_keras.serving.server.manager import ModelManager

prometheus: Any = require("prometheus_client", "serving", "A server of models")

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """Requests by model, protocol, method and status; latency; versions that are available."""

    def __init__(self) -> None:
        self._registry = prometheus.CollectorRegistry()
        self._requests = prometheus.Counter(
            "ctr_serving_requests",
            "Requests that were answered, by gRPC's name of the status.",
            ["model", "protocol", "method", "code"],
            registry=self._registry,
        )
        self._seconds = prometheus.Histogram(
            "ctr_serving_request_seconds",
            "Time from the request's arrival to its answer, without the network.",
            ["model", "protocol", "method"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._versions = prometheus.Gauge(
            "ctr_serving_version_available",
            "1 for each version that answers requests.",
            ["model", "version"],
            registry=self._registry,
        )

    def observe(self, model: str, protocol: str, method: str, code: str, seconds: float) -> None:
        """Count a request; `model` is `""` where there is no such model."""
        self._requests.labels(model, protocol, method, code).inc()
        self._seconds.labels(model, protocol, method).observe(seconds)

    def text(self, manager: ModelManager) -> bytes:
        """All of it, as Prometheus reads it."""
        self._versions.clear()
        for name, versions in manager.available().items():
            for version in versions:
                self._versions.labels(name, version).set(1)
        return prometheus.generate_latest(self._registry)
