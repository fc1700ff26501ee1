"""How many requests one address may send in a minute, over all worker processes, in bounded memory.

The generic cell rate algorithm (ATM Forum, Traffic Management 4.0, section 4.4.2): per client one number, the time at
which its allowance is full again. A request moves it on by one interval, and is refused where that leads more than a
full allowance ahead. So a client may send its minute's worth at once, and then one an interval.
"""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import math
import mmap
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Callable

from flask import Flask

from service.errors import AccessError
from service.observing import client_address, current_is_open

SLOTS = 2**20  # two addresses share one now and then; 8 MiB, of which only what is used exists
BYTES = 8  # of a double


class RateLimit:
    """Who has sent how much of late, shared by this process and those that it forks from now on.

    Args:
        per_minute: requests of one client.
        clock: seconds; by default a clock that all processes of the machine share.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 60 / per_minute
        self._allowance = 60.0 + self._interval / 1000  # a thousandth, lest rounding costs a request
        self._clock = clock
        self._secret = secrets.token_bytes(16)  # else one could find an address that shares another's slot
        with tempfile.TemporaryFile() as file:  # it has no name, and is gone with the last process
            file.truncate(SLOTS * BYTES)
            self._full_at = memoryview(mmap.mmap(file.fileno(), SLOTS * BYTES)).cast("d")
            self._locks = os.dup(file.fileno())  # on parts of the file; unlike semaphores they end with their holder
        self._turn = threading.Lock()

    def wait(self, client: str) -> float:
        """Count a request: 0 if it is allowed, else the seconds until one will be."""
        slot = int.from_bytes(hashlib.blake2b(client.encode(), key=self._secret, digest_size=8).digest()) % SLOTS
        with self._turn:  # a process's own threads do not see each other's locks on files
            fcntl.lockf(self._locks, fcntl.LOCK_EX, BYTES, slot * BYTES)
            try:
                now = self._clock()
                full_at = max(self._full_at[slot], now) + self._interval
                wait = full_at - now - self._allowance
                if wait <= 0:
                    self._full_at[slot] = full_at
                return max(wait, 0.0)
            finally:
                fcntl.lockf(self._locks, fcntl.LOCK_UN, BYTES, slot * BYTES)


def register(app: Flask, limit: RateLimit) -> None:
    """Hold every client of ``app`` to ``limit``; what is open without a key is free."""

    @app.before_request
    def check() -> None:
        if current_is_open():
            return
        wait = limit.wait(network(client_address()))
        if wait:
            seconds = math.ceil(wait)
            raise AccessError(
                f"Too many requests came from your address; the next is welcome in {seconds} s",
                code="rate_limited",
                headers={"Retry-After": str(seconds)},
            )


def network(address: str) -> str:
    """What counts as one client: an address of IPv4, or the 64 bits of IPv6 that one subscriber has."""
    return str(ipaddress.ip_network((address, 64), strict=False)) if ":" in address else address
