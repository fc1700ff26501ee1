"""API keys: who has none is told so before anyone looks at what was sent."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from flask import Flask, request

from service.errors import AccessError
from service.observing import current_is_open


def register(app: Flask, keys: Sequence[str]) -> None:
    """Ask every request of ``app`` for one of ``keys``, except for the open paths; without keys all is open."""
    digests = [_digest(key) for key in keys]

    @app.before_request
    def check() -> None:
        if not digests or current_is_open():
            return
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        given = [request.headers.get("X-API-Key", "")]
        if scheme.lower() == "bearer":  # werkzeug would read a key with = in it as parameters
            given.append(token.strip())
        # All are compared, and digests instead of keys: the time it takes tells nothing about any of them.
        matches = [hmac.compare_digest(_digest(text), digest) for text in given for digest in digests]
        if not any(matches):
            raise AccessError(
                "This service asks for an API key; send one of its keys as Authorization: Bearer KEY, or as X-API-Key",
                code="unauthorized",
                headers={"WWW-Authenticate": 'Bearer realm="captioner"'},
            )


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
