"""Replies to clients that read as they like."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

import pytest

from service import outbox
from service.outbox import MAX_UNSENT, Outbox


@pytest.fixture
def pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return ours, theirs


def test_what_is_not_taken_at_once_waits_in_order(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    with ours, theirs:
        box, data = Outbox(ours), bytes(range(256)) * 500
        box.sendall(data[:100_000])
        assert 0 < len(box) < 100_000
        assert box.send(data[100_000:]) == len(data) - 100_000
        received = b""
        while len(received) < len(data):
            received += theirs.recv(10_000)
            box.flush()
        assert received == data
        assert not box


def test_far_ahead_of_the_client_the_writer_waits(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    with ours, theirs:
        data = bytes(5 * MAX_UNSENT)
        received: list[int] = []

        def read() -> None:
            while sum(received) < len(data) - MAX_UNSENT:
                received.append(len(theirs.recv(2**16)))

        reader = threading.Thread(target=read)
        reader.start()
        box = Outbox(ours)
        box.sendall(data)
        assert len(box) <= MAX_UNSENT
        while box:
            box.flush()
            if not reader.is_alive():
                with suppress(BlockingIOError):  # all that was sent the reader may have had
                    theirs.recv(2**16, socket.MSG_DONTWAIT)
        reader.join()


def test_but_not_for_ever(pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "SEND_SECONDS", 0.01)
    ours, theirs = pair
    with ours, theirs, pytest.raises(TimeoutError, match="too long"):
        Outbox(ours).sendall(bytes(2 * MAX_UNSENT))


def test_a_client_that_has_gone_is_an_error(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.close()
    with ours, pytest.raises(OSError, match="pipe"):
        Outbox(ours).sendall(b"hello")
