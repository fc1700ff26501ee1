"""The application under gunicorn: threads in workers, a model in each worker."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Sequence
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication

from captioner.config import require
from captioner.errors import OptionError
from service.app import create_app
from service.config import ServiceConfig
from service.models import ModelRegistry, find_models


class Server(BaseApplication):  # type: ignore[misc]
    """Gunicorn with settings from here instead of its own command line and files."""

    def __init__(self, config: ServiceConfig, settings: dict[str, Any]) -> None:
        self._config = config
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        """Hand the settings to gunicorn."""
        for name, value in self._settings.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Build the application, and load its models, in a worker: gunicorn calls this after the fork."""
        log, gunicorn = logging.getLogger("service"), logging.getLogger("gunicorn.error")
        log.handlers, log.propagate = gunicorn.handlers, False  # one log, one format
        log.setLevel(gunicorn.level)
        return create_app(self._config)


def run(
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int = 1,
    threads: int = 8,
    models: Sequence[str] = (),
) -> None:
    """Serve until told to stop: SIGTERM lets the requests in hand finish first.

    Args:
        host: address to listen on; ``0.0.0.0`` for every interface.
        port: TCP port.
        workers: processes, each with its own copy of the models; they share the cores.
        threads: requests that one worker reads and decodes at a time.
        models: what to serve instead of ``CAPTIONER_MODELS``, the default first.

    Raises:
        OptionError, ModelError: the configuration is impossible, the address cannot be had or a model does not exist.
    """
    require(workers >= 1, f"workers must be 1 or more, not {workers}")
    require(threads >= 1, f"threads must be 1 or more, not {threads}")
    require(0 < port < 65536, f"port must be a number from 1 to 65535, not {port}")
    config = ServiceConfig.from_environment()
    if models:
        config = config.replace(models=tuple(models))
    if not config.torch_threads:
        config = config.replace(torch_threads=max(1, _cores() // workers))
    ModelRegistry(find_models(config.models).values())  # a mistake here should stop the start, not every worker
    if not {"GUNICORN_FD", "LISTEN_PID"} & set(os.environ):  # gunicorn then takes over a socket that is open already
        _check_address(host, port)
    Server(
        config,
        {
            "bind": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            "workers": workers,
            "worker_class": "gthread",
            "threads": threads,
            "timeout": 60,  # seconds without a sign of life before a worker is replaced
            "graceful_timeout": 30,  # seconds that requests in hand may take after SIGTERM
            "keepalive": 5,
            "control_socket_disable": True,
        },
    ).run()


def _check_address(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on: gunicorn would try for seconds and end with a code of its own."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gunicorn does
            probe.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OptionError(f"port {port} is taken by another program; choose one with --port") from error
        raise OptionError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
