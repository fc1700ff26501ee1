"""What Hugging Face's client speaks, see :mod:`service.routes.huggingface`."""

from __future__ import annotations

from captioner import __version__
from captioner.speech import MAX_TEXT
from service.captioning import Captioning
from service.openapi.errors import CAPTIONING, SPEAKING, UNREADY
from service.openapi.operation import FORM, JSON, PICTURE, RAW, WAV, Body, Operation, query
from service.openapi.options import VOICE, option_schemas
from service.openapi.schema import Schema, listing, of, record, ref
from service.openapi.schemas import IMAGE_BYTES, IMAGE_FILE, SOUND
from service.routes.huggingface import GROUPS, PARAMETERS

NAME = "Hugging Face"
DESCRIPTION = 'What huggingface_hub.InferenceClient(model="<this address>") sends: image_to_text and text_to_speech.'


def operations(captioning: Captioning) -> list[Operation]:
    """Inference, health and information."""
    options = option_schemas(captioning)
    return [
        Operation(
            "post",
            "/",
            "Caption a picture, or speak a text",
            {JSON: listing(record({"generated_text": _CAPTION})), WAV: SOUND},
            "Base64 with a line longer than any word, or a data: URL, is a picture; any other text is spoken.",
            query(options),
            {
                RAW: Body(IMAGE_BYTES),
                FORM: Body(record({"image": IMAGE_FILE}, options)),
                JSON: Body(
                    record(
                        {"inputs": of("string", f"A picture as base64, or a text of at most {MAX_TEXT:,} characters.")},
                        {"parameters": _parameters(options), **options, **VOICE},
                    ),
                    {"inputs": PICTURE, "parameters": {"num_beams": 5}},
                ),
            },
            (*CAPTIONING, *SPEAKING),
        ),
        Operation("get", "/health", "Whether it is ready", {JSON: ref("Ready")}, errors=UNREADY),
        Operation(
            "get",
            "/info",
            "What is served",
            {
                JSON: record(
                    {
                        "model_id": of("string", "The default model.", examples=["words"]),
                        "model_pipeline_tag": of("string", const="image-to-text"),
                        "version": of("string", "Of the service.", const=__version__),
                    }
                )
            },
        ),
    ]


_CAPTION = of("string", "A caption.", examples=["two dogs run through the grass"])


def _parameters(options: dict[str, Schema]) -> Schema:
    """Their parameters, directly or in a group, with our ranges."""
    known = {theirs: options[ours] for theirs, ours in PARAMETERS.items() if theirs != "do_sample"}
    known["do_sample"] = of("boolean", "Whether to draw at random instead of searching with a beam.")
    groups = {name: of("object", "The same, as some tasks put them here.") for name in GROUPS}
    return record({}, {**known, **VOICE, **groups}, "How to caption, or how to speak.")
