"""From the images of a request to their captions: what every protocol does, whatever its wrapping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from captioner import Caption
from captioner.config import ImageConfig
from captioner.engines import FloatArray
from captioner.errors import CaptionerError
from captioner.images import load_pixels
from service.config import ServiceConfig
from service.errors import RequestError
from service.inputs import image_bytes
from service.models import ModelRegistry, ServedModel
from service.options import CaptionOptions, parse_options


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
    """

    def __init__(self, registry: ModelRegistry, config: ServiceConfig) -> None:
        self.registry = registry
        self.config = config

    def caption(self, images: Sequence[object], fields: Mapping[str, object]) -> Captioned:
        """Caption images, each for itself: one that is bad leaves its neighbours alone.

        Args:
            images: as :class:`service.inputs.Upload` holds them.
            fields: see :func:`service.options.parse_options`.

        Raises:
            ModelError, OptionError, UnavailableError: as their messages say.
        """
        options = parse_options(fields, self.config)
        model = self.registry.get(options.model)
        decoding = model.ready().options(**options.decoding)  # refused before any image is decoded
        loaded = [self._load(image, model.info.image) for image in images]
        captions = iter(model.caption([item for item in loaded if not isinstance(item, CaptionerError)], decoding))
        results = tuple(item if isinstance(item, CaptionerError) else next(captions) for item in loaded)
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

    def _load(self, image: object, config: ImageConfig) -> FloatArray | CaptionerError:
        """The network's input for one image, or what is wrong with it."""
        try:
            return load_pixels(image_bytes(image), config, max_pixels=self.config.max_pixels)
        except CaptionerError as error:
            return error
