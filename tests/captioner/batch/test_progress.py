"""What a run shows of itself."""

from __future__ import annotations

import io
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from captioner.batch.plan import Tally
from captioner.batch.progress import Counting, Progress, describe, duration, peak_memory, summary
from captioner.errors import OptionError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def counted(total: int | None) -> Counting:
    counting = Counting(lambda: total)
    counting.total = total
    return counting


def test_a_run_is_described() -> None:
    tally = Tally(known=10, skipped=5, captioned=80, failed=5)
    assert describe(tally, 1000, 10.0) == "100 of 1,000 pictures (10%), 8.5 a second, 1:46 left, 5 failed"
    assert describe(tally, None, 10.0) == "100 pictures, 8.5 a second, 5 failed"
    assert describe(Tally(captioned=5), 3, 1.0) == "5 pictures, 5.0 a second"  # more have come since they were counted
    assert describe(Tally(), 0, 0.0) == "0 of 0 pictures (0%), 0.0 a second"


def test_durations_are_read_at_a_glance() -> None:
    assert [duration(seconds) for seconds in (0, 59.4, 59.6, 3599, 3600, 100_000)] == [
        "0:00",
        "0:59",
        "1:00",
        "59:59",
        "1:00:00",
        "27:46:40",
    ]


def test_a_terminal_has_one_line_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    stream, clock = Terminal(), Clock()
    progress = Progress(counted(1000), stream, clock)
    for captioned in (1, 2, 3):
        clock.now += 0.15
        progress.show(Tally(captioned=captioned))
    assert stream.getvalue() == "\r2 of 1,000 pictures (0%), 6.7\x1b[K"
    progress.tell("captioner: a.jpg is damaged")
    assert stream.getvalue().endswith("\r\x1b[Kcaptioner: a.jpg is damaged\n")


def test_elsewhere_there_is_a_line_now_and_then() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Progress(counted(None), stream, clock)
    for _ in range(100):
        clock.now += 1.0
        progress.show(Tally(captioned=3))
    progress.tell("captioner: a.jpg is damaged")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0] == "3 pictures, 0.1 a second"
    assert lines[3] == "captioner: a.jpg is damaged"


def test_counting_keeps_nobody_waiting() -> None:
    begin = threading.Event()
    counting = Counting(lambda: begin.wait(20) and 5)
    counting.start()
    assert counting.total is None
    begin.set()
    next(thread for thread in threading.enumerate() if thread.name == "count").join(20)
    assert counting.total == 5


def test_what_cannot_be_counted_is_not() -> None:
    def count() -> int:
        raise OptionError("there is no such folder")

    counting = Counting(count)
    counting.start()
    for thread in threading.enumerate():
        if thread.name == "count":
            thread.join(20)
    assert counting.total is None


def test_a_summary_tells_all() -> None:
    told = summary(Tally(known=1, skipped=2, captioned=1500, duplicates=3, failed=4, busy=90.0), 100.0)
    assert told.startswith(
        "1,500 captioned (3 of them duplicates), 4 failed, 2 left as they were, 1 done before; 1:40, "
        "15.0 a second, the model busy for 90%"
    )
    assert summary(Tally(known=7), 1.0).startswith("0 captioned, 0 failed, 7 done before")


@pytest.mark.skipif(not Path("/proc/self/status").exists() and sys.platform == "win32", reason="nothing tells it")
def test_the_most_memory_is_told() -> None:
    before = peak_memory()
    held = np.ones(1 << 27, np.uint8)
    after = peak_memory()
    assert before is not None
    assert after is not None
    assert after >= before
    assert after > held.nbytes
