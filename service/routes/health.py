"""``GET /health/live`` and ``/health/ready``: for whoever restarts the process and whoever sends it work.

``GET /health`` is the latter, as Hugging Face's client asks for it; the Open Inference Protocol has both under ``/v2``.
"""

from __future__ import annotations

from flask import Blueprint

from service.lifecycle import Lifecycle


def blueprint(lifecycle: Lifecycle) -> Blueprint:
    """The health routes of a service."""
    routes = Blueprint("health", __name__)

    @routes.get("/health/live")
    @routes.get("/v2/health/live")
    def live() -> dict[str, bool]:
        return {"live": True}

    @routes.get("/health")
    @routes.get("/health/ready")
    @routes.get("/v2/health/ready")
    def ready() -> dict[str, bool]:
        lifecycle.check_ready()  # its error is the reply: 503 and the cause
        return {"ready": True}

    return routes
