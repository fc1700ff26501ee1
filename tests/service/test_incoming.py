"""Where a request ends, however it comes in pieces, and whatever nonsense it holds."""

from __future__ import annotations

import itertools
import time
import tracemalloc

import pytest
from gunicorn.config import Config
from gunicorn.http import get_parser
from gunicorn.http.errors import ParseException
from hypothesis import given
from hypothesis import strategies as st

from service.incoming import MAX_HEAD, Incoming

LIMIT = 1000
GET = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\ncontent-length : 5\r\n\r\nhello".replace(b" :", b":")
EMPTY = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
CHUNKED = (
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\nA;name=value\r\n0\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n"
)
TRAILED = CHUNKED[:-2] + b"X-Sum: 1\r\nX-Other: 2\r\n\r\n"
REQUESTS = {"get": GET, "post": POST, "empty": EMPTY, "chunked": CHUNKED, "trailed": TRAILED}


def feed(data: bytes, cuts: list[int] | None = None) -> Incoming:
    incoming = Incoming(LIMIT)
    places = sorted({cut % len(data) for cut in cuts or []} | {0, len(data)})
    for start, end in itertools.pairwise(places):
        incoming.feed(data[start:end])
    return incoming


@pytest.mark.parametrize("request_bytes", REQUESTS.values(), ids=REQUESTS)
@given(cuts=st.lists(st.integers(0, 300), max_size=12))
def test_a_request_is_whole_exactly_at_its_end(request_bytes: bytes, cuts: list[int]) -> None:
    whole = feed(request_bytes, cuts)
    assert whole.whole
    assert whole.take() == (request_bytes, b"")
    short = feed(request_bytes[:-1], cuts)
    assert not short.whole
    assert short.too_large is None


@pytest.mark.parametrize("request_bytes", REQUESTS.values(), ids=REQUESTS)
@given(cuts=st.lists(st.integers(0, 300), max_size=12), following=st.sampled_from([GET, POST, CHUNKED, b"x"]))
def test_what_follows_is_kept_for_the_next_one(request_bytes: bytes, cuts: list[int], following: bytes) -> None:
    assert feed(request_bytes + following, cuts).take() == (request_bytes, following)


@pytest.mark.parametrize("request_bytes", REQUESTS.values(), ids=REQUESTS)
def test_the_parser_agrees(request_bytes: bytes) -> None:
    data, _ = feed(request_bytes + GET).take()
    message = next(get_parser(Config(), iter((data,)), ("127.0.0.1", 1)))
    body = {POST: b"hello", CHUNKED: b"hello0\r\n\r\n0\r\n\r\n"[:15], TRAILED: b"hello0\r\n\r\n0\r\n\r\n"[:15]}
    assert message.body.read() == body.get(request_bytes, b"")
    assert not message.should_close()


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 5 5\r\n",
        b"Content-Length: \xb2\r\n",
        b"Content-Length: " + b"9" * 100 + b"\r\n",
        b"Content-Length: 1001\r\n",
    ],
)
def test_what_is_irregular_or_too_long_is_not_waited_for(fields: bytes) -> None:
    incoming = feed(b"POST / HTTP/1.1\r\nHost: a\r\n" + fields + b"Connection: keep-alive\r\n\r\nhello" + GET)
    assert incoming.whole
    data, rest = incoming.take()
    assert rest == b"", "nobody knows where the next request would begin"
    try:
        message = next(get_parser(Config(), iter((data,)), ("127.0.0.1", 1)))
    except ParseException:
        return
    assert message.should_close()


@pytest.mark.parametrize("line", [b"zz\r\n", b"-5\r\n", b"0x5\r\n", b"\r\n", b"5" * 20 + b"\r\n", b"5;" + b"a" * 300])
def test_malformed_chunks_are_not_waited_for(line: bytes) -> None:
    incoming = feed(CHUNKED[: CHUNKED.index(b"A;")] + line)
    assert incoming.whole
    assert b"Connection: close" in incoming.take()[0]


def test_a_chunk_that_is_longer_than_it_says_ends_the_request() -> None:
    incoming = feed(CHUNKED.replace(b"hello\r\n", b"hello!!"))
    data, rest = incoming.take()
    assert b"Connection: close" in data
    assert rest == b"", "nobody knows where the next request would begin"


@pytest.mark.parametrize("field", [b"Content-Length:%s\nx", b"Content-Length%s\nx", b"Expect: 1%s2%s\t\rx"])
def test_no_field_takes_long_to_read(field: bytes) -> None:
    started = time.monotonic()
    incoming = feed(b"GET / HTTP/1.1\r\n" + field.replace(b"%s", b" " * 1500) + b"\r\n\r\n")
    assert incoming.whole
    assert incoming.take()
    assert time.monotonic() - started < 0.5


def test_a_body_is_not_held_twice() -> None:
    incoming = Incoming(2_000_000)
    incoming.feed(b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000)
    tracemalloc.start()
    try:
        request, rest = incoming.take()
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(request), rest) == (1_000_044, b"")
    assert max(held, peak) < 1_100_000


def test_limits_hold_for_what_does_not_tell_its_length() -> None:
    head = CHUNKED[: CHUNKED.index(b"5\r\n")]
    claims = feed(head + b"FFFFFFFF\r\n")
    assert (claims.whole, claims.too_large) == (False, "body")
    comes = feed(head + b"1\r\nx\r\n" * (MAX_HEAD // 6 + 400))
    assert (comes.whole, comes.too_large) == (False, "body")
    trailer = feed(CHUNKED[:-2] + b"X: y\r\n" * (MAX_HEAD // 6 + 50))
    assert trailer.whole
    long = feed(b"GET / HTTP/1.1\r\nX: " + b"a" * MAX_HEAD)
    assert (long.whole, long.too_large) == (False, "head")


def test_expectations_are_told_and_taken_out() -> None:
    request_bytes = POST.replace(b"Host: a", b"EXPECT:  100-Continue \r\nHost: a")
    before = feed(request_bytes[:-5])
    assert (before.has_head, before.expects, before.whole) == (True, True, False)
    assert feed(request_bytes).take()[0] == POST
    hopeless = feed(request_bytes.replace(b": 5", b": 5000")[:-5])
    assert (hopeless.whole, hopeless.expects) == (True, False)
    assert b"expect" not in hopeless.take()[0].lower()


@given(data=st.binary(max_size=200), head=st.sampled_from([b"", GET[:-2], POST[:-7], CHUNKED[:-40]]))
def test_no_bytes_break_it(data: bytes, head: bytes) -> None:
    incoming = feed(head + data) if head + data else Incoming(LIMIT)
    if incoming.whole:
        taken, rest = incoming.take()
        assert taken
        assert len(rest) <= len(data)
