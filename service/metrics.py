"""What is counted and timed, for Prometheus: the sum over all workers, whichever of them is asked.

prometheus_client decides as it is imported whether processes count together, so it is imported here only where it is
needed: under a server after :func:`share_between_workers`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # where prometheus_client looks for the folder that processes share
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The service's figures. All labels come from small sets, so that no stranger can make their number grow."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        # Of its own, so that several applications in one process do not meet.
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "captioner_requests", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        self._request_seconds = Histogram(
            "captioner_request_seconds",
            "From a request's arrival at the application to its reply, in seconds.",
            ("route",),
            buckets=SECONDS,
            registry=registry,
        )
        self._refusals = Counter("captioner_refusals", "Requests answered with an error.", ("code",), registry=registry)
        self._stage_seconds = Histogram(
            "captioner_stage_seconds",
            "Parts of a request: decode, of one image; queue, its wait; model, of one batch.",
            ("stage",),
            buckets=SECONDS,
            registry=registry,
        )
        self._batch_images = Histogram(
            "captioner_batch_images",
            "Images that the network captioned together.",
            ("model",),
            buckets=IMAGES,
            registry=registry,
        )
        self._queue_images = Gauge(
            "captioner_queue_images",
            "Images in hand: being decoded, waiting, or captioned.",
            registry=registry,
            multiprocess_mode="livesum",
        )

    def observe_request(self, method: str, route: str, status: int, seconds: float, refusal: str | None) -> None:
        """Count a request.

        Args:
            method, route, status: the route as its pattern, never as the path that was asked for.
            seconds: how long its reply took.
            refusal: the code of its error.
        """
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)
        if refusal:
            self.count_refusal(refusal)

    def count_refusal(self, code: str) -> None:
        """Count a request that was answered with an error, perhaps before it reached the application."""
        self._refusals.labels(code).inc()

    def observe_stage(self, stage: str, seconds: float) -> None:
        """Time one ``decode``, ``queue`` or ``model``."""
        self._stage_seconds.labels(stage).observe(seconds)

    def observe_batch(self, model: str, images: int) -> None:
        """Count one batch of the model of that name."""
        self._batch_images.labels(model).observe(images)

    def set_queue_depth(self, images: int) -> None:
        """Tell how many images this worker has in hand: being decoded, waiting, or captioned."""
        self._queue_images.set(images)

    def expose(self, accept: str) -> tuple[bytes, str]:
        """All figures as text, and its content type, in the form of Prometheus that ``accept`` asks for."""
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = self._registry
        if FOLDER in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type


def share_between_workers() -> dict[str, Callable[..., None]]:
    """Let the workers of one server count together; to be called in their parent.

    Returns:
        Gunicorn's hooks: one forgets what a worker that ended had waiting, one clears up at the very end.
    """
    # Fresh at every start: what an earlier server counted is not this one's.
    folder = os.environ[FOLDER] = tempfile.mkdtemp(prefix="captioner-metrics-")

    def child_exit(_server: Any, worker: Any) -> None:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]

    def on_exit(_server: Any) -> None:
        shutil.rmtree(folder, ignore_errors=True)

    return {"child_exit": child_exit, "on_exit": on_exit}
