"""What whoever runs the service asks: health, metrics, this description."""

from __future__ import annotations

from service.captioning import Captioning
from service.openapi.errors import UNREADY
from service.openapi.operation import HTML, JSON, OPENMETRICS, TEXT, Operation
from service.openapi.schema import listing, of, record, ref
from service.openapi.schemas import PAGE

NAME = "Running it"
DESCRIPTION = "Health for whoever restarts the service or sends it work, and what it says about itself."


def operations(captioning: Captioning) -> list[Operation]:  # noqa: ARG001 - as every protocol's
    """The page, health and the description."""
    return [
        Operation(
            "get",
            "/",
            "The page, or how to begin",
            {
                HTML: PAGE,
                JSON: record(
                    {
                        "service": of("string", const="captioner"),
                        "description": of("string", "What it is for.", examples=["Send a picture, get a caption."]),
                        "example": of("string", "A first command.", examples=["curl --data-binary @photo.jpg …"]),
                        "routes": listing(of("string", "A method and a path.", examples=["POST /v1/caption"])),
                    }
                ),
            },
            "A browser gets the page, a program JSON, by the header Accept.",
        ),
        Operation(
            "get",
            "/health/live",
            "Whether the process answers",
            {JSON: ref("Live")},
        ),
        Operation(
            "get",
            "/health/ready",
            "Whether it takes work",
            {JSON: ref("Ready")},
            "Not while models are loading, nor while it is about to stop.",
            errors=UNREADY,
        ),
        Operation(
            "get",
            "/metrics",
            "What has been counted",
            {TEXT: PAGE, OPENMETRICS: PAGE},
            "For Prometheus, in the form that it asks for.",
        ),
        Operation("get", "/openapi.json", "This description", {JSON: of("object", "An OpenAPI document.")}),
        Operation("get", "/docs", "This description, for people", {HTML: PAGE}),
    ]
