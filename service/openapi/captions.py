"""The service's own protocol: ``/v1/caption``, ``/v1/speech``, ``/v1/models``."""

from __future__ import annotations

from captioner.speech import MAX_TEXT
from service.captioning import Captioning
from service.openapi.errors import CAPTIONING, SPEAKING
from service.openapi.operation import FORM, JSON, PICTURE, RAW, WAV, Body, Operation, query
from service.openapi.options import ATTENTION, VOICE, option_schemas
from service.openapi.schema import Schema, listing, of, record, ref
from service.openapi.schemas import IMAGE, IMAGE_BYTES, IMAGE_FILE, SOUND
from service.routes.models import LIMITS
from service.routes.speech import MAX_STREAM

NAME = "captioner"
DESCRIPTION = "Pictures in, captions or speech out: this service's own protocol, and the one that can do most."


def operations(captioning: Captioning) -> list[Operation]:
    """Captions, speech, models."""
    config, options = captioning.config, option_schemas(captioning)
    caption_options = {**options, "attention": ATTENTION}
    spoken_options = {name: schema for name, schema in options.items() if name != "n_best"}
    stream = {"stream": of("boolean", "Whether to begin at once, with a WAV file of open length.")}
    return [
        Operation(
            "post",
            "/v1/caption",
            "Caption pictures",
            {JSON: ref("Captions")},
            f"Up to {config.max_images} pictures and {config.max_bytes:,} bytes in one request. Options may stand in "
            "the query, in the form or in the JSON. Among several pictures, a bad one gets an error in its place.",
            query(caption_options),
            {
                RAW: Body(IMAGE_BYTES),
                FORM: Body(record({"image": listing(IMAGE_FILE, maxItems=config.max_images)}, caption_options)),
                JSON: Body(_one_or_several(caption_options, config.max_images), {"image": PICTURE, "beam_size": 5}),
            },
            CAPTIONING,
        ),
        Operation(
            "post",
            "/v1/speech",
            "Speak a picture, a text or phones",
            {WAV: SOUND},
            f"A picture is captioned and the caption is spoken. A text has at most {MAX_TEXT:,} characters, a list of "
            f"phones as many phones; with stream it may be {MAX_STREAM:,}.",
            query({**spoken_options, **VOICE, **stream}),
            {
                RAW: Body(IMAGE_BYTES),
                FORM: Body(record({"image": IMAGE_FILE}, {**spoken_options, **VOICE, **stream})),
                JSON: Body(
                    {
                        "oneOf": [
                            record({"text": _TEXT}, {**VOICE, **stream}),
                            record({"phones": _PHONES}, {**VOICE, **stream}),
                            record({"image": IMAGE}, {**spoken_options, **VOICE, **stream}),
                        ]
                    },
                    {"text": "Two dogs run.", "voice": "en-gb"},
                ),
            },
            (*CAPTIONING, *SPEAKING),
        ),
        Operation(
            "get",
            "/v1/models",
            "What is served",
            {
                JSON: record(
                    {
                        "default": of("string", "The model of a request that names none.", examples=["words"]),
                        "models": listing(ref("Model")),
                        "limits": record({name: of("integer", const=getattr(config, name)) for name in LIMITS}),
                        "object": of("string", "For OpenAI's clients, as data is.", const="list"),
                        "data": listing(_AS_OPENAI),
                    }
                )
            },
        ),
    ]


_AS_OPENAI = record(
    {
        "id": of("string", "The model's name.", examples=["words"]),
        "object": of("string", const="model"),
        "created": of("integer", const=0),
        "owned_by": of("string", const="captioner"),
    }
)
_TEXT = of("string", "What to say.", minLength=1, maxLength=MAX_STREAM, examples=["Two dogs run."])
_PHONES = listing(
    of("string", "A phone of ARPAbet, with or without a digit of stress, or | between words.", examples=["D"]),
    "What to say, phone by phone.",
    minItems=1,
    maxItems=MAX_STREAM,
    examples=[["DH", "AH0", "|", "D", "AO1", "G"]],
)


def _one_or_several(options: dict[str, Schema], most: int) -> Schema:
    several = listing(IMAGE, "Images, each as base64.", minItems=1, maxItems=most)
    return {"oneOf": [record({"image": IMAGE}, options), record({"images": several}, options)]}
