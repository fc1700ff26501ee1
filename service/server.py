"""The application under gunicorn: threads in workers, a model in each worker."""

from __future__ import annotations

import ctypes
import errno
import logging
import math
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker

from captioner.config import require
from captioner.cores import usable_cores
from captioner.errors import OptionError
from captioner.loading import require_installed
from service import logs, metrics
from service.app import create_app
from service.census import Census
from service.config import ServiceConfig, misspelt
from service.models import find_models
from service.rate import RateLimit

log = logging.getLogger(__name__)

SPARE_THREADS = 16
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of malloc.h


class _Arbiter(Arbiter):  # type: ignore[misc]
    def handle_hup(self) -> None:
        """SIGHUP: let the workers load their models anew, where gunicorn would replace the workers."""
        self.kill_workers(signal.SIGHUP)


class Server(BaseApplication):  # type: ignore[misc]
    """Gunicorn with settings from here instead of its own command line and files."""

    def __init__(self, config: ServiceConfig, settings: dict[str, Any]) -> None:
        self.config = config
        self._settings = settings
        self.census = Census()
        self._rate_limit = RateLimit(config.requests_per_minute) if config.requests_per_minute else None
        super().__init__()

    def load_config(self) -> None:
        """Hand the settings to gunicorn."""
        for name, value in self._settings.items():
            self.cfg.set(name, value)
        told = self.cfg.child_exit

        def child_exit(arbiter: Arbiter, worker: Worker) -> None:
            self.census.forget(worker.age)
            told(arbiter, worker)

        self.cfg.set("child_exit", child_exit)

    def load(self) -> Flask:
        """Build the application, and load its models, in a worker: gunicorn calls this after the fork."""
        return create_app(self.config, rate_limit=self._rate_limit)

    def run(self) -> None:
        """Serve until told to stop."""
        _Arbiter(self).run()


def run(
    config: ServiceConfig | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int = 1,
    threads: int = 0,
    models: Sequence[str] = (),
) -> None:
    """Serve until told to stop: SIGTERM lets the requests in hand finish first.

    Args:
        config: the settings; None reads them from the environment.
        host: address to listen on; ``0.0.0.0`` for every interface.
        port: TCP port.
        workers: processes, each with its own copy of the models; they share the cores.
        threads: requests that one worker has in hand at a time; 0 for as many as its queue needs.
        models: what to serve instead of the models of ``config``, the default first.

    Raises:
        OptionError, ModelError: the configuration is impossible, the address cannot be had or a model does not exist.
    """
    require(workers >= 1, f"workers must be 1 or more, not {workers}")
    require(threads >= 0, f"threads must be 1 or more, or 0 for as many as the queue needs, not {threads}")
    require(0 < port < 65536, f"port must be a number from 1 to 65535, not {port}")
    config = config or ServiceConfig.from_environment()
    if models:
        config = config.replace(models=tuple(models))
    if not config.cores:
        config = config.replace(cores=usable_cores(processes=workers))
    require_installed(config.engine, config.precision)
    found = find_models(config.models)  # a mistake here should stop the start, not every worker
    if not {"GUNICORN_FD", "LISTEN_PID"} & set(os.environ):  # gunicorn then takes over a socket that is open already
        _check_address(host, port)
    _tune_malloc()
    logs.configure(config)
    for name, meant in misspelt().items():
        log.warning("%s is no setting and changes nothing; is %s meant?", name, meant)
    served = config.models or tuple(model.info.name for model in found)
    log.info("Serving with %s", config.replace(models=served).describe())
    Server(
        config,
        {
            "bind": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            "workers": workers,
            "worker_class": "service.worker.BufferingWorker",
            # Each image in the queue has a thread that waits for it; the others answer what needs no queue.
            "threads": threads or config.max_queue + SPARE_THREADS,
            "timeout": 60,  # seconds without a sign of life before a worker is replaced
            # Seconds that requests in hand may take after SIGTERM.
            "graceful_timeout": math.ceil(config.drain_seconds + config.deadline_seconds) + 5,
            "control_socket_disable": True,
            "forwarded_allow_ips": "",  # whom to believe is for trusted_proxies to say; gunicorn believes this machine
            "logger_class": logs.GunicornLogger,
            "loglevel": config.log_level,
            **metrics.share_between_workers(),
        },
    ).run()


def _tune_malloc() -> None:
    """Let glibc's threads share two heaps, where each would get one of its own that keeps what it once needed.

    And let the heaps keep what the network frees and needs again with the next batch: to give it back to the kernel
    each time cost a tenth of all captions. What a large picture needed is given back at once.
    """
    with suppress(AttributeError, OSError):  # other libraries do without
        malloc = ctypes.CDLL(None).mallopt
        malloc(M_ARENA_MAX, 2)
        malloc(M_MMAP_THRESHOLD, 64 * 2**20)
        malloc(M_TRIM_THRESHOLD, 256 * 2**20)


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
