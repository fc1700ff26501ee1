"""From the images of a request to their captions: what every protocol does, whatever its wrapping.

An image passes three stages: it is decoded in the thread of its request, as many at a time as there are cores; it
waits in the queue; the model captions it among others. The gate bounds how many are anywhere in there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from flask import request
from PIL import Image

import captioner
from captioner import Caption, Captioner, DecodingOptions
from captioner.cores import usable_cores
from captioner.engines import FloatArray
from captioner.errors import CaptionerError
from captioner.images import load_pixels, to_array
from service.admission import Gate
from service.batching import Batcher
from service.caller import Caller
from service.config import ServiceConfig
from service.errors import RequestError, UnavailableError
from service.inputs import SERVED_FORMATS, image_bytes
from service.metrics import Metrics
from service.models import ModelRegistry, ServedModel
from service.options import CaptionOptions, parse_options

WARM_UP = 9  # pictures: one more than any engine's encoder reads at a time


@dataclass(frozen=True)
class Captioned:
    """What became of a request's images.

    Attributes:
        model: the one that was asked for.
        options: what was asked for.
        results: one an image, in order: its captions, best first, or why there are none.
    """

    model: ServedModel
    options: CaptionOptions
    results: tuple[list[Caption] | CaptionerError, ...]


class Captioning:
    """Captions the images of requests.

    Attributes:
        registry: the models.
        config: the limits.
        metrics: told how long each stage takes.
    """

    def __init__(self, registry: ModelRegistry, config: ServiceConfig, metrics: Metrics) -> None:
        self.registry = registry
        self.config = config
        self.metrics = metrics
        self._cores = config.cores or usable_cores()
        full = "There are more images to caption than this service can take; try again later"
        self._gate = Gate(config.max_queue, full, watch=metrics.set_queue_depth)
        self._decoders = threading.BoundedSemaphore(self._cores)
        self._batcher = Batcher(
            max_batch=config.max_batch,
            wait=config.batch_wait_ms / 1000,
            metrics=metrics,
            parallel=min(config.parallel_batches, self._cores),
            share=self._share_cores,
        )

    def load_models(self) -> None:
        """Load the models, or load them anew, in the background."""
        self.registry.load(self._load, self._warm_up)

    def caption(self, images: Sequence[object], fields: Mapping[str, object]) -> Captioned:
        """Caption images of the current request, each for itself: one that is bad leaves its neighbours alone.

        Args:
            images: as :class:`service.inputs.Upload` holds them.
            fields: see :func:`service.options.parse_options`.

        Raises:
            ModelError, OptionError: as their messages say.
            UnavailableError: the model is not ready, the service is full, or the deadline has passed.
        """
        caller = Caller.of(request.environ, self.config.deadline_seconds)
        options = parse_options(fields, self.config)
        model = self.registry.get(options.model)
        loaded = model.ready()
        decoding = loaded.options(**options.decoding)  # refused before any image is decoded
        pending: list[Future[list[Caption]] | CaptionerError] = []
        with self._gate.admit(len(images)):
            try:
                for image in images:
                    pending.append(self._queue(image, loaded, decoding, caller))
                results = tuple(_result(each, caller) for each in pending)
            finally:
                for each in pending:
                    if isinstance(each, Future):
                        each.cancel()  # nobody waits any longer for what is not done
        return Captioned(model, options, results)

    def caption_one(self, images: Sequence[object], fields: Mapping[str, object]) -> tuple[ServedModel, list[Caption]]:
        """Caption the only image of a request: the model that its fields choose, and the captions, best first.

        Raises:
            RequestError: there is more than one image, or it is no base64.
            ImageError, ModelError, OptionError, UnavailableError: as their messages say.
        """
        if len(images) > 1:
            raise RequestError(f"One image at a time is taken here; {len(images)} came", code="too_many_images")
        captioned = self.caption(images, fields)
        (result,) = captioned.results
        if isinstance(result, CaptionerError):
            raise result
        return captioned.model, result

    def _queue(
        self, image: object, model: Captioner, options: DecodingOptions, caller: Caller
    ) -> Future[list[Caption]] | CaptionerError:
        """Decode an image and queue it; what is wrong with it stands in its place."""
        with self._batcher.expecting():
            try:
                pixels = self._decode(image, model, caller)
            except UnavailableError:
                raise
            except CaptionerError as error:
                return error
            return self._batcher.submit(model, pixels, options, caller)

    def _decode(self, image: object, model: Captioner, caller: Caller) -> FloatArray:
        """The network's input for one image. As many are decoded at a time as this worker has cores: a large one
        takes much memory."""
        data = image_bytes(image)
        while not self._decoders.acquire(timeout=caller.left()):
            pass  # until there are no seconds left, which raises
        try:
            started = time.monotonic()
            return load_pixels(data, model.info.image, max_pixels=self.config.max_pixels, formats=SERVED_FORMATS)
        finally:
            self._decoders.release()
            self.metrics.observe_stage("decode", time.monotonic() - started)

    def _load(self, directory: Path) -> Captioner:
        config = self.config
        return captioner.load(directory, engine=config.engine, precision=config.precision, threads=self._cores)

    def _share_cores(self, batches: int) -> None:
        """Let this thread's networks use its share of the cores."""
        for model in self.registry:
            model.use_cores(max(1, self._cores // batches))

    def _warm_up(self, model: Captioner) -> None:
        """Caption blank pictures where all others will be captioned, more than the network reads at a time."""
        blank = to_array(Image.new("RGB", (8, 8)), model.info.image)
        options, patient = model.options(), Caller(float("inf"))
        for captions in [self._batcher.submit(model, blank, options, patient) for _ in range(WARM_UP)]:
            captions.result()


def _result(pending: Future[list[Caption]] | CaptionerError, caller: Caller) -> list[Caption] | CaptionerError:
    """The captions of an image, or why it has none; what concerns the whole request is raised."""
    if isinstance(pending, CaptionerError):
        return pending
    try:
        return pending.result(timeout=caller.left())
    except TimeoutError:
        caller.left()
        raise
    except UnavailableError:
        raise
    except CaptionerError as error:
        return error
