"""``GET /health/live`` and ``/health/ready``: for whoever restarts the process and whoever sends it work.

``GET /health`` is the latter, as Hugging Face's client asks for it.
"""

from __future__ import annotations

from flask import Blueprint

from service.models import ModelRegistry


def blueprint(registry: ModelRegistry) -> Blueprint:
    """The health routes over the models of ``registry``."""
    routes = Blueprint("health", __name__, url_prefix="/health")

    @routes.get("/live")
    def live() -> dict[str, bool]:
        return {"live": True}

    @routes.get("")
    @routes.get("/ready")
    def ready() -> dict[str, bool]:
        for model in registry:
            model.ready()  # its error is the reply: 503 and the cause
        return {"ready": True}

    return routes
