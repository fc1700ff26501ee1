"""One picture of a request, captioned: what every protocol that takes a single one does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from captioner import Caption
from captioner.images import load_pixels
from service.config import ServiceConfig
from service.errors import RequestError
from service.inputs import image_bytes
from service.models import ModelRegistry, ServedModel
from service.options import parse_options


def caption_one(
    images: Sequence[object], fields: Mapping[str, object], registry: ModelRegistry, config: ServiceConfig
) -> tuple[ServedModel, list[Caption]]:
    """The model that the fields of a request choose, and its captions of the picture, best first.

    Args:
        images: as :class:`service.inputs.Upload` holds them.
        fields: see :func:`service.options.parse_options`.
        registry: the models.
        config: the limits.

    Raises:
        RequestError: there is more than one image, or it is no base64.
        ImageError, ModelError, OptionError, UnavailableError: as their messages say.
    """
    if len(images) > 1:
        raise RequestError(f"One image at a time is taken here; {len(images)} came", code="too_many_images")
    options = parse_options(fields, config)
    model = registry.get(options.model)
    decoding = model.ready().options(**options.decoding)  # refused before the image is decoded
    pixels = load_pixels(image_bytes(images[0]), model.info.image, max_pixels=config.max_pixels)
    (captions,) = model.caption([pixels], decoding)
    return model, captions
