"""``GET /openapi.json`` and ``GET /docs``: the service's own description, for programs and for people."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, render_template

from service.address import address
from service.captioning import Captioning
from service.openapi.document import describe
from service.openapi.reading import read

POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def blueprint(captioning: Captioning) -> Blueprint:
    """The routes that describe the service over ``captioning``."""
    routes = Blueprint("openapi", __name__, template_folder="../templates")

    @routes.get("/openapi.json")
    def document() -> Response:
        return jsonify(describe(captioning, address()))

    @routes.get("/docs")
    def docs() -> Response:
        response = Response(render_template("docs.html", **read(describe(captioning, address()))))
        response.headers["Content-Security-Policy"] = POLICY
        return response

    return routes
