"""``POST /v1/speech``: an image, a text or phones in, a WAV file out."""

from __future__ import annotations

import functools
import reprlib
from collections.abc import Mapping

from flask import Blueprint, Response, request

from captioner.config import require
from captioner.errors import OptionError
from captioner.images import load_pixels
from captioner.phones import parse_phones
from captioner.speech import MAX_TEXT, EspeakSpeaker, Sound, Voice, speak_caption
from service.config import ServiceConfig
from service.errors import RequestError
from service.inputs import Upload, image_bytes, read_upload
from service.models import ModelRegistry
from service.options import parse_options, parse_voice

SPOKEN = ("text", "phones")


def blueprint(registry: ModelRegistry, config: ServiceConfig) -> Blueprint:
    """The speech route: captions by the models of ``registry``, within the limits of ``config``."""
    routes = Blueprint("speech", __name__)
    speaker = functools.cache(EspeakSpeaker)  # one for this process, made for the first request

    @routes.post("/v1/speech")
    def speech() -> Response:
        upload = read_upload(request, config, instead=SPOKEN)
        query = request.args.to_dict()
        voice, fields = parse_voice({**query, **upload.fields})
        misplaced = sorted({*SPOKEN, "n_best", "attention"} & set(fields if upload.images else query))
        if misplaced:
            raise OptionError(f"{misplaced[0]} has no meaning here")
        sound = say(upload, fields, voice) if upload.images else speak(fields, voice)
        return Response(sound.wav(), mimetype="audio/wav")

    def say(upload: Upload, fields: Mapping[str, object], voice: Voice) -> Sound:
        """What a model says about the image."""
        if len(upload.images) > 1:
            raise RequestError(f"Speech is of one image; {len(upload.images)} came", code="too_many_images")
        options = parse_options(fields, config)
        engine, model = speaker(), registry.get(options.model)  # what is missing is told before anything is decoded
        decoding = model.ready().options(**options.decoding)
        pixels = load_pixels(image_bytes(upload.images[0]), model.info.image, max_pixels=config.max_pixels)
        ((caption, *_),) = model.caption([pixels], decoding)
        return speak_caption(engine, caption, model.info.tokenizer, voice)

    def speak(fields: Mapping[str, object], voice: Voice) -> Sound:
        """The text or phones themselves."""
        unknown = sorted(set(fields) - set(SPOKEN))
        if unknown:
            raise OptionError(f"{reprlib.repr(unknown[0])} has no meaning without an image; voice, rate and pitch have")
        if "text" in fields:
            text = fields["text"]
            if not isinstance(text, str):
                raise RequestError('"text" must be a text')
            return speaker().text(text, voice)
        phones = fields["phones"]
        if not isinstance(phones, list) or not all(isinstance(phone, str) for phone in phones):
            raise RequestError('"phones" must be a list of ARPAbet phones')
        require(len(phones) <= MAX_TEXT, f"these are too many phones to speak: {len(phones)}, at most {MAX_TEXT}")
        return speaker().phones(parse_phones(" ".join(phones)), voice)

    return routes
