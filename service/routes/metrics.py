"""``GET /metrics``: the service's figures, for Prometheus to collect."""

from __future__ import annotations

from flask import Blueprint, Response, request

from service.metrics import Metrics


def blueprint(metrics: Metrics) -> Blueprint:
    """The route that tells ``metrics``."""
    routes = Blueprint("metrics", __name__)

    @routes.get("/metrics")
    def expose() -> Response:
        text, content_type = metrics.expose(request.headers.get("Accept", ""))
        return Response(text, content_type=content_type)

    return routes
