"""Workers that share connections evenly."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from live import live_until, serve

from service.census import SLOTS, Census


def test_the_fewest_of_those_that_take_connections_count() -> None:
    census = Census()
    assert census.fewest() == 0
    census.tell(1, 5)
    census.tell(SLOTS + 2, 3)  # however many came and went before
    assert census.fewest() == 3
    census.forget(SLOTS + 2)
    assert census.fewest() == 5


def test_processes_share_it() -> None:
    census = Census()
    child = os.fork()
    if not child:
        census.tell(7, 42)
        os._exit(0)
    os.waitpid(child, 0)
    assert census.fewest() == 42


def sockets(pid: int) -> int:
    found = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found += str(descriptor.readlink()).startswith("socket:")
    return found


def test_connections_go_to_the_worker_that_has_fewest(tiny_model_dir: Path, tmp_path: Path) -> None:
    with serve(tmp_path, tiny_model_dir, workers=2) as live:
        live_until(live, lambda: live.log().count("takes connections") == 2)
        workers = live.workers()
        before = {pid: sockets(pid) for pid in workers}
        clients = [live.connect() for _ in range(60)]
        try:
            live_until(live, lambda: sum(sockets(pid) - before[pid] for pid in workers) == len(clients))
            assert all(20 <= sockets(pid) - before[pid] <= 40 for pid in workers)
        finally:
            for client in clients:
                client.close()
