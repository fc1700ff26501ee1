"""Batches prepared ahead: in order, bounded, and gone when nobody wants them any longer."""

from __future__ import annotations

import contextvars
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from captioner import cores as cores_module
from captioner.prefetch import MOST_THREADS, batches, decoding_threads

PATIENCE = 20.0  # seconds until what should happen is taken not to happen
MOMENT = 0.15  # seconds in which what should not happen would


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def prefetching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Every test ends with its threads."""
    assert not prefetching()
    yield
    assert eventually(lambda: not prefetching())


class Stream:
    """Counts the items that are read of it, all whole numbers up to ``length``."""

    def __init__(self, length: int | None = None) -> None:
        self.taken = 0
        self._length = length

    def __iter__(self) -> Iterator[int]:
        for item in itertools.count():
            if item == self._length:
                return
            self.taken += 1
            yield item


def double(item: int) -> int:
    return 2 * item


# What comes out


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize(("length", "size"), [(0, 3), (1, 3), (3, 3), (7, 3), (6, 3), (5, 1), (4, 9)])
def test_all_items_come_in_their_order(length: int, size: int, threads: int) -> None:
    found = list(batches(Stream(length), double, size, threads=threads))
    assert [pair for batch in found for pair in batch] == [(item, 2 * item) for item in range(length)]
    assert [len(batch) for batch in found] == [size] * (length // size) + [length % size] * (length % size > 0)


def test_order_does_not_depend_on_who_is_ready_first() -> None:
    def slower_the_sooner(item: int) -> int:
        time.sleep(0.02 * (3 - item % 4))
        return item

    found = list(batches(range(16), slower_the_sooner, 8, threads=4))
    assert [item for batch in found for item, _ in batch] == list(range(16))


def test_several_items_are_prepared_at_a_time() -> None:
    meeting = threading.Barrier(3)
    found = list(batches(range(6), lambda _: meeting.wait(PATIENCE), 3, threads=3))  # breaks unless three meet
    assert [len(batch) for batch in found] == [3, 3]


def test_items_to_be_prepared_in_turn_are_so_before_the_next_is_read() -> None:
    events = []

    def stream() -> Iterator[int]:
        for item in range(5):
            events.append(("read", item))
            yield item

    def prepare(item: int) -> None:
        if item % 2:
            time.sleep(0.01)
            events.append(("prepared", item))

    list(batches(stream(), prepare, 5, threads=4, in_turn=lambda item: item % 2 == 1))
    assert [event for event in events if event[1] > 0] == [
        ("read", 1), ("prepared", 1), ("read", 2), ("read", 3), ("prepared", 3), ("read", 4),
    ]  # fmt: skip


def test_one_thread_reads_all_of_the_stream_with_the_takers_context() -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    readers = set()

    def stream() -> Iterator[str]:
        for _ in range(9):
            readers.add(threading.current_thread())
            yield variable.get()

    variable.set("set")
    found = list(batches(stream(), lambda _: variable.get(), 2, threads=3))
    assert {pair for batch in found for pair in batch} == {("set", "set")}
    assert len(readers) == 1
    assert readers.isdisjoint({threading.current_thread()})


# How far ahead


def test_nothing_is_read_before_a_batch_is_asked_for() -> None:
    stream = Stream()
    batches(stream, double, 3, threads=2)
    time.sleep(MOMENT)
    assert stream.taken == 0


def test_the_next_batch_is_prepared_meanwhile_and_nothing_beyond_it() -> None:
    stream, prepared = Stream(), []
    with closing(batches(stream, prepared.append, 3, threads=2)) as found:
        for number in range(1, 5):
            next(found)
            assert eventually(lambda number=number: len(prepared) == 3 * (number + 1))
            time.sleep(MOMENT)
            assert stream.taken == len(prepared) == 3 * (number + 1)


def test_no_more_than_two_batches_exist() -> None:
    class Pixels:
        pass

    alive: weakref.WeakSet[Pixels] = weakref.WeakSet()
    most = 0

    def prepare(_: int) -> Pixels:
        nonlocal most
        pixels = Pixels()
        alive.add(pixels)
        most = max(most, len(alive))
        return pixels

    gc.disable()  # references alone must do
    try:
        with closing(batches(Stream(), prepare, 4, threads=3)) as found:
            for _ in range(12):
                batch = next(found)
                assert eventually(lambda: len(alive) == 8)
                del batch
                assert eventually(lambda: len(alive) == 4)
    finally:
        gc.enable()
    assert most == 8


def test_a_slow_stream_does_not_hold_up_what_it_has_given() -> None:
    """Here it waits for its own results, so that reading ahead in the taker's thread would never end."""
    answered = threading.Semaphore(1)

    def conversation() -> Iterator[int]:
        for item in range(5):
            assert answered.acquire(timeout=PATIENCE)
            yield item

    for batch in batches(conversation(), double, 1, threads=2):
        assert len(batch) == 1
        answered.release()


# Errors


class OddError(Exception):
    pass


def drain(found: Iterator[list[tuple[int, int]]], results: list[tuple[int, int]]) -> None:
    for batch in found:
        results += batch


@pytest.mark.parametrize("position", range(8))
def test_what_the_stream_raises_comes_after_all_that_came_before(position: int) -> None:
    def stream() -> Iterator[int]:
        yield from range(position)
        raise OddError(position)

    found = batches(stream(), double, 3, threads=2)
    results: list[tuple[int, int]] = []
    with pytest.raises(OddError, match=str(position)):
        drain(found, results)
    assert results == [(item, 2 * item) for item in range(position)]
    assert list(found) == []


@pytest.mark.parametrize("in_turn", [False, True])
@pytest.mark.parametrize("position", range(8))
def test_what_preparing_raises_comes_after_all_that_came_before(position: int, in_turn: bool) -> None:
    def prepare(item: int) -> int:
        if item == position:
            raise OddError(position)
        return 2 * item

    results: list[tuple[int, int]] = []
    with pytest.raises(OddError, match=str(position)):
        drain(batches(Stream(), prepare, 3, threads=2, in_turn=lambda _: in_turn), results)
    assert results == [(item, 2 * item) for item in range(position)]


def test_even_an_exit_in_the_stream_reaches_the_taker() -> None:
    def stream() -> Iterator[int]:
        yield 1
        sys.exit("enough")

    found = batches(stream(), double, 1, threads=1)
    assert next(found) == [(1, 2)]
    with pytest.raises(SystemExit, match="enough"):
        next(found)


# Giving up


def test_closing_ends_the_threads() -> None:
    found = batches(Stream(), double, 4, threads=3)
    next(found)
    assert len(prefetching()) == 4
    found.close()
    assert eventually(lambda: not prefetching())
    assert list(found) == []


def test_dropping_ends_the_threads() -> None:
    found = batches(Stream(), double, 4, threads=3)
    next(found)
    del found
    assert eventually(lambda: not prefetching())


def test_closing_does_not_wait_for_a_stream_that_is_silent() -> None:
    go_on, waiting = threading.Event(), threading.Event()

    def stream() -> Iterator[int]:
        yield 1
        waiting.set()
        assert go_on.wait(PATIENCE)
        yield 2

    prepared = []
    found = batches(stream(), prepared.append, 1, threads=4)
    next(found)
    assert waiting.wait(PATIENCE)
    started = time.monotonic()
    found.close()
    assert time.monotonic() - started < 1
    assert eventually(lambda: len(prefetching()) == 1), "all but the one that reads"
    go_on.set()
    assert eventually(lambda: not prefetching())
    assert prepared == [1]


def test_closing_leaves_what_is_not_begun() -> None:
    go_on, begun = threading.Event(), []

    def prepare(item: int) -> None:
        begun.append(item)
        if item >= 4:
            assert go_on.wait(PATIENCE)

    found = batches(Stream(), prepare, 4, threads=2)
    next(found)
    assert eventually(lambda: len(begun) == 6)
    found.close()
    go_on.set()
    assert eventually(lambda: not prefetching())
    assert sorted(begun) == [0, 1, 2, 3, 4, 5]


def test_the_process_ends_though_a_stream_does_not() -> None:
    program = """if True:
        import threading
        from captioner.prefetch import batches

        def stream():
            yield 1
            threading.Event().wait()

        found = batches(stream(), str, 1, threads=2)
        print(next(found))
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert (done.stdout, done.stderr) == ("[(1, '1')]\n", "")


# How many threads


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 2), (4, 4), (64, MOST_THREADS)])
def test_there_are_as_many_threads_as_cores_up_to_four(
    cores: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(cores_module.VARIABLE, raising=False)
    monkeypatch.setattr(cores_module, "_quotas", lambda _root: ())
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(cores)), raising=False)
    assert decoding_threads() == threads
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert decoding_threads() == threads
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert decoding_threads() == 1


def test_a_batch_needs_no_more_threads_than_items() -> None:
    with closing(batches(Stream(), double, 2, threads=9)) as found:
        next(found)
        assert len(prefetching()) == 3


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs the signals of Unix")
def test_a_signal_that_does_not_end_the_wait_is_heard_all_the_same() -> None:
    class Heard(Exception):  # noqa: N818 - it is none
        pass

    def hear(*_: object) -> None:
        raise Heard

    def send() -> None:
        time.sleep(MOMENT)  # until the batch is waited for
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)  # to this thread, so that the other sleeps on

    silent, said = threading.Event(), []

    def stream() -> Iterator[int]:
        silent.wait(PATIENCE)
        said.append(1)
        yield 1

    before = signal.signal(signal.SIGUSR1, hear)
    sender = threading.Thread(target=send)
    try:
        sender.start()
        with closing(batches(stream(), str, 1, threads=1)) as prepared, pytest.raises(Heard):
            next(prepared)
        assert not said
    finally:
        silent.set()
        sender.join()
        signal.signal(signal.SIGUSR1, before)
