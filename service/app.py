"""The application factory."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable

from flask import Flask, request
from flask.json.provider import DefaultJSONProvider
from werkzeug.middleware.proxy_fix import ProxyFix

from captioner import Captioner
from captioner.speech import EspeakSpeaker
from service import browsers, errors, keys, observing, rate
from service.admission import Gate
from service.caller import BEGAN
from service.captioning import Captioning
from service.config import ServiceConfig
from service.lifecycle import Lifecycle
from service.metrics import Metrics
from service.models import ModelRegistry, ServedModel, find_models
from service.routes import (
    caption,
    chat_completions,
    health,
    huggingface,
    ibm_max,
    inference_protocol,
    models,
    ollama,
    openapi,
    page,
    speech,
)
from service.routes import metrics as metrics_route

MAX_SPEAKING = 8  # requests of one worker at a time: its synthesiser speaks one after the other


class _Json(DefaultJSONProvider):
    sort_keys = False
    ensure_ascii = False
    compact = True


class _Application(Flask):
    json_provider_class = _Json


def create_app(
    config: ServiceConfig | None = None,
    captioners: Iterable[Captioner] | None = None,
    rate_limit: rate.RateLimit | None = None,
) -> Flask:
    """Build the application.

    Args:
        config: limits and models; None reads them from the environment.
        captioners: loaded models to serve instead of those that ``config`` names. Without them, loading
            starts in a background thread: call this after a server has forked, not before.
        rate_limit: one that was made before the fork, for all workers together; None makes one if there is to be one.

    Raises:
        OptionError, ModelError: the configuration is impossible or names a model that does not exist.
    """
    config = config or ServiceConfig.from_environment()
    if captioners is None:
        registry = find_models(config.models)
    else:
        registry = ModelRegistry(ServedModel(loaded.info, loaded=loaded) for loaded in captioners)
    metrics = Metrics()
    captioning = Captioning(registry, config, metrics)
    lifecycle = Lifecycle(captioning)
    lifecycle.load()
    speaker = functools.cache(EspeakSpeaker)  # one for this process, made for the first request
    speaking = Gate(MAX_SPEAKING, "There is more to speak than this service can take; try again later")

    app = _Application("service", static_folder=None)
    app.extensions["captioner"] = lifecycle
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=config.trusted_proxies, x_proto=config.trusted_proxies)  # type: ignore[method-assign]
    observing.register(app, metrics)
    browsers.register(app, config.cors_origins)
    app.before_request(functools.partial(_refuse_if_draining, lifecycle))
    if config.requests_per_minute:
        rate.register(app, rate_limit or rate.RateLimit(config.requests_per_minute))
    keys.register(app, config.api_keys)
    errors.register(app)
    app.register_blueprint(page.blueprint())
    app.register_blueprint(health.blueprint(lifecycle))
    app.register_blueprint(models.blueprint(captioning))
    app.register_blueprint(caption.blueprint(captioning))
    app.register_blueprint(speech.blueprint(captioning, speaker, speaking))
    app.register_blueprint(huggingface.blueprint(captioning, speaker, speaking))
    app.register_blueprint(ibm_max.blueprint(captioning))
    app.register_blueprint(inference_protocol.blueprint(captioning))
    app.register_blueprint(ollama.blueprint(captioning))
    app.register_blueprint(chat_completions.blueprint(captioning))
    app.register_blueprint(openapi.blueprint(captioning))
    app.register_blueprint(metrics_route.blueprint(metrics))
    return app


def _refuse_if_draining(lifecycle: Lifecycle) -> None:
    if request.blueprint not in ("health", "metrics"):  # they tell how it stands until the end
        lifecycle.check(request.environ.get(BEGAN, time.monotonic()))
