"""The servers that are measured, each in processes of its own: how to start one, what it weighs, how to end it."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
START_SECONDS = 120.0
STOP_SECONDS = 60.0
# To a port of this machine: a proxy that the environment names would not find it.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Server:
    """How to run one server.

    Attributes:
        name: what the table calls it, its settings included.
        command: with ``{port}`` where the port belongs.
        caption: the path that pictures are posted to.
        ready: the path that answers 200 once the model is loaded.
        torch_threads: cores that each copy of the network may use; 0 leaves that to the server.
    """

    name: str
    command: tuple[str, ...]
    caption: str = "/caption"
    ready: str = "/ready"
    torch_threads: int = 0


def captioner_serve(model: str, flags: str) -> Server:
    """``captioner serve``, with these flags."""
    command = (sys.executable, "-m", "captioner.cli", "serve", "--port={port}", f"--model={model}")
    name = f"captioner serve {flags}".strip()
    return Server(name, (*command, *shlex.split(flags)), caption="/v1/caption", ready="/health/ready")


def plain_flask(model: str, cores: int) -> Server:
    """The obvious application on Flask's own threaded server: one model behind a lock."""
    command = (sys.executable, str(HERE / "plain_flask.py"), model, "{port}")
    return Server("plain Flask", command, torch_threads=cores)


def gunicorn(model: str, cores: int, threads: int) -> Server:
    """The same application under gunicorn: a worker with a model of its own for each core."""
    options = f"--workers {cores} --threads {threads} --worker-class gthread --keep-alive 5 --timeout 120"
    command = (
        *(sys.executable, "-m", "gunicorn", *options.split(), "--bind=127.0.0.1:{port}"),
        *(f"--pythonpath={HERE}", f"plain_flask:create_app({model!r})"),
    )
    return Server(f"Flask under gunicorn, workers {cores}, threads {threads}", command, torch_threads=1)


def litserve(model: str, cores: int, workers: int, batch: int, wait: float) -> Server:
    """The same model behind LitServe, which batches: at most ``batch`` pictures, after at most ``wait`` seconds."""
    command = (sys.executable, str(HERE / "with_litserve.py"), model, "{port}", str(workers), str(batch), str(wait))
    name = f"LitServe, workers_per_device {workers}, max_batch_size {batch}, batch_timeout {wait:g}"
    return Server(name, command, ready="/health", torch_threads=max(1, cores // workers))


@contextlib.contextmanager
def running(server: Server) -> Iterator[tuple[int, str]]:
    """Start a server on a free port of this machine; gives its process id and URL once it is ready.

    Raises:
        SystemExit: it ended, or was not ready in time; its log says why.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [part.format(port=port) for part in server.command]
    threads = {"OMP_NUM_THREADS": str(server.torch_threads)} if server.torch_threads else {}
    with tempfile.TemporaryFile("w+") as log:
        # A session of its own, so that none of its processes outlives it.
        process = subprocess.Popen(
            command, env=os.environ | threads, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            if not _is_ready(process, f"http://127.0.0.1:{port}{server.ready}"):
                log.seek(0)
                raise SystemExit(f"{server.name} did not start:\n{log.read()[-3000:]}")
            yield process.pid, f"http://127.0.0.1:{port}{server.caption}"
        finally:
            _stop(process)


def _is_ready(process: subprocess.Popen[bytes], url: str) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), DIRECT.open(url, timeout=5) as reply:
            if reply.status == 200:
                return True
        time.sleep(0.2)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):  # it left nothing behind
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def memory(pid: int) -> dict[str, float] | None:
    """What a process and its descendants hold, in MiB; None where the kernel does not tell (it does on Linux).

    Returns:
        ``rss``: the sum of what each process holds, pages that they share counted in each; ``pss``: every shared
        page counted once, in shares.
    """
    if not Path("/proc/self/smaps_rollup").exists():
        return None
    total = dict.fromkeys(("rss", "pss"), 0.0)
    for member in _family(pid):
        with contextlib.suppress(OSError):  # it has just ended
            rollup = Path(f"/proc/{member}/smaps_rollup").read_text()
            for name in total:
                total[name] += sum(map(int, re.findall(rf"^{name.title()}: +(\d+) kB", rollup, re.MULTILINE))) / 1024
    return total


def children(pid: int) -> set[int]:
    """The processes that a process has started itself, and that run: the workers of a server."""
    return set(_children().get(pid, []))


def _family(pid: int) -> list[int]:
    """A process and its descendants."""
    started, members = _children(), [pid]
    for member in members:
        members += started.get(member, [])
    return members


def _children() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name stands in brackets and may hold anything: what counts comes after the last one.
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    return children
