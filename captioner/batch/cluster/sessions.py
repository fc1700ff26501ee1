"""Ray, found or started, and kept quiet: it reports to nobody, and says nothing on the terminal."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from captioner.batch.cluster.options import LOCAL
from captioner.cores import usable_cores
from captioner.errors import CaptionerError, DependencyError

TIME_TO_CONNECT = 10.0  # seconds
ATTEMPTS = 50  # a tenth of a second apart
NEEDED = ("ray", "pyarrow", "pandas")  # what ray[data] brings
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # else it reports to its maker
    "RAY_DATA_USAGE_DISABLED": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # of what is written to the terminal, too
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}


def require_ray() -> None:
    """Raise :class:`DependencyError` where Ray Data is not installed."""
    missing = [package for package in NEEDED if not find_spec(package)]
    if missing:
        raise DependencyError(
            f"for a cluster {', '.join(missing)} must be installed: pip install 'captioner[ray]' brings it"
        )


@contextlib.contextmanager
def session(address: str) -> Iterator[None]:
    """A connection to a cluster for as long as the context lasts; one that this process has already is used as it is.

    Args:
        address: see :class:`captioner.batch.cluster.options.Cluster`.

    Raises:
        DependencyError: Ray is not installed.
        CaptionerError: there is no such cluster.
    """
    require_ray()
    os.environ |= ENVIRONMENT
    if address == LOCAL:  # its ports are open to others of this machine; without a token here Ray keeps one at home
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    if ray.is_initialized():
        yield
        return
    _require_head(address)
    with _folder() as folder:
        own: dict[str, Any] = {"include_dashboard": False, "num_cpus": usable_cores(), "_temp_dir": folder}
        try:
            with _nothing_said():
                ray.init(
                    address=address,
                    logging_level=logging.CRITICAL,
                    log_to_driver=False,
                    **(own if address == LOCAL else {}),
                )
        except (ValueError, RuntimeError, OSError) as error:
            raise _no_cluster(address, error) from error
        try:
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _folder() -> Iterator[str]:
    """A folder for a cluster's sockets and logs, removed when the processes that write there have ended.

    A socket's path may have 107 characters, and Ray takes most of them: other folders than ``/tmp`` are seldom short
    enough. As for Ray itself, ``RAY_TMPDIR`` names another.
    """
    usual = Path("/tmp")
    folder = tempfile.mkdtemp(prefix="ray-", dir=os.environ.get("RAY_TMPDIR") or (usual if usual.is_dir() else None))
    try:
        yield folder
    finally:
        for _ in range(ATTEMPTS):
            shutil.rmtree(folder, ignore_errors=True)
            if not Path(folder).exists():
                break
            time.sleep(0.1)


def _require_head(address: str) -> None:
    """Raise where nobody listens at an address: Ray itself would wait for a quarter of an hour."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdecimal():
        try:
            with socket.create_connection((host.strip("[]"), int(port)), TIME_TO_CONNECT):
                pass
        except (OSError, OverflowError) as error:
            raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> CaptionerError:
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if address == LOCAL:
        return CaptionerError(
            f"Ray does not start on this machine ({said}): it wants room in /dev/shm and in /tmp, or in the folder "
            "that RAY_TMPDIR names. Without --ray this machine captions by itself, into one file"
        )
    return CaptionerError(
        f"no Ray cluster answers at {address} ({said}): start one with ray start --head, or give --ray {LOCAL}. "
        "One that wants a token needs RAY_AUTH_MODE=token and the same token here"
    )


@contextlib.contextmanager
def _nothing_said() -> Iterator[None]:
    """What is written to standard error is lost: asked to log less, Ray's core writes there that it was."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - no Path is meant
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
