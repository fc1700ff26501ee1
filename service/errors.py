"""From an error to its HTTP reply: one table of statuses, one JSON shape."""

from __future__ import annotations

from collections.abc import Mapping

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from captioner.errors import CaptionerError


class RequestError(CaptionerError):
    """The request cannot be served as it stands.

    Codes: ``bad_request``, ``empty_body``, ``bad_json``, ``bad_multipart``, ``bad_base64``, ``url_refused``,
    ``body_too_large``, ``too_many_images``.
    """

    default_code = "bad_request"


class UnavailableError(CaptionerError):
    """The service cannot answer now.

    Codes: ``starting``, ``draining``, ``busy``, ``deadline``, ``model_unavailable``, and
    ``client_gone``, which nobody reads.
    """

    default_code = "model_unavailable"


class AccessError(CaptionerError):
    """The client may not ask, or not yet. Codes: ``unauthorized``, ``rate_limited``.

    Attributes:
        headers: what the reply tells it besides.
    """

    default_code = "unauthorized"

    def __init__(self, message: str, *, code: str, headers: Mapping[str, str]) -> None:
        super().__init__(message, code=code)
        self.headers = headers


# Codes that are missing here are faults of the service: 500.
STATUS = {
    "bad_option": 400,
    "bad_request": 400,
    "empty_body": 400,
    "bad_json": 400,
    "bad_multipart": 400,
    "bad_base64": 400,
    "url_refused": 400,
    "unauthorized": 401,
    "model_not_found": 404,
    "body_too_large": 413,
    "image_too_large": 413,
    "too_many_images": 413,
    "not_an_image": 415,
    "image_broken": 422,
    "busy": 429,
    "rate_limited": 429,
    "client_gone": 499,  # nginx's number for it, in logs and figures
    "missing_dependency": 501,
    "starting": 503,
    "draining": 503,
    "model_unavailable": 503,
    "deadline": 504,
}

RETRY_AFTER_SECONDS = 2


def error_item(error: CaptionerError) -> dict[str, str]:
    """What stands for one failed image among several."""
    return {"error": str(error), "code": error.code}


def register(app: Flask) -> None:
    """Make every failure of ``app`` answer in the one JSON shape."""

    @app.errorhandler(CaptionerError)
    def refused(error: CaptionerError) -> Response:
        response = _reply(STATUS.get(error.code, 500), str(error), error.code)
        if response.status_code == 500:
            app.logger.error("request %s failed: %s", g.request_id, error)
        if error.code in ("starting", "draining", "busy"):
            response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
        if isinstance(error, AccessError):
            response.headers.extend(error.headers)
        return response

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        status = error.code or 500
        code = error.name.lower().replace(" ", "_")
        message = error.description or error.name
        if isinstance(error, NotFound):
            message = f"There is nothing at {request.path}; GET / lists what this service offers."
        elif isinstance(error, MethodNotAllowed):
            methods = " or ".join(sorted(set(error.valid_methods or ()) - {"OPTIONS", "HEAD"}))
            message = f"{request.path} does not take {request.method}; use {methods}."
        response = _reply(status, message, code)
        response.headers.extend((name, value) for name, value in error.get_headers() if name != "Content-Type")
        return response

    @app.errorhandler(Exception)
    def crashed(error: Exception) -> Response:
        app.logger.error("request %s failed", g.request_id, exc_info=error)
        message = "The service failed on this request; its log tells more under the request id."
        return _reply(500, message, "internal_error")


def _reply(status: int, message: str, code: str) -> Response:
    g.refusal = code  # for whoever counts and logs
    response = jsonify(error=message, code=code, request_id=g.request_id)
    response.status_code = status
    return response
