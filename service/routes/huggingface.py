"""What ``huggingface_hub.InferenceClient`` speaks: ``image_to_text``, ``text_to_speech`` and ``get_endpoint_info``.

Both tasks post to one URL. A body that is no JSON object is an image, or a form with one. The text in
``{"inputs": "..."}`` stands for an image if it is a URL, or valid base64 with a line longer than any word; all else is
to be spoken. To look at the bytes alone would not do: a sentence without a full stop is often valid base64, and of
bytes that now and then begin as images do.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, Response, request

from captioner import __version__
from captioner.errors import OptionError
from captioner.speech import Speaker
from service.admission import Gate
from service.captioning import Captioning
from service.errors import RequestError
from service.inputs import image_bytes, read_upload
from service.options import parse_voice, read_flag

# Their generation parameters and what those are called here; of two names for one thing the later counts, as theirs do.
PARAMETERS = {
    "num_beams": "beam_size",
    "num_return_sequences": "n_best",
    "max_length": "max_length",
    "max_new_tokens": "max_length",
    "length_penalty": "length_penalty",
    "no_repeat_ngram_size": "no_repeat_ngram",
    "do_sample": "method",  # sample, else beam
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
}
GROUPS = ("generation_parameters", "generate_kwargs")
IGNORED_PARAMETERS = ("use_cache",)  # how transformers computes, not what
IGNORED_FIELDS = ("options",)  # of older clients, to Hugging Face's own queue and cache; there is neither here

URL = re.compile(r"data:[^\s,]*;base64,|https?://\S+$", re.IGNORECASE)
LONGEST_WORD = 45  # letters, of a disease of the lungs; lines of base64 have 64 or more, the smallest images 48 in all


def blueprint(captioning: Captioning, speaker: Callable[[], Speaker], gate: Gate) -> Blueprint:
    """The routes over ``captioning``, and what ``speaker`` gives for as many as ``gate`` lets in."""
    routes = Blueprint("huggingface", __name__)

    @routes.post("/")
    def infer() -> Response | list[dict[str, str]]:
        upload = read_upload(request, captioning.config, instead=("inputs",))
        given = {name: value for name, value in upload.fields.items() if name not in IGNORED_FIELDS}
        parameters = _flatten(given.pop("parameters", None))
        images = upload.images or (given.pop("inputs"),)
        fields = {**request.args.to_dict(), **given}
        if not upload.images and isinstance(images[0], str) and not _is_image(images[0]):
            return speak(images[0], {**fields, **parameters})
        if "attention" in fields:
            raise OptionError("attention has no meaning here; POST /v1/caption has it")
        _, captions = captioning.caption_one(images, {**fields, **_rename(parameters)})
        return [{"generated_text": caption.text} for caption in captions]

    def speak(text: str, fields: Mapping[str, object]) -> Response:
        voice, others = parse_voice(fields)
        if others:
            raise OptionError(f"{reprlib.repr(min(others))} has no meaning for a text; voice, rate and pitch have")
        with gate.admit():
            return Response(speaker().text(text, voice).wav(), mimetype="audio/wav")

    @routes.get("/info")
    def info() -> dict[str, Any]:
        return {
            "model_id": captioning.registry.get().info.name,
            "model_pipeline_tag": "image-to-text",
            "version": __version__,
        }

    return routes


def _is_image(text: str) -> bool:
    if URL.match(text):
        return True
    try:
        image_bytes(text)
    except RequestError:
        return False
    return max(map(len, text.split()), default=0) > LONGEST_WORD


def _flatten(parameters: object) -> dict[str, object]:
    """The parameters in use: those on top, and those in the groups that one task or another puts them into."""
    if not isinstance(parameters, dict | None):
        raise RequestError('"parameters" must be a JSON object')
    flat = dict(parameters or {})
    for group in GROUPS:
        inner = flat.pop(group, None)
        if not isinstance(inner, dict | None):
            raise RequestError(f'"{group}" must be a JSON object')
        flat |= inner or {}
    # A parameter that its caller left alone is null in what some clients send.
    return {name: value for name, value in flat.items() if value is not None and name not in IGNORED_PARAMETERS}


def _rename(parameters: Mapping[str, object]) -> dict[str, object]:
    unknown = sorted(set(parameters) - set(PARAMETERS))
    if unknown:
        raise OptionError(f"{reprlib.repr(unknown[0])} is not available here; there are {', '.join(PARAMETERS)}")
    renamed = {PARAMETERS[name]: parameters[name] for name in PARAMETERS if name in parameters}
    if "do_sample" in parameters:
        renamed["method"] = "sample" if read_flag("do_sample", parameters["do_sample"]) else "beam"
    return renamed
