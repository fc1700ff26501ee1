"""``captioner batch`` for tests: in this process, or in one of its own that is killed in the middle of something.

As a program it runs the command with its arguments. If ``KILLED_AT`` is set to ``EVENT:N``, it kills itself as the
N-th audit event of that name begins, once the record is open: ``os.rename:3`` lets two files get their names.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from captioner import cli

KILLED_AT = "KILLED_AT"
KILLED = -signal.SIGKILL if hasattr(signal, "SIGKILL") else None


def main(arguments: Sequence[object]) -> int:
    """Run the command; its exit code."""
    return cli.main(["batch", *map(str, arguments)])


def start(arguments: Sequence[object], *, killed_at: str = "", **options: Any) -> subprocess.Popen[str]:
    """Run the command in a process of its own."""
    environment = {**os.environ, KILLED_AT: killed_at, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", __file__, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment, **options)


def run(arguments: Sequence[object], *, killed_at: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, to its end."""
    with start(arguments, killed_at=killed_at, **options) as process:
        out, told = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, told)


def picture(number: int, mode: str = "RGB") -> Image.Image:
    """A picture like no other of its number."""
    pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((96, 72), Image.Resampling.BICUBIC).convert(mode)


def write_pictures(folder: Path, count: int, *, first: int = 0, ending: str = ".jpg") -> list[Path]:
    """Pictures that differ, in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03}{ending}" for number in range(first, first + count)]
    for number, path in enumerate(paths, start=first):
        picture(number).save(path)
    return paths


def tree(folder: Path) -> dict[str, bytes]:
    """The content of every file below a folder, by its path there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _kill_at(event: str, number: int) -> None:
    seen = armed = 0

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen, armed
        if name == "sqlite3.connect" and str(arguments[0]).endswith(".progress"):
            armed = 1
        elif armed and name == event:
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


if __name__ == "__main__":
    if at := os.environ.get(KILLED_AT):
        name, _, number = at.partition(":")
        _kill_at(name, int(number))
    sys.exit(main(sys.argv[1:]))
