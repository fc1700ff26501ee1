"""The schemas that several operations share."""

from __future__ import annotations

from service.openapi.errors import MEANINGS
from service.openapi.schema import Schema, listing, of, record, ref

IMAGE = of(
    "string",
    "An image as base64, with or without data:image/…;base64, before it. Any common format: JPEG, PNG, WebP, …",
    contentEncoding="base64",
    format="byte",
)
IMAGE_FILE = of("string", "The file of an image.", contentMediaType="application/octet-stream", format="binary")
IMAGE_BYTES: Schema = {"description": "The bytes of one image file.", "contentMediaType": "image/*"}
SOUND: Schema = {"description": "A WAV file, 16-bit mono.", "contentMediaType": "audio/wav"}
PAGE: Schema = {"type": "string"}

_SENTENCE = of(
    "string", "What is wrong and what to do, in a plain sentence.", examples=["The body is empty; send an image"]
)
_WEIGHTS = listing(
    listing(listing(of("number", "A share of the attention.", minimum=0, maximum=1, examples=[0.125]))),
    "One grid for each token, row by row; each sums to one.",
)
_WHOLE = of("integer", examples=[7])

SCHEMAS: dict[str, Schema] = {
    "Code": {
        "type": "string",
        "description": "A stable word for programs.",
        "oneOf": [{"const": code, "description": meaning} for code, meaning in MEANINGS.items()],
    },
    "Error": record(
        {
            "error": _SENTENCE,
            "code": ref("Code"),
            "request_id": of(
                "string", "As in the header X-Request-ID and in the log.", examples=["5f0c3a52e1b84d0c9f27d41a6be0c3d8"]
            ),
        },
        description="Why there is nothing else in the reply.",
    ),
    "ImageError": record({"error": _SENTENCE, "code": ref("Code")}, description="Why this image has no caption."),
    "Live": record({"live": of("boolean", const=True)}),
    "Ready": record({"ready": of("boolean", const=True)}),
    "Caption": record(
        {
            "text": of(
                "string", "The caption as the model's tokens read.", examples=["two dogs run through the grass"]
            ),
            "tokens": listing(
                of("string", examples=["two"]),
                "What the caption consists of: words, phones or other symbols.",
                examples=[["two", "dogs", "run", "through", "the", "grass"]],
            ),
            "score": of(
                "number",
                "Its log-probability, normalised by length; captions of one picture are ranked by it, or as rank says.",
                examples=[-0.9132],
            ),
        },
        {"words": of("string", "What phones read like, in words.", examples=["two dogs run"])},
    ),
    "Attention": record(
        {
            "rows": _WHOLE | {"description": "Rows of the grid that lies over the picture."},
            "columns": _WHOLE | {"description": "Columns of it."},
            "weights": _WEIGHTS
            | {"description": "Where the model looked for each token of the best caption, row by row."},
            "others": listing(_WEIGHTS, "The same for each further caption."),
        }
    ),
    "CaptionResult": record(
        {"captions": listing(ref("Caption"), "Best first.")},
        {"attention": ref("Attention")},
    ),
    "Captions": record(
        {
            "model": of("string", "Whose captions these are.", examples=["words"]),
            "results": listing(
                {"oneOf": [ref("CaptionResult"), ref("ImageError")]},
                "One for each image, in order; a bad image never fails its neighbours.",
            ),
        }
    ),
    "Model": record(
        {
            "name": of("string", "What the option model takes.", examples=["words"]),
            "status": of("string", enum=["ready", "loading", "failed"]),
            "description": of("string", "One sentence.", examples=["English captions of everyday photos."]),
            "figures": of("object", "What was measured, by split."),
            "provenance": of("object", "Where it comes from: recipe, data, software."),
            "image": record(
                {
                    "height": of("integer", "Of its input, in pixels.", examples=[224]),
                    "width": of("integer", "Of its input, in pixels.", examples=[224]),
                    "fit": of(
                        "string",
                        "Whether a picture is stretched to it or its centre cropped.",
                        enum=["stretch", "crop"],
                    ),
                }
            ),
            "tokenizer": of("string", "What its tokens are.", examples=["words"]),
            "vocabulary_size": of("integer", "How many tokens it knows.", examples=[2549]),
            "decoding": of("object", "The options it decodes with unless told otherwise."),
            "spoken_as": of(
                ["string", "null"], "The field of POST /v1/speech for its captions.", enum=["text", "phones", None]
            ),
        }
    ),
}
