"""How many connections each worker of a server holds, so that they share them evenly.

The kernel wakes all workers for a new connection, and whoever is fastest takes it; one worker may end up with most of
them while another has nothing to do. Here a worker leaves it to the others for a moment while it has more than they.
"""

from __future__ import annotations

import mmap

SLOTS = 1024  # workers are numbered as they come; far fewer are alive at a time
ABSENT = -1


class Census:
    """Counts that all processes forked after its making share."""

    def __init__(self) -> None:
        self._counts = memoryview(mmap.mmap(-1, SLOTS * 4)).cast("i")
        for slot in range(SLOTS):
            self._counts[slot] = ABSENT

    def tell(self, worker: int, connections: int) -> None:
        """Say how many connections a worker has."""
        self._counts[worker % SLOTS] = connections

    def forget(self, worker: int) -> None:
        """Say that a worker takes no connections."""
        self._counts[worker % SLOTS] = ABSENT

    def fewest(self) -> int:
        """The count of the worker that has fewest, of those that take any; 0 if there is none."""
        return min((count for count in self._counts.tolist() if count != ABSENT), default=0)
