"""Captions over HTTP: a Flask application (:mod:`service.app`) and the gunicorn server that runs it."""
