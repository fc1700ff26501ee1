"""Clients that keep a server busy: each sends its next picture as soon as it has the answer to the last."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp

OK, REFUSED = 200, 429
LONGEST_WAIT = 120.0  # seconds for one answer
PAUSE = 0.1  # seconds after an error: who cannot reach the server should not spin


@dataclass
class Load:
    """What some clients met.

    Every answer counts that came after the warm-up, to a request from before the end, however late; for the rate, those
    that came before the end. So a server that takes longer than the seconds for an answer is measured, too.

    Attributes:
        clients: how many there were at a time.
        seconds: how long they sent requests, the warm-up apart.
        statuses: replies by status.
        errors: requests without a whole reply, by what went wrong.
        latencies: seconds from the request's first byte to the last byte of its reply, of each reply with status 200.
        finished: replies with status 200 that came within the seconds.
    """

    clients: int
    seconds: float
    statuses: Counter[int] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    finished: int = 0

    @property
    def rate(self) -> float:
        """Replies with status 200 a second."""
        return self.finished / self.seconds

    @property
    def refused(self) -> int:
        """Replies with status 429: the server was full and said so."""
        return self.statuses[REFUSED]

    @property
    def failures(self) -> dict[str, int]:
        """All else that was no answer, by status or error."""
        statuses = {str(status): count for status, count in self.statuses.items() if status not in (OK, REFUSED)}
        return statuses | dict(self.errors)

    def percentile(self, percent: float) -> float:
        """The least latency that so many per cent of the answers kept to (nearest rank); NaN without an answer."""
        if not self.latencies:
            return math.nan
        return sorted(self.latencies)[max(0, math.ceil(percent / 100 * len(self.latencies)) - 1)]


async def put_load(url: str, bodies: Sequence[bytes], *, clients: int, seconds: float, warm_up: float = 0.0) -> Load:
    """Let clients post pictures over connections that they keep, and count.

    A refused client waits as long as ``Retry-After`` says.

    Args:
        url: where to post.
        bodies: pictures, sent in turn; each client begins at another one.
        clients: how many send at the same time.
        seconds: how long to count.
        warm_up: seconds for which they send before that.
    """
    load = Load(clients, seconds)
    begin = time.perf_counter() + warm_up
    end = begin + seconds

    async def client(number: int) -> None:
        turns = itertools.cycle(range(len(bodies)))
        for turn in itertools.islice(turns, number % len(bodies), None):
            started = time.perf_counter()
            if started >= end:
                return
            pause, status, error = 0.0, None, ""
            try:
                async with session.post(url, data=bodies[turn], headers={"Content-Type": "image/jpeg"}) as reply:
                    await reply.read()
                    status = reply.status
                    if status == REFUSED:
                        pause = float(reply.headers.get("Retry-After", 1))
            except (aiohttp.ClientError, TimeoutError) as failure:
                error, pause = type(failure).__name__, PAUSE
            ended = time.perf_counter()
            if ended >= begin:
                count(status, error, ended - started, in_time=ended <= end)
            await asyncio.sleep(min(pause, max(0.0, end - ended)))

    def count(status: int | None, error: str, latency: float, *, in_time: bool) -> None:
        if status is None:
            load.errors[error] += 1
            return
        load.statuses[status] += 1
        if status == OK:
            load.latencies.append(latency)
            load.finished += in_time

    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=LONGEST_WAIT)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        await asyncio.gather(*(client(number) for number in range(clients)))
    return load
