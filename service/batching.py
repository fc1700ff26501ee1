"""Images of many requests, captioned together: one queue, and few threads that run the networks.

A network reads sixteen images in a fraction of the time that sixteen single ones take, and torch's own threads get in
each other's way when many of ours run networks at once. So each request queues its images and waits. A thread that is
free takes what is there, as long as it is for one model, and lets what came late wait for the next batch.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from captioner import Caption, Captioner, DecodingOptions
from captioner.engines import FloatArray
from captioner.errors import CaptionerError
from service.caller import Caller
from service.errors import UnavailableError
from service.metrics import Metrics

log = logging.getLogger(__name__)

PATIENCE = 10


@dataclass(frozen=True, eq=False)
class Job:
    """One image on its way.

    Attributes:
        model: what captions it: two versions of one model, before and after it was loaded anew, share no batch.
        pixels: (3, H, W), by that model's image settings.
        options: how to decode.
        caller: who waits.
        captions: where the result goes.
        queued: when it was queued, in seconds of ``time.monotonic``.
    """

    model: Captioner
    pixels: FloatArray
    options: DecodingOptions
    caller: Caller
    captions: Future[list[Caption]] = field(default_factory=Future)
    queued: float = field(default_factory=time.monotonic)


class Batcher:
    """Captions queued images in batches.

    Args:
        max_batch: most images in one.
        wait: seconds without another image until a batch is begun that could hold more, as long as others are known to
            be on their way or the network is busy anyway; who is alone never waits, and nobody waits for longer than
            ``PATIENCE`` times as long.
        metrics: told of queueing, batches and the time they take.
        parallel: batches captioned at a time.
        share: told how many are, in the thread that is about to begin one.
    """

    def __init__(
        self,
        *,
        max_batch: int,
        wait: float,
        metrics: Metrics,
        parallel: int = 1,
        share: Callable[[int], None] = lambda _running: None,
    ) -> None:
        self._max_batch = max_batch
        self._wait = wait
        self._metrics = metrics
        self._queue: list[Job] = []
        self._coming = 0
        self._running = 0
        self._share = share
        self._changed = threading.Condition()
        # One turn a job: a turn takes a whole batch, and those that find nothing left to do end at once.
        self._turns = ThreadPoolExecutor(parallel, thread_name_prefix="batch")

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Meanwhile an image is on its way here."""
        self._expect(1)
        try:
            yield
        finally:
            self._expect(-1)

    def submit(
        self, model: Captioner, pixels: FloatArray, options: DecodingOptions, caller: Caller
    ) -> Future[list[Caption]]:
        """Queue one image; cancelling the future takes it out again as long as it waits."""
        job = Job(model, pixels, options, caller)
        with self._changed:
            self._queue.append(job)
            self._changed.notify_all()
        self._turns.submit(self._turn)
        return job.captions

    def _expect(self, images: int) -> None:
        with self._changed:
            self._coming += images
            self._changed.notify_all()

    def _turn(self) -> None:
        batch = self._next_batch()
        if not batch:
            return
        started = time.monotonic()
        with self._changed:
            self._running += 1
        try:
            self._share(self._running)
            self._caption(batch)
        finally:
            with self._changed:
                self._running -= 1
        self._metrics.observe_stage("model", time.monotonic() - started)
        self._metrics.observe_batch(batch[0].model.name, len(batch))
        for job in batch:
            self._metrics.observe_stage("queue", started - job.queued)

    def _next_batch(self) -> list[Job]:
        """Take the oldest job and those behind it for the same model, as many as fit."""
        with self._changed:
            latest = time.monotonic() + PATIENCE * self._wait
            while True:
                batch = [job for job in self._queue if job.model is self._queue[0].model][: self._max_batch]
                if not batch or len(batch) == self._max_batch or not (self._coming or self._running):
                    break
                left = min(batch[-1].queued + self._wait, latest) - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            self._queue = [job for job in self._queue if job not in batch]
        return [job for job in batch if _is_wanted(job)]

    def _caption(self, batch: list[Job]) -> None:
        try:
            found = batch[0].model.caption_pixels([job.pixels for job in batch], [job.options for job in batch])
        except Exception as error:
            if len(batch) > 1:  # one of them may be the cause: it should fail alone
                for job in batch:
                    self._caption([job])
                return
            if not isinstance(error, CaptionerError):
                log.exception("An image could not be captioned")
            batch[0].captions.set_exception(error)
        else:
            for job, captions in zip(batch, found, strict=True):
                job.captions.set_result(captions)


def _is_wanted(job: Job) -> bool:
    """Whether somebody still waits; who does not is told, though probably nobody listens."""
    if not job.captions.set_running_or_notify_cancel():
        return False
    try:
        job.caller.check()
    except UnavailableError as error:
        job.captions.set_exception(error)
        return False
    return True
