"""Batches prepared by threads ahead of whoever takes them: in order, and one batch ahead at most.

A thread reads the stream and others prepare what it reads, so that a batch is ready when the one before it has been
dealt with. They are daemons: a stream that has nothing to say keeps neither its taker nor the process from ending.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from captioner.cores import usable_cores

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")

LONGEST_WAIT = 0.5  # seconds
MOST_THREADS = 4  # one batch at a time gives hardly more of them enough to do


def decoding_threads() -> int:
    """How many threads decode pictures: as many as this process may use cores, at most four."""
    return min(usable_cores(), MOST_THREADS)


def batches(
    items: Iterable[Item],
    prepare: Callable[[Item], Prepared],
    size: int,
    *,
    threads: int,
    in_turn: Callable[[Item], bool] = lambda _: False,
) -> Generator[list[tuple[Item, Prepared]], None, None]:
    """Prepare the items of a stream, ``size`` at a time, in their order; the last batch may be smaller.

    Nothing is read before the first batch is asked for. From then on the batch after the one that was taken last is
    read and prepared, and nothing beyond it: together no more than two batches exist. Closing ends the threads as soon
    as they are done with the item in hand, and does not wait for them.

    Args:
        items: read by one thread, which is not the taker's but has its context variables.
        prepare: called by several threads at a time.
        size: of a batch, at least 1.
        threads: how many prepare, at least 1.
        in_turn: tells the items that must be prepared by themselves, before the one after them is read.

    Yields:
        Lists of items, each with what has been made of it.

    Raises:
        Whatever the stream or ``prepare`` raises, after a batch of what came before it.
    """
    ahead = _Ahead(iter(items), prepare, size, in_turn)
    ahead.start(min(threads, size))
    try:
        yield from iter(ahead.take, [])  # unlike a loop's variable, this does not keep the batch before
    finally:
        ahead.stop()


class _Ahead(Generic[Item, Prepared]):
    """The threads of one stream, and what they have in hand."""

    def __init__(
        self,
        items: Iterator[Item],
        prepare: Callable[[Item], Prepared],
        size: int,
        in_turn: Callable[[Item], bool],
    ) -> None:
        self._items, self._prepare, self._size, self._in_turn = items, prepare, size, in_turn
        self._room = threading.Semaphore(size)
        self._read: SimpleQueue[Future[tuple[Item, Prepared]] | None] = SimpleQueue()  # None: there are no more
        self._unprepared: SimpleQueue[tuple[Item, Future[tuple[Item, Prepared]]] | None] = SimpleQueue()
        self._failed: Future[tuple[Item, Prepared]] | None = None
        self._ended = self._stopped = False
        self._threads = 0

    def start(self, threads: int) -> None:
        self._threads = threads
        for work in (self._reader, *[self._preparer] * threads):
            threading.Thread(target=contextvars.copy_context().run, args=(work,), name="prefetch", daemon=True).start()

    def stop(self) -> None:
        self._stopped = True
        self._room.release()  # wakes the reader
        self._end_preparers()

    def take(self) -> list[tuple[Item, Prepared]]:
        """The next batch, as soon as all of it is ready; empty at the end."""
        batch: list[tuple[Item, Prepared]] = []
        while not self._ended and len(batch) < self._size:
            prepared = self._wait()
            if prepared is None or prepared.exception() is not None:
                self._ended, self._failed = True, prepared
            else:
                batch.append(prepared.result())
        if not batch and self._failed is not None:
            self._failed.result()  # raises
        if batch:
            self._room.release(len(batch))
        return batch

    def _wait(self) -> Future[tuple[Item, Prepared]] | None:
        while True:
            # A signal that comes just before the wait does not end it: Python hears of it when it runs again.
            with suppress(Empty):
                return self._read.get(timeout=LONGEST_WAIT)

    def _reader(self) -> None:
        try:
            while self._room.acquire() and not self._stopped:
                future: Future[tuple[Item, Prepared]] = Future()
                try:
                    item = next(self._items)
                except StopIteration:
                    return
                except BaseException as error:  # whatever it is, it is the taker's
                    future.set_exception(error)
                    self._read.put(future)
                    return
                self._read.put(future)
                if self._in_turn(item):
                    self._fulfil(item, future)
                else:
                    self._unprepared.put((item, future))
        finally:
            self._read.put(None)
            self._end_preparers()

    def _preparer(self) -> None:
        while (work := self._unprepared.get()) is not None:
            self._fulfil(*work)
            del work  # else it would be kept until there is more

    def _fulfil(self, item: Item, future: Future[tuple[Item, Prepared]]) -> None:
        if self._stopped:
            return
        try:
            future.set_result((item, self._prepare(item)))
        except BaseException as error:
            future.set_exception(error)

    def _end_preparers(self) -> None:
        for _ in range(self._threads):
            self._unprepared.put(None)
