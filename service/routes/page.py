"""``GET /``: the page for people; for programs, what this is and how to use it."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from service.address import address

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def blueprint() -> Blueprint:
    """The front door, and the files that the page consists of."""
    routes = Blueprint("page", __name__, static_folder="../static", static_url_path="/static")

    @routes.get("/")
    def page() -> Response:
        # The first of them is for clients that take anything, as curl says it does.
        wanted = request.accept_mimetypes.best_match(["application/json", "text/html"])
        response = routes.send_static_file("page.html") if wanted == "text/html" else jsonify(_description())
        response.vary.add("Accept")
        return response

    @routes.after_request
    def protect(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = POLICY
        return response

    return routes


def _description() -> dict[str, object]:
    return {
        "service": "captioner",
        "description": "Send a picture, get a caption.",
        "example": f"curl --data-binary @photo.jpg {address()}v1/caption",
        "routes": [
            "POST /v1/caption",
            "POST /v1/speech",
            "GET /v1/models",
            "GET /health/live",
            "GET /health/ready",
            "POST /",
            "GET /health",
            "GET /info",
            "POST /model/predict",
            "GET /model/metadata",
            "GET /v2",
            "POST /v2/models/{model}/infer",
            "POST /api/generate",
            "POST /api/chat",
            "GET /api/tags",
            "POST /v1/chat/completions",
            "GET /docs",
            "GET /openapi.json",
        ],
    }
