"""Captions over HTTP: a Flask application and the gunicorn server that runs it."""

from service.app import create_app

__all__ = ["create_app"]
