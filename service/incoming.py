"""One request as it comes in, piece by piece: has all of it come?

The server hands a request on when it is whole, so that a client as slow as it likes holds a few bytes of memory and
no thread. This looks only for a request's end (RFC 9112, sections 6 and 7.1) and leaves all else to gunicorn's parser,
which reads the same bytes again. What looks irregular ends the request at once: the parser then says what is wrong with
it, and the connection is closed after the reply, because nobody knows where a next request would begin.
"""

from __future__ import annotations

import math
import re

HEAD_END = b"\r\n\r\n"
MAX_HEAD = 32 * 1024  # bytes
MAX_CHUNK_LINE = 256  # bytes, extensions included
# One way to match, however many spaces a stranger puts anywhere: the value is stripped later.
FRAMING = re.compile(rb"\r\n(content-length|transfer-encoding|expect)[ \t]*:([^\r\n]*)(?=\r\n)", re.IGNORECASE)


class Incoming:
    """Gathers the bytes of one request.

    Args:
        max_body: bytes of a body that are worth waiting for; a longer one is answered by its head alone.

    Attributes:
        whole: the request is here, or as much of it as is wanted.
        has_head: its head is here.
        expects: the client waits to be told ``100 Continue``.
        too_large: the head, or a body that does not tell its length, is over the limit.
    """

    def __init__(self, max_body: int) -> None:
        self._max_body = max_body
        self._data = bytearray()
        self._end = 0  # of what is known to belong to the request
        self._chunked = False
        self._cut = False
        self.whole = self.has_head = self.expects = False
        self.too_large: str | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes, however many."""
        searched = max(0, len(self._data) - len(HEAD_END) + 1)
        self._data += data
        if not self.has_head:
            end = self._data.find(HEAD_END, searched)
            if (end if end >= 0 else len(self._data)) > MAX_HEAD:
                self.too_large = "head"
            elif end >= 0:
                self._end = end + len(HEAD_END)
                self._read_head(bytes(self._data[: end + 2]))
        if self._chunked and not self.whole:
            self._read_chunks()
        elif self.has_head:
            self.whole = self.whole or len(self._data) >= self._end

    def take(self) -> tuple[bytes, bytes]:
        """The request for the parser, and what came after it: the beginning of the next one. Nothing stays here."""
        data, self._data = self._data, bytearray()
        end = len(data) if self._cut else self._end
        head_end = data.index(HEAD_END)
        head = bytes(data[: head_end + 2])
        # Expect is answered here, if at all: the parser would do it once more.
        head = FRAMING.sub(lambda field: b"" if field[1].lower() == b"expect" else field[0], head)[:-2]
        if self._cut:
            line, _, fields = head.partition(b"\r\n")
            head = line + b"\r\nConnection: close\r\n" + fields
        with memoryview(data) as view:  # bodies are large, and every copy counts
            return b"".join((head, view[head_end:end])), bytes(view[end:])

    def _read_head(self, head: bytes) -> None:
        self.has_head = True
        fields = [(name.lower(), value.strip(b" \t")) for name, value in FRAMING.findall(head)]
        lengths = [value for name, value in fields if name == b"content-length"]
        codings = [value.lower() for name, value in fields if name == b"transfer-encoding"]
        self.expects = any(name == b"expect" and value.lower() == b"100-continue" for name, value in fields)
        if codings == [b"chunked"] and not lengths:
            self._chunked = True
        elif codings or len(lengths) > 1:
            self._stop()
        elif lengths:
            length = int(lengths[0]) if re.fullmatch(rb"[0-9]{1,18}", lengths[0]) else math.inf
            if length > self._max_body:
                self._stop()
            else:
                self._end += int(length)

    def _stop(self) -> None:
        self.whole = self._cut = True
        self.expects = False

    def _read_chunks(self) -> None:
        """Move the end behind each chunk that has come, and behind the trailer that follows the last."""
        while (line_end := self._data.find(b"\r\n", self._end, self._end + MAX_CHUNK_LINE)) >= 0:
            size = bytes(self._data[self._end : line_end]).partition(b";")[0].strip()
            behind = self._data[self._end - 2 : self._end]  # the head, or a chunk
            if behind != b"\r\n" or not re.fullmatch(rb"[0-9a-fA-F]{1,16}", size):
                return self._stop()
            if int(size, 16) == 0:
                return self._read_trailer(line_end)
            self._end = line_end + 2 + int(size, 16) + 2
        if len(self._data) - self._end >= MAX_CHUNK_LINE:
            self._stop()
        elif max(self._end, len(self._data)) > 2 * self._max_body + MAX_HEAD:  # twice: for what frames the chunks
            self.too_large = "body"
        return None

    def _read_trailer(self, line_end: int) -> None:
        end = self._data.find(HEAD_END, line_end)
        if end >= 0:
            self._end, self.whole = end + len(HEAD_END), True
        elif len(self._data) - line_end > MAX_HEAD:
            self._stop()
