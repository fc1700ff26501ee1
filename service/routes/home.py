"""``GET /``: what this is and how to use it."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, request


def blueprint() -> Blueprint:
    """The route of the front door."""
    routes = Blueprint("home", __name__)

    @routes.get("/")
    def home() -> dict[str, Any]:
        return {
            "service": "captioner",
            "description": "Send a picture, get a caption.",
            "example": f"curl --data-binary @photo.jpg {request.host_url}v1/caption",
            "routes": [
                "POST /v1/caption",
                "POST /v1/speech",
                "GET /v1/models",
                "GET /health/live",
                "GET /health/ready",
            ],
        }

    return routes
