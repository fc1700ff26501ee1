"""What goes wrong in the world: workers die, operators stop servers under load, strangers send anything at all."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from live import Live, live_until, serve
from serving.hostile import hostile_requests, is_fault, send

CLIENTS = 8


class Clients:
    """Ask for captions, each with one connection after the other, and keep account.

    Attributes:
        outcomes: when each request began, by ``time.monotonic``, and how it ended: a status, or an error's name.
    """

    def __init__(self, live: Live, image: bytes) -> None:
        self._live, self._image = live, image
        self._stop = threading.Event()
        self.outcomes: list[tuple[float, int | str]] = []

    @contextmanager
    def at_work(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._work) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _work(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                status, reply = self._live.ask("POST", "/v1/caption", self._image)
                outcome: int | str = status if status != 200 or b'"captions"' in reply else "half a reply"
                if status == 503:
                    self._stop.wait(2)  # as Retry-After says
            except (OSError, http.client.HTTPException) as error:
                outcome = type(error).__name__
                time.sleep(0.01)
            self.outcomes.append((began, outcome))

    def count(self, since: float = 0.0, until: float = float("inf")) -> Counter[int | str]:
        return Counter(outcome for began, outcome in self.outcomes if since <= began < until)


def test_stopping_under_load_loses_nothing(tiny_model_dir: Path, tmp_path: Path, jpeg: bytes) -> None:
    with serve(tmp_path, tiny_model_dir, workers=2, drain_seconds=0.5) as live:
        live_until(live, lambda: live.log().count("is ready") == 2 == live.log().count("takes connections"))
        clients = Clients(live, jpeg)
        with clients.at_work():
            live_until(live, lambda: clients.count()[200] >= 50)
            live.send_signal(signal.SIGTERM)
            assert live.wait() == 0
        found = clients.count()
    # Answered, turned away, or not let in any more; but never let in and then dropped.
    assert set(found) <= {200, 503, "ConnectionRefusedError"}, found
    assert found[503]


def test_a_worker_that_is_killed_is_replaced_and_the_others_go_on(
    tiny_model_dir: Path, tmp_path: Path, jpeg: bytes
) -> None:
    with serve(tmp_path, tiny_model_dir, workers=2) as live:
        live_until(live, lambda: live.log().count("is ready") == 2 == live.log().count("takes connections"))
        before = live.workers()
        clients = Clients(live, jpeg)
        with clients.at_work():
            live_until(live, lambda: clients.count()[200] >= 50)
            os.kill(min(before), signal.SIGKILL)
            killed = time.monotonic()
            live_until(live, lambda: live.log().count("takes connections") == 3)
            replaced = time.monotonic()
            live_until(live, lambda: clients.count(since=replaced)[200] >= 50)
        assert len(live.workers()) == 2
        assert live.workers() != before
        # Only what the dead one had in hand is lost; the new one takes nothing before it can answer.
        assert set(clients.count(since=killed + 0.1)) == {200}
        assert sum(clients.count(until=killed + 0.1).values()) - clients.count(until=killed + 0.1)[200] <= CLIENTS


@pytest.fixture(scope="module")
def live(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serve(tmp_path_factory.mktemp("hostile"), tiny_model_dir, max_pixels=1_000_000) as server:
        yield server


def test_nothing_that_strangers_send_brings_it_down(live: Live, jpeg: bytes) -> None:
    workers, good = live.workers(), live.caption(jpeg)
    found: dict[str, Counter[int | None]] = {}
    for number, request in enumerate(hostile_requests(500)):
        status = send("127.0.0.1", live.port, request)
        found.setdefault(request.kind, Counter())[status] += 1
        assert not is_fault(status), (request, status, live.log()[-3000:])
        if number % 50 == 49:
            assert live.caption(jpeg) == good
    assert live.workers() == workers, "the worker has been replaced"
    assert "Traceback" not in live.log(), live.log()
    kinds = {kind: {status for status, count in counts.items() if count} for kind, counts in found.items()}
    assert kinds["noise"] >= {400, 415}, found
    assert kinds["bomb"] & {413}, found
    assert all(sum(counts.values()) > counts[None] for kind, counts in found.items() if kind != "slow"), found


def test_hostile_clients_at_once_leave_room_for_a_good_one(live: Live, jpeg: bytes) -> None:
    requests = list(hostile_requests(200, seed=1))
    threads = [
        threading.Thread(
            target=lambda part: [send("127.0.0.1", live.port, request) for request in part], args=(requests[start::8],)
        )
        for start in range(8)
    ]
    for thread in threads:
        thread.start()
    captions = [live.caption(jpeg) for _ in range(10)]
    for thread in threads:
        thread.join()
    assert len(set(captions)) == 1


def ask_at_once(live: Live, image: bytes, clients: int) -> Counter[tuple[int, str]]:
    replies: Counter[tuple[int, str]] = Counter()

    def ask() -> None:
        status, reply = live.ask("POST", "/v1/caption?beam_size=20&max_length=200", image)
        replies[status, json.loads(reply).get("code", "")] += 1

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return replies


@pytest.mark.parametrize(
    ("settings", "refusal"),
    [
        ({"max_queue": 4, "max_images": 4, "max_batch": 2}, (429, "busy")),
        ({"deadline_seconds": 0.02}, (504, "deadline")),
    ],
)
def test_too_much_at_once_is_refused_and_the_rest_answered(
    tiny_model_dir: Path, tmp_path: Path, jpeg: bytes, settings: dict[str, float], refusal: tuple[int, str]
) -> None:
    with serve(tmp_path, tiny_model_dir, **settings) as live:
        replies: Counter[tuple[int, str]] = Counter()
        live_until(live, lambda: replies.update(ask_at_once(live, jpeg, 32)) or replies[refusal])
        assert set(replies) <= {(200, ""), refusal}
        live_until(live, lambda: live.ask("POST", "/v1/caption", jpeg)[0] == 200)
