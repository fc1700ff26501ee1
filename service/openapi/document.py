"""The OpenAPI document, put together from what each protocol tells."""

from __future__ import annotations

from typing import Any

from captioner import __version__
from service.captioning import Captioning
from service.config import ServiceConfig
from service.observing import QUIET, is_open
from service.openapi import captions, chat_completions, huggingface, ibm_max, inference_protocol, ollama, running
from service.openapi.operation import Operation
from service.openapi.schema import of
from service.openapi.schemas import SCHEMAS

PROTOCOLS = (captions, huggingface, ibm_max, inference_protocol, ollama, chat_completions, running)
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer, followed by the API key."},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The API key."},
}


def describe(captioning: Captioning, root: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a service with these models and limits.

    Args:
        captioning: the models and limits.
        root: where the service is, with a slash at the end.
    """
    paths: dict[str, dict[str, Any]] = {}
    for protocol in PROTOCOLS:
        for operation in protocol.operations(captioning):
            codes = _codes(operation, captioning.config)
            locked = "unauthorized" in codes
            told = operation.describe(protocol.NAME, root, codes, locked=locked)
            if locked:
                told["security"] = [{name: []} for name in SCHEMES]  # either will do
            paths.setdefault(operation.path, {})[operation.method] = told
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "captioner",
            "version": __version__,
            "description": "Give it a picture, get a sentence. What a body is, its first bytes tell: a Content-Type "
            "may be missing or wrong. Every failure is JSON: error, a plain sentence, and code, a word for programs. "
            "Any path may answer before it has read a request: 400, 414 or 431 bad_request where it is no proper HTTP, "
            "408 request_timeout where it comes too slowly, 413 body_too_large, 431 head_too_large, and 503 busy where "
            "too much comes at once.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": root.rstrip("/")}],
        "tags": [{"name": protocol.NAME, "description": protocol.DESCRIPTION} for protocol in PROTOCOLS],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "headers": {
                "X-Request-ID": {
                    "description": "The request's name in the log: the one that it came with, or a new one.",
                    "schema": {"type": "string"},
                },
                "Retry-After": {"description": "Seconds to wait.", "schema": of("integer", minimum=1)},
            },
            **({"securitySchemes": SCHEMES} if captioning.config.api_keys else {}),
        },
    }


def _codes(operation: Operation, config: ServiceConfig) -> set[str]:
    """The errors of an operation's own, and those that stand before the work of any."""
    codes = {*operation.errors, "bad_request", "internal_error"}
    if operation.path not in QUIET:
        codes.add("draining")
    if not is_open(operation.method.upper(), operation.path):
        if config.requests_per_minute:
            codes.add("rate_limited")
        if config.api_keys:
            codes.add("unauthorized")
    return codes
