"""Lists of pictures, in a file or on standard input."""

from __future__ import annotations

import io
import os
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from planted import Input, feed, names, needs_odd_names, plant, refusal

from captioner.batch.sources import find
from captioner.errors import OptionError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        b"p/a.jpg\np/b c.jpg\n",
        b"p/a.jpg\np/b c.jpg",
        b"\xef\xbb\xbfp/a.jpg\r\n\r\np/b c.jpg\r\n",
        b"\n\np/a.jpg\n\np/b c.jpg\n\n",
        b"p/a.jpg\0p/b c.jpg\0",
        b"p/a.jpg\0p/b c.jpg",
        b"\xef\xbb\xbfp/a.jpg\0\0p/b c.jpg",
    ],
)
def test_a_list_has_a_path_a_line_or_before_each_null(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    plant("p/a.jpg", "p/b c.jpg", "first.jpg")
    Path("list.txt").write_bytes(text)
    assert names(lists=["list.txt"]) == ["p/a.jpg", "p/b c.jpg"]
    feed(monkeypatch, text)
    assert names("first.jpg", lists=["-"]) == ["first.jpg", "p/a.jpg", "p/b c.jpg"]
    feed(monkeypatch, text)
    assert names("-", "first.jpg") == ["p/a.jpg", "p/b c.jpg", "first.jpg"]
    feed(monkeypatch, *(text[at : at + 3] for at in range(0, len(text), 3)))
    if b"\0" not in text[3:]:
        assert names("-") == ["p/a.jpg", "p/b c.jpg"]


@needs_odd_names
def test_a_list_of_nulls_may_hold_any_name() -> None:
    odd = [os.fsdecode(b"p/caf\xe9.jpg"), "p/new\nline.jpg", "p/ends\r.jpg", "p/*.jpg", " .jpg"]
    plant(*odd)
    Path("list").write_bytes(b"\0".join(map(os.fsencode, odd)))
    assert names(lists=["list"]) == odd
    assert [picture.read() for picture in find([], lists=["list"])] == [os.fsencode(name) for name in odd]


def test_an_entry_is_taken_as_it_is_and_a_missing_one_ends_nothing() -> None:
    plant("p/a.jpg", "p/deep/b.jpg", "notes")
    with tarfile.open("s.tar", "w") as archive:
        archive.add("p/a.jpg", "x.jpg")
    Path("list").write_text("p\ngone\np/*.jpg\nunheard-of://x/y.jpg\nnotes\ns.tar\n", encoding="utf-8")
    found = list(find([], recursive=True, lists=["list"]))
    assert [picture.name for picture in found] == [
        "p/a.jpg", "p/deep/b.jpg", "gone", "p/*.jpg", "unheard-of://x/y.jpg", "notes", "s.tar/x.jpg",
    ]  # fmt: skip
    assert [refusal(picture).code for picture in found[2:5]] == ["image_not_found"] * 3


def test_a_list_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"a.jpg\nb.j"
        pytest.fail("more was read than was asked for")

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Input()))
    monkeypatch.setattr(sys.stdin.buffer, "_pieces", pieces())
    assert next(find(["-"])).name == "a.jpg"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_a_pipe_is_opened_once() -> None:
    os.mkfifo("pipe")
    closed_early = []

    def write() -> None:
        try:
            with Path("pipe").open("w", encoding="utf-8", buffering=1) as pipe:
                time.sleep(0.1)  # so that whoever opens it only to look has closed it again
                pipe.write("a.jpg\nb.jpg\n")
        except BrokenPipeError as error:
            closed_early.append(error)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    found = find([], lists=["pipe"])
    time.sleep(0.2)
    assert [picture.name for picture in found] == ["a.jpg", "b.jpg"]
    writer.join()
    assert not closed_early


def test_what_is_no_list_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for opened in ("gone", "."):
        with pytest.raises(OptionError, match="the list cannot be read"):
            find([], lists=[opened])
    for inputs, lists in ((["-"], ["-"]), (["-", "-"], []), ([], ["-", "-"])):
        with pytest.raises(OptionError, match="only once"):
            find(inputs, lists=lists)
    Path("list").write_bytes("a.jpg\n".encode("utf-16"))
    with pytest.raises(OptionError, match="UTF-16"):
        names(lists=["list"])
    for text in (b"a.jpg\n" + b"x" * 200_000, b"a.jpg\n" + b"b.jpg\n" * 20_000 + b"\0"):
        Path("list").write_bytes(text)
        with pytest.raises(OptionError, match="no list of paths"):
            names(lists=["list"])
