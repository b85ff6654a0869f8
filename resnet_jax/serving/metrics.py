"""Numbers for Prometheus."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE_LATEST

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """What a server counts and measures.

    Args:
        waiting: Returns the number of images in requests that have not been answered.
        ready: Returns 1 if the server is ready and 0 otherwise.

    Attributes:
        requests: Number of requests, by endpoint and status.
        seconds: Time from a request to its answer, by endpoint.
        images: Number of images that the network has classified.
    """

    def __init__(self, *, waiting: Callable[[], float], ready: Callable[[], float]) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "resnet_jax_requests", "Requests.", ["endpoint", "status"], registry=registry
        )
        self.seconds = Histogram(
            "resnet_jax_request_seconds",
            "Time from a request to its answer.",
            ["endpoint"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.images = Counter("resnet_jax_images", "Classified images.", registry=registry)
        self._batch_images = Histogram(
            "resnet_jax_batch_images",
            "Images that the network computed at once.",
            buckets=_IMAGES,
            registry=registry,
        )
        self._batch_seconds = Histogram(
            "resnet_jax_batch_seconds",
            "Time in which the network computed a batch.",
            buckets=_SECONDS,
            registry=registry,
        )
        Gauge(
            "resnet_jax_waiting_images",
            "Images in requests that have not been answered.",
            registry=registry,
        ).set_function(waiting)
        Gauge(
            "resnet_jax_ready", "Whether all programs are compiled.", registry=registry
        ).set_function(ready)

    def observe_batch(self, images: int, seconds: float) -> None:
        """Count a batch."""
        self._batch_images.observe(images)
        self._batch_seconds.observe(seconds)

    def observe_request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count a request."""
        self.requests.labels(endpoint, str(status)).inc()
        self.seconds.labels(endpoint).observe(seconds)

    def text(self) -> bytes:
        """Return all numbers in the text format of Prometheus, see `CONTENT_TYPE_LATEST`."""
        return generate_latest(self._registry)
