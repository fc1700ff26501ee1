"""What is known of each request afterwards: its id in the reply, its figures, its line in the log."""

from __future__ import annotations

import ipaddress
import logging
import re
import time
import uuid

from flask import Flask, Response, g, request

from service.caller import BEGAN
from service.metrics import Metrics

log = logging.getLogger(__name__)

REQUEST_ID_HEADER = "X-Request-ID"
# Printable and short: it goes into logs and headers as it came.
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# Others would be labels without number.
METHODS = ("GET", "HEAD", "POST", "OPTIONS")
HEALTH = ("/health", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready")
# What a browser, a load balancer or a reader of the documentation needs before there is a key.
OPEN = ("/", "/docs", "/openapi.json", "/static/<path:filename>", *HEALTH)
SAFE = ("GET", "HEAD", "OPTIONS")  # a POST to / is a caption
QUIET = (*HEALTH, "/metrics")  # asked every few seconds by machines


def register(app: Flask, metrics: Metrics) -> None:
    """Name, time, count and log every request of ``app``; to be called before whatever may refuse one."""
    app.before_request(_name_request)

    @app.after_request
    def observe(response: Response) -> Response:
        response.headers[REQUEST_ID_HEADER] = g.request_id
        seconds = time.monotonic() - g.began
        method = request.method if request.method in METHODS else "other"
        route = request.url_rule.rule if request.url_rule else "unmatched"
        refusal = g.get("refusal")
        metrics.observe_request(method, route, response.status_code, seconds, refusal)
        fields = {
            "method": method,
            "route": route,
            "status": response.status_code,
            "ms": round(seconds * 1000, 1),
            "bytes_in": request.content_length,
            "code": refusal,
            "client": client_address(),
        }
        log.log(logging.DEBUG if route in QUIET else logging.INFO, "request", extra={"fields": fields})
        return response


def is_open(method: str, route: str | None) -> bool:
    """Whether a request needs no key and counts for no limit."""
    return route in OPEN and method in SAFE


def current_is_open() -> bool:
    """:func:`is_open` of the current request."""
    return is_open(request.method, request.url_rule.rule if request.url_rule else None)


def client_address() -> str:
    """The address that the request came from, in its shortest form; "unknown" for what a proxy made up."""
    try:
        address = ipaddress.ip_address(request.remote_addr or "")
    except ValueError:
        return "unknown"
    # A socket for both versions shows IPv4 as a part of IPv6.
    return str(getattr(address, "ipv4_mapped", None) or address)


def _name_request() -> None:
    given = request.headers.get(REQUEST_ID_HEADER, "")
    g.request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    g.began = request.environ.get(BEGAN, time.monotonic())
