"""Where clients reach the service."""

from __future__ import annotations

from flask import request


def address() -> str:
    """The service's URL as the request at hand has it, with a slash at the end: ``http://localhost:8000/``.

    The host stays as it came: Flask's own URLs decode names like ``xn--a``, and fail where one means nothing.
    """
    return f"{request.scheme}://{request.host}{request.script_root}/"
