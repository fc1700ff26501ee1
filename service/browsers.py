"""What browsers are told: whose pages may call the service, and what they may make of its replies."""

from __future__ import annotations

from collections.abc import Sequence

from flask import Flask, Response, request

# A page says itself what it needs; nothing else is meant to be shown, let alone run.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, *",  # the star does not stand for that one
    "Access-Control-Max-Age": "600",
}


def register(app: Flask, origins: Sequence[str]) -> None:
    """Add the headers to every reply of ``app``, and let the pages of ``origins`` call it.

    Credentials are never allowed: there are no cookies here, and a key comes in a header that a page sets itself.
    """

    @app.before_request
    def preflight() -> Response | None:
        if origins and request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return Response(status=204, headers=PREFLIGHT)
        return None

    @app.after_request
    def protect(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if "*" in origins:
            response.headers["Access-Control-Allow-Origin"] = "*"
        elif origins:
            response.vary.add("Origin")
            if request.headers.get("Origin") in origins:
                response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
        if "Access-Control-Allow-Origin" in response.headers:
            response.headers["Access-Control-Expose-Headers"] = "Retry-After, X-Request-ID"
        return response
