"""From loading to draining: when the service takes requests."""

from __future__ import annotations

import time

from service.captioning import Captioning
from service.errors import UnavailableError


class Lifecycle:
    """What the server that runs the application may ask of it; the application's extension ``captioner``."""

    def __init__(self, captioning: Captioning) -> None:
        self._captioning = captioning
        self._draining_since = float("inf")

    @property
    def settled(self) -> bool:
        """Whether each model is loaded, or will not be."""
        return all(model.status != "loading" for model in self._captioning.registry)

    def load(self) -> None:
        """Load the models in the background, at the start or anew; the old ones serve until the new ones can."""
        self._captioning.load_models()

    def wait_for_loading(self, seconds: float) -> None:
        """Let models that are being loaded arrive before the process ends, see :meth:`ModelRegistry.wait`."""
        self._captioning.registry.wait(seconds)

    def drain(self) -> None:
        """Refuse what begins from now on; what has begun is finished."""
        self._draining_since = time.monotonic()

    def count_refusal(self, code: str) -> None:
        """Count a request that the server answered with an error itself."""
        self._captioning.metrics.count_refusal(code)

    def check(self, began: float) -> None:
        """Let a request pass that began at that time, by ``time.monotonic``.

        Raises:
            UnavailableError: the service was stopping by then.
        """
        if began > self._draining_since:
            raise UnavailableError("The service is stopping; try again shortly", code="draining")

    def check_ready(self) -> None:
        """Let pass if any request would be.

        Raises:
            UnavailableError: the service is stopping, a model is still loading, or could not be loaded.
        """
        self.check(time.monotonic())
        for model in self._captioning.registry:
            model.ready()
