"""What a run shows of itself while it goes on, and what it says at its end."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from captioner.batch.plan import Tally
from captioner.errors import CaptionerError, one_line

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

ON_A_TERMINAL = 0.2  # seconds between two looks
ELSEWHERE = 30.0
ERASE = "\x1b[K"  # what is right of the cursor (ECMA-48, EL)


class Counting:
    """Counts in a thread of its own what a run will go through; it keeps nobody waiting."""

    def __init__(self, count: Callable[[], int | None]) -> None:
        self.total: int | None = None
        self._count = count

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="count", daemon=True).start()

    def _run(self) -> None:
        try:
            self.total = self._count()
        except CaptionerError:  # the run meets it, too, and tells
            self.total = None


class Progress:
    """A line on a terminal, written over and over; elsewhere a line every half minute.

    Args:
        counting: knows how many pictures there are.
        stream: where to.
        clock: seconds.
    """

    def __init__(
        self, counting: Counting, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._counting = counting
        self._stream = stream or sys.stderr
        self._clock = clock
        self._terminal = self._stream.isatty()
        self._began = self._shown = clock()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return self._clock() - self._began

    def show(self, tally: Tally) -> None:
        """Show where a run is, if it is time to."""
        now = self._clock()
        if now - self._shown < (ON_A_TERMINAL if self._terminal else ELSEWHERE):
            return
        self._shown = now
        line = describe(tally, self._counting.total, now - self._began)
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            self._print(f"\r{line[:width]}{ERASE}", end="")
        else:
            self._print(line)

    def tell(self, message: str) -> None:
        """A line that stays."""
        self._print(f"\r{ERASE}{message}" if self._terminal else message)

    def _print(self, text: str, end: str = "\n") -> None:
        print(text, end=end, file=self._stream, flush=True)


def told(name: str, message: str) -> str:
    """What became of a picture, on one line, whatever its name does to terminals."""
    line = message if name in message else f"{name}: {message}"
    return f"captioner: {one_line(line)}"


def describe(tally: Tally, total: int | None, seconds: float) -> str:
    """Where a run is."""
    rate = tally.new / seconds if seconds else 0.0
    parts = [f"{tally.done:,} pictures"]
    if total is not None and total >= tally.done:
        parts = [f"{tally.done:,} of {total:,} pictures ({tally.done / max(total, 1):.0%})"]
    parts.append(f"{rate:.1f} a second")
    if total is not None and rate and total >= tally.done:
        parts.append(f"{duration((total - tally.done) / rate)} left")
    if tally.failed:
        parts.append(f"{tally.failed:,} failed")
    return ", ".join(parts)


def summary(tally: Tally, seconds: float) -> str:
    """What a run has done."""
    parts = [f"{tally.captioned:,} captioned"]
    if tally.duplicates:
        parts[-1] += f" ({tally.duplicates:,} of them duplicates)"
    parts.append(f"{tally.failed:,} failed")
    parts += [
        f"{number:,} {what}"
        for number, what in ((tally.skipped, "left as they were"), (tally.known, "done before"))
        if number
    ]
    done = ", ".join(parts)
    if tally.new and seconds:
        done += (
            f"; {duration(seconds)}, {tally.new / seconds:.1f} a second, the model busy for {tally.busy / seconds:.0%}"
        )
    memory = peak_memory()
    return done if memory is None else f"{done}; {memory / 2**20:,.0f} MiB of memory at most"


def hints(tally: Tally, *, recursive: bool) -> Iterator[str]:
    """What to do where a run has done nothing, if that was not what was wanted."""
    if not tally.done:
        yield "no pictures were found" + ("" if recursive else "; --recursive looks into the folders below, too")
    elif not tally.new and (tally.known or tally.skipped):
        yield "nothing is new; --on-existing overwrite captions all of them anew"


def duration(seconds: float) -> str:
    """``m:ss`` or ``h:mm:ss``."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def peak_memory() -> int | None:
    """The most memory that this process has had, in bytes; None where the system does not tell."""
    try:  # what getrusage tells here includes what the process was forked from
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    if resource is None:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
