"""What a process costs from its start to its end, seconds and memory.

The kernel counts as a process' peak memory what the process that started it held, too: whoever has loaded a network
cannot weigh another. So a small interpreter, this file run as a script, starts it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Run:
    """One process: wall seconds, peak resident memory in MiB."""

    seconds: float
    mebibytes: float


def run_process(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Run:
    """Run a command, its output thrown away.

    Args:
        command: a program's path and its arguments.
        environment: variables besides those of this process.

    Raises:
        SystemExit: it failed; what it wrote on stderr tells why.
    """
    launcher = [sys.executable, "-I", "-S", __file__, *command]
    variables = os.environ | dict(environment or {})
    launched = subprocess.run(launcher, env=variables, stdout=subprocess.PIPE, text=True, check=False)
    if launched.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    seconds, mebibytes = map(float, launched.stdout.split())
    return Run(seconds, mebibytes)


def caption_alone(arguments: Sequence[str], threads: int) -> Run:
    """:mod:`speed_parts.alone` in a process of its own, with these arguments."""
    places = os.pathsep.join(filter(None, (str(HERE.parent), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "speed_parts.alone", *arguments, "--threads", str(threads)]
    return run_process(command, {"PYTHONPATH": places, "OMP_NUM_THREADS": str(threads)})


def _launch(command: list[str]) -> int:
    """Print the seconds and MiB of a command; returns its exit code."""
    started = time.perf_counter()
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    process = os.posix_spawn(command[0], command, os.environ, file_actions=quiet)
    _, status, usage = os.wait4(process, 0)
    seconds = time.perf_counter() - started
    # The kernel counts in KiB on Linux, in bytes on macOS.
    print(seconds, usage.ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024))
    return 1 if status else 0


if __name__ == "__main__":
    sys.exit(_launch(sys.argv[1:]))
