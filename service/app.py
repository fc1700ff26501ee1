"""The application factory."""

from __future__ import annotations

import functools
import re
import uuid
from collections.abc import Iterable

from flask import Flask, Response, g, request
from flask.json.provider import DefaultJSONProvider

from captioner import Captioner
from captioner.speech import EspeakSpeaker
from service import errors
from service.captioning import Captioning
from service.config import ServiceConfig
from service.models import ModelRegistry, ServedModel, find_models, load_in_background
from service.routes import caption, health, huggingface, models, page, speech

REQUEST_ID_HEADER = "X-Request-ID"
# Printable and short: it goes into logs and headers as it came.
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class _Json(DefaultJSONProvider):
    sort_keys = False
    ensure_ascii = False
    compact = True


class _Application(Flask):
    json_provider_class = _Json


def create_app(config: ServiceConfig | None = None, captioners: Iterable[Captioner] | None = None) -> Flask:
    """Build the application.

    Args:
        config: limits and models; None reads them from the environment.
        captioners: loaded models to serve instead of those that ``config`` names. Without them, loading
            starts in a background thread: call this after a server has forked, not before.

    Raises:
        OptionError, ModelError: the configuration is impossible or names a model that does not exist.
    """
    config = config or ServiceConfig.from_environment()
    if captioners is None:
        found = find_models(config.models)
        registry = ModelRegistry(found.values())
        load_in_background(found, config.torch_threads)
    else:
        registry = ModelRegistry(ServedModel(loaded.info, loaded) for loaded in captioners)
    captioning = Captioning(registry, config)
    speaker = functools.cache(EspeakSpeaker)  # one for this process, made for the first request

    app = _Application("service", static_folder=None)
    app.before_request(_name_request)
    app.after_request(_return_request_id)
    errors.register(app)
    app.register_blueprint(page.blueprint())
    app.register_blueprint(health.blueprint(registry))
    app.register_blueprint(models.blueprint(registry))
    app.register_blueprint(caption.blueprint(captioning))
    app.register_blueprint(speech.blueprint(captioning, speaker))
    app.register_blueprint(huggingface.blueprint(captioning, speaker))
    return app


def _name_request() -> None:
    given = request.headers.get(REQUEST_ID_HEADER, "")
    g.request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _return_request_id(response: Response) -> Response:
    response.headers[REQUEST_ID_HEADER] = g.request_id
    return response
