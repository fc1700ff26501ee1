"""Ctrl-C: the first stops a run in order, the second at once."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from running import main, start, write_pictures

from captioner.batch.interrupts import Interrupts, Stopped

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs the signals of Unix")

Command = Callable[..., int]
PATIENCE = 60.0  # seconds until what should happen is taken not to happen


def test_a_signal_ends_what_is_waited_for() -> None:
    def wait() -> None:
        with interrupts.waiting():
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(PATIENCE)

    with Interrupts() as interrupts, pytest.raises(Stopped):
        wait()
    assert interrupts.stopping


def test_a_signal_lets_work_be_done_and_is_heard_later(capsys: pytest.CaptureFixture[str]) -> None:
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        done = sum(range(1000))
        with pytest.raises(Stopped), interrupts.waiting():
            pytest.fail("it was to stop")
    assert done
    assert "stopping; once more to stop at once" in capsys.readouterr().err


def test_a_signal_that_comes_as_waiting_begins_is_not_missed() -> None:
    class Late(Interrupts):
        """A signal comes just behind the first look whether one has."""

        value, sent = False, True

        @property
        def stopping(self) -> bool:
            before, sent = self.value, self.sent
            self.sent = True
            if not sent:
                os.kill(os.getpid(), signal.SIGINT)
            return before

        @stopping.setter
        def stopping(self, value: bool) -> None:
            self.value = value

    def wait() -> None:
        with interrupts.waiting():
            pytest.fail("it was to stop")

    with Late() as interrupts:
        interrupts.sent = False
        with pytest.raises(Stopped):
            wait()


def test_signals_mean_what_they_meant_before_when_a_run_is_over() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Interrupts():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_run_in_a_thread_leaves_signals_alone() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def run() -> None:
        with Interrupts() as interrupts, interrupts.waiting():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]


def test_the_second_signal_ends_the_process_whatever_it_does() -> None:
    code = """
import time
from captioner.batch.interrupts import Interrupts
with Interrupts():
    print("ready", flush=True)
    while True:
        time.sleep(0.01)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert b"once more" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_says_so_and_is_gone_on_with(
    tmp_path: Path,
    first: list[object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [str(path.relative_to(tmp_path)) for path in write_pictures(tmp_path / "photos", 12)]
    Path("photos/001.jpg").write_bytes(b"no picture")
    Path("list").write_text("\n".join(names) + "\n", encoding="utf-8")
    arguments = [*first, "--output", "out.jsonl"]
    assert main([*arguments[:-1], "whole.jsonl", "--list", "list"]) == 1
    with start([*arguments, "-"], stdin=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdin
        assert process.stderr
        process.stdin.write("\n".join(names[:10]) + "\n")  # two chunks and a part of the third
        process.stdin.flush()
        failed = process.stderr.readline()  # when the first chunk is recorded
        process.send_signal(number)
        told = process.stderr.read()
        assert process.wait(PATIENCE) == 130
        process.stdin.close()
    assert "photos/001.jpg: the image has no known" in failed
    assert "stopping; once more to stop at once" in told
    assert "captioner: stopped; the same command goes on, out.jsonl.progress remembers where" in told
    assert not Path("out.jsonl").exists()
    capsys.readouterr()
    assert main([*arguments, "--list", "list"]) == 2
    assert 'INPUT was ["-"], not []' in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(Path("list").read_bytes())))
    assert main([*arguments, "-"]) == 1
    told = capsys.readouterr().err
    assert "done before" in told
    assert "1 failed in an earlier run" in told
    assert Path("out.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()


def test_a_run_that_waits_for_more_does_not_keep_what_it_has(
    tmp_path: Path, first: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [str(path.relative_to(tmp_path)) for path in write_pictures(tmp_path / "photos", 8)]
    with start([*first, "-", "--format", "txt"], stdin=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdin
        process.stdin.write("\n".join(names) + "\n")
        process.stdin.flush()
        deadline = time.monotonic() + PATIENCE
        while len(list(Path("photos").glob("*.txt"))) < 8 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(list(Path("photos").glob("*.txt"))) == 8
        process.send_signal(signal.SIGKILL)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "photos"]
