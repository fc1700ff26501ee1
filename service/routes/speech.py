"""``POST /v1/speech``: an image, a text or phones in, a WAV file out, whole or as it is spoken."""

from __future__ import annotations

import itertools
import reprlib
import threading
from collections.abc import Callable, Iterator, Mapping

from flask import Blueprint, Response, current_app, g, request

from captioner.config import require
from captioner.errors import CaptionerError, OptionError
from captioner.phones import check_phones
from captioner.sound import Sound, join, wav_stream
from captioner.speech import MAX_TEXT, EspeakSpeaker, Voice, speak_caption
from service.admission import Gate
from service.captioning import Captioning
from service.errors import RequestError, UnavailableError
from service.inputs import Upload, read_upload
from service.options import parse_voice, read_flag

SPOKEN = ("text", "phones")
MAX_STREAM = 200_000  # characters or phones of one stream
MAX_STREAM_SECONDS = 4 * 3600  # of its sound: figures and some scripts are far longer aloud than on paper
MAX_STREAMS = 2  # at a time: a listener who reads as slowly as the sound plays holds one of the worker's threads


def blueprint(captioning: Captioning, speaker: Callable[[], EspeakSpeaker], gate: Gate) -> Blueprint:
    """The speech route over ``captioning``, by ``speaker``'s voices, for as many as ``gate`` lets in."""
    routes = Blueprint("speech", __name__)
    free = threading.BoundedSemaphore(MAX_STREAMS)

    @routes.post("/v1/speech")
    def speech() -> Response:
        upload = read_upload(request, captioning.config, instead=SPOKEN)
        query = request.args.to_dict()
        voice, fields = parse_voice({**query, **upload.fields})
        misplaced = sorted({*SPOKEN, "n_best", "attention"} & set(fields if upload.images else query))
        if misplaced:
            raise OptionError(f"{misplaced[0]} has no meaning here")
        streamed = read_flag("stream", fields.pop("stream", False))
        if upload.images:
            sounds = iter([say(upload, fields, voice)])
        else:
            sounds = speak(fields, voice, most=MAX_STREAM if streamed else MAX_TEXT)
        if not streamed:
            with gate.admit():
                return Response(join(sounds).wav(), mimetype="audio/wav")
        if not free.acquire(blocking=False):
            raise UnavailableError("Others are listening to streams already; try again later.", code="busy")
        try:
            response = Response(_streamed(sounds), mimetype="audio/wav")
        except BaseException:
            free.release()
            raise
        response.call_on_close(free.release)
        return response

    def say(upload: Upload, fields: Mapping[str, object], voice: Voice) -> Sound:
        """What a model says about the image."""
        engine = speaker()  # what is missing is told before anything is decoded
        model, (caption, *_) = captioning.caption_one(upload.images, fields)
        return speak_caption(engine, caption, model.info.tokenizer, voice)

    def speak(fields: Mapping[str, object], voice: Voice, most: int) -> Iterator[Sound]:
        """The text or phones themselves."""
        unknown = sorted(set(fields) - set(SPOKEN))
        if unknown:
            raise OptionError(
                f"{reprlib.repr(unknown[0])} has no meaning without an image; voice, rate, pitch and stream have"
            )
        if "text" in fields:
            text = fields["text"]
            if not isinstance(text, str):
                raise RequestError('"text" must be a text')
            require(len(text) <= most, f"the text is too long to speak: {len(text)} characters, at most {most}")
            return speaker().stream(text, voice)
        phones = fields["phones"]
        if not isinstance(phones, list) or not all(isinstance(phone, str) for phone in phones):
            raise RequestError('"phones" must be a list of ARPAbet phones')
        require(len(phones) <= most, f"these are too many phones to speak: {len(phones)}, at most {most}")
        return speaker().stream_phones(check_phones(phones), voice)

    return routes


def _streamed(sounds: Iterator[Sound]) -> Iterator[bytes]:
    """A WAV file in parts; what is refused is so before the first one, while the reply can still say why."""
    request_id, logger = g.request_id, current_app.logger
    first = next(sounds)

    def parts() -> Iterator[bytes]:
        try:
            yield from wav_stream(_bounded(itertools.chain([first], sounds)))
        except CaptionerError:  # the status is sent: all that is left is to break off, so that the listener can tell
            logger.exception("request %s broke off while it was spoken", request_id)
            raise

    return parts()


def _bounded(sounds: Iterator[Sound]) -> Iterator[Sound]:
    seconds = 0.0
    for sound in sounds:
        yield sound
        seconds += sound.seconds
        require(seconds <= MAX_STREAM_SECONDS, f"a stream ends after {MAX_STREAM_SECONDS} seconds")
