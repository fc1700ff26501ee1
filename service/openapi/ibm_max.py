"""What clients of IBM's MAX Image Caption Generator speak, see :mod:`service.routes.ibm_max`."""

from __future__ import annotations

from service.captioning import Captioning
from service.openapi.errors import CAPTIONING
from service.openapi.operation import FORM, JSON, PICTURE, RAW, Body, Operation, query
from service.openapi.options import option_schemas
from service.openapi.schema import listing, of, record
from service.openapi.schemas import IMAGE, IMAGE_BYTES, IMAGE_FILE
from service.routes.ibm_max import PREDICTIONS

NAME = "IBM MAX"
DESCRIPTION = "For clients of IBM's MAX Image Caption Generator."


def operations(captioning: Captioning) -> list[Operation]:
    """Prediction and metadata."""
    options = option_schemas(captioning)
    prediction = record(
        {
            "index": of("string", "Its place, from 0.", examples=["0"]),
            "caption": of("string", "The caption.", examples=["two dogs run through the grass"]),
            "probability": of("number", "Of the whole caption, by the model.", minimum=0, maximum=1, examples=[0.031]),
        }
    )
    metadata = ("id", "name", "description", "type", "license", "source")
    return [
        Operation(
            "post",
            "/model/predict",
            "Caption a picture",
            {JSON: record({"status": of("string", const="ok"), "predictions": listing(prediction, "Best first.")})},
            f"The best {PREDICTIONS} captions, unless n_best says otherwise.",
            query(options),
            {
                FORM: Body(record({"image": IMAGE_FILE}, options)),
                RAW: Body(IMAGE_BYTES),
                JSON: Body(record({"image": IMAGE}, options), {"image": PICTURE}),
            },
            CAPTIONING,
        ),
        Operation(
            "get",
            "/model/metadata",
            "What is served",
            {JSON: record({name: of("string", examples=["…"]) for name in metadata})},
        ),
    ]
