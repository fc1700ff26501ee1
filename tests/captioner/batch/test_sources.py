"""Files, folders and links: all that should be found, in one order, and nothing else."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from planted import feed, names, needs_odd_names, plant, refusal

from captioner.batch import pictures
from captioner.batch.pictures import SUFFIXES
from captioner.batch.sources import Picture, count, find
from captioner.errors import OptionError
from captioner.heif import FORMAT
from captioner.images import REFUSED_FORMATS


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@contextmanager
def closed(path: str) -> Iterator[None]:
    """Nobody may read this; the test is left out where it may be read nevertheless, as by the superuser."""
    Path(path).chmod(0)
    try:
        if os.access(path, os.R_OK):
            pytest.skip("nothing is closed to this user")
        yield
    finally:
        Path(path).chmod(0o700)


# Files and folders


def test_a_picture_has_its_name_its_path_and_its_bytes() -> None:
    plant("photos/a.jpg")
    (picture,) = find(["photos"])
    assert (picture.name, picture.path, picture.read()) == ("photos/a.jpg", Path("photos/a.jpg"), b"photos/a.jpg")


def test_a_folder_comes_by_name_and_its_files_before_its_folders() -> None:
    plant("p/b.jpg", "p/a.jpg", "p/B.jpg", "p/10.jpg", "p/9.jpg", "p/a/z.jpg", "p/0/y.jpg", "p/0/1/x.jpg")
    files = ["p/10.jpg", "p/9.jpg", "p/B.jpg", "p/a.jpg", "p/b.jpg"]
    assert names("p") == files
    assert names("p", recursive=True) == [*files, "p/0/y.jpg", "p/0/1/x.jpg", "p/a/z.jpg"]


@pytest.mark.parametrize(
    ("given", "expected"), [("p", "p/a.jpg"), ("p/", "p/a.jpg"), ("./p", "./p/a.jpg"), ("p/../p", "p/../p/a.jpg")]
)
def test_a_name_begins_as_the_folder_was_given(given: str, expected: str) -> None:
    plant("p/a.jpg")
    assert names(given) == [expected]


def test_of_a_folder_only_pictures_are_taken() -> None:
    plant(*(f"p/{number:02}{suffix}" for number, suffix in enumerate(sorted(SUFFIXES))))
    plant("p/a.txt", "p/a.jpg.xmp", "p/a.jpg.txt", "p/jpg", "p/a.mp4", "p/a.tar", "p/a.pdf", "p/rows.jsonl")
    assert len(names("p")) == len(SUFFIXES)
    plant("q/a.JPG", "q/b.HeIc")
    assert names("q") == ["q/a.JPG", "q/b.HeIc"]


def test_every_suffix_is_of_a_format_that_is_read() -> None:
    Image.init()
    known = Image.registered_extensions()
    formats = {suffix: known.get(suffix, FORMAT if suffix[:4] in (".hei", ".hif") else "") for suffix in SUFFIXES}
    readable = {*Image.OPEN, FORMAT, "MPO"} - REFUSED_FORMATS  # MPO is read as JPEG
    assert not {suffix: format_ for suffix, format_ in formats.items() if format_ not in readable}


def test_what_is_hidden_is_passed_over() -> None:
    plant("p/.a.jpg", "p/._b.jpg", "p/.b.jpg.x1y2.partial", "p/.hidden/c.jpg", "p/__MACOSX/d.jpg", "p/@eaDir/e.jpg")
    plant("p/$RECYCLE.BIN/f.jpg", "p/lost+found/g.jpg", "p/Thumbs.db", "p/seen.jpg")
    assert names("p", recursive=True) == ["p/seen.jpg"]
    assert names("p/.hidden", "p/.a.jpg") == ["p/.hidden/c.jpg", "p/.a.jpg"]  # who names it wants it


def test_a_file_that_is_named_is_taken_whatever_its_name() -> None:
    plant("notes.txt", "picture", ".hidden.jpg")
    assert names("notes.txt", "picture", ".hidden.jpg") == ["notes.txt", "picture", ".hidden.jpg"]


def test_inputs_come_in_their_order_and_no_name_twice(caplog: pytest.LogCaptureFixture) -> None:
    plant("p/a.jpg", "p/b.jpg", "q/c.jpg")
    with caplog.at_level(logging.WARNING):
        assert names("q", "p/b.jpg", "p", "q/c.jpg") == ["q/c.jpg", "p/b.jpg", "p/a.jpg"]
    assert [record.getMessage() for record in caplog.records] == [
        "p/b.jpg comes more than once: of pictures with equal names the first is taken"
    ]


@needs_odd_names
def test_names_that_are_not_unicode_survive() -> None:
    odd = os.fsdecode(b"p/caf\xe9.jpg")
    plant(odd, "p/\u5bb6.jpg", "p/new\nline.jpg")
    found = {picture.name: picture.read() for picture in find(["p", odd])}
    assert found == {
        odd: b"p/caf\xe9.jpg",
        "p/\u5bb6.jpg": "p/\u5bb6.jpg".encode(),
        "p/new\nline.jpg": b"p/new\nline.jpg",
    }


def test_what_is_not_there_is_told_at_once_or_by_its_picture() -> None:
    missing, shard = find(["gone.jpg", "gone.tar"])
    assert (missing.name, missing.path, refusal(missing).code) == ("gone.jpg", Path("gone.jpg"), "image_not_found")
    assert (shard.name, shard.path, refusal(shard).code) == ("gone.tar", None, "image_not_found")
    for folder in ("gone", "gone/", "a\0b", "gone.jpg/"):
        with pytest.raises(OptionError, match="there is no file or folder"):
            find([folder])
    with pytest.raises(OptionError, match="empty"):
        find([""])
    with pytest.raises(OptionError, match="not a single one"):
        find("photos")


def test_a_file_that_goes_in_between_ends_nothing() -> None:
    plant("picture", "p/a.jpg", "z.jpg")
    found = find(["p", "picture", "z.jpg"])
    assert next(found).name == "p/a.jpg"
    Path("picture").unlink()
    gone, last = found
    assert (gone.name, refusal(gone).code) == ("picture", "image_not_found")
    assert last.read() == b"z.jpg"


def test_a_file_with_too_many_bytes_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def extend(path: str, size: int) -> Picture:
        with Path(path).open("wb") as file:
            file.truncate(size)  # takes no room
        (picture,) = find([path])
        return picture

    picture = extend("more.jpg", pictures.MAX_BYTES + 1)
    tracemalloc.start()
    assert refusal(picture).code == "image_too_large"
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000
    monkeypatch.setattr(pictures, "MAX_BYTES", 3_000_000)
    assert len(extend("most.jpg", 3_000_000).read()) == 3_000_000
    assert refusal(extend("more.jpg", 3_000_001)).code == "image_too_large"


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="nothing is here that opens but does not read")
def test_what_opens_but_does_not_read_says_so() -> None:
    Path("a.jpg").symlink_to("/proc/self/mem")
    (picture,) = find(["a.jpg"])
    assert refusal(picture).code == "image_unreadable"
    assert "a.jpg cannot be read: Input/output error" in str(refusal(picture))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_a_pipe_is_passed_over_unless_it_is_named() -> None:
    Path("p").mkdir()
    os.mkfifo("p/a.jpg")
    Path("p/b.jpg").symlink_to("a.jpg")
    assert names("p") == []
    (picture,) = find(["p/a.jpg"])
    writer = threading.Thread(target=Path("p/a.jpg").write_bytes, args=(b"bytes",))
    writer.start()
    assert picture.read() == b"bytes"
    writer.join()


# Links


def test_links_are_followed_and_circles_end() -> None:
    plant("p/a/x.jpg", "elsewhere/y.jpg", "elsewhere/deep/z.jpg")
    Path("p/a/link.jpg").symlink_to("../../elsewhere/y.jpg")
    Path("p/a/up").symlink_to("..")
    Path("p/self").symlink_to(".")
    Path("p/out").symlink_to("../elsewhere")
    Path("elsewhere/back").symlink_to("../p")
    Path("p/turning").symlink_to("turning")  # is_dir() of this raises
    expected = ["p/a/link.jpg", "p/a/x.jpg", "p/out/y.jpg", "p/out/deep/z.jpg"]
    assert names("p", recursive=True) == expected
    assert names("p/**/*.jpg") == expected
    assert names("p/a") == ["p/a/link.jpg", "p/a/x.jpg"]


def test_a_folder_with_two_names_is_walked_once() -> None:
    plant("p/real/x.jpg")
    Path("p/alias").symlink_to("real")
    assert names("p", recursive=True) == ["p/alias/x.jpg"]


def test_a_link_to_nothing_is_told_when_it_is_read() -> None:
    Path("p").mkdir()
    Path("p/a.jpg").symlink_to("gone.jpg")
    Path("p/circle.jpg").symlink_to("circle.jpg")
    lost, circle = find(["p"])
    assert (lost.name, refusal(lost).code) == ("p/a.jpg", "image_not_found")
    assert (circle.name, refusal(circle).code) == ("p/circle.jpg", "image_unreadable")
    assert names("p/a.jpg") == ["p/a.jpg"]


def test_folders_may_lie_deeper_than_python_calls() -> None:
    folders = [Path("p", *["d"] * depth) for depth in range(1100)]
    for folder in folders:
        folder.mkdir()
    plant("p/a.jpg", str(folders[-1] / "b.jpg"))
    expected = ["p/a.jpg", str(folders[-1] / "b.jpg")]
    assert names("p", recursive=True) == expected
    assert names("p/**/*.jpg") == expected
    for path in map(Path, expected):
        path.unlink()
    for folder in reversed(folders):  # not all that clears up can go as deep
        folder.rmdir()


# What may not be read


def test_a_closed_folder_is_one_picture_that_cannot_be_read() -> None:
    plant("p/a/x.jpg", "p/b/y.jpg", "p/c/z.jpg")
    with closed("p/b"):
        for given, recursive in (("p", True), ("p/*/*.jpg", False), ("p/**", False)):
            first, middle, last = find([given], recursive=recursive)
            assert (first.name, middle.name, last.name) == ("p/a/x.jpg", "p/b", "p/c/z.jpg")
            assert middle.path is None
            assert "Permission denied" in str(refusal(middle))
        (alone,) = find(["p/b"])
        assert refusal(alone).code == "image_unreadable"
        (inside,) = find(["p/b/anything"])
        assert "Permission denied" in str(refusal(inside))


def test_a_closed_file_says_so() -> None:
    plant("p/a.jpg")
    with closed("p/a.jpg"):
        (picture,) = find(["p"])
        assert "Permission denied" in str(refusal(picture))


# How many


def test_what_is_near_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    plant("p/a.jpg", "p/b.jpg", "p/deep/c.jpg", "p/x.txt", "d.jpg")
    with tarfile.open("s.tar", "w") as archive:
        archive.add("p/a.jpg", "x.jpg")
        archive.add("p/b.jpg", "y.jpg")
    Path("list").write_text("p/a.jpg\nd.jpg\ngone.jpg\n", encoding="utf-8")
    assert count(["p"]) == 2
    assert count(["p"], recursive=True) == 3
    assert count(["p/**/*.jpg", "d.jpg", "s.tar"], lists=["list"]) == 7
    assert count([]) == 0
    with tarfile.open("s.tar.gz", "w:gz") as archive:
        archive.add("p/a.jpg", "x.jpg")
    for far in ("s.tar.gz", "s*", "http://127.0.0.1:1/a.jpg", "memory://p", "-"):
        assert count(["p", far]) is None
    feed(monkeypatch, b"p/a.jpg\n")
    assert count([], lists=["-"]) is None
    assert names(lists=["-"]) == ["p/a.jpg"]  # it was not read
    with pytest.raises(OptionError, match="there is no file or folder"):
        count(["gone"])


# Everything, whatever it is called


BYTES = st.binary(min_size=1, max_size=5).map(lambda part: part.translate(None, b"/\0"))
PATHS = st.lists(BYTES.filter(lambda part: part not in (b"", b".", b"..")), min_size=1, max_size=3).map(b"/".join)


@needs_odd_names
@given(st.sets(PATHS.map(lambda path: path + b".jpg"), max_size=8))
def test_a_folder_is_found_as_a_whole_in_one_order(files: set[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for file in files:
            path = os.path.join(os.fsencode(folder), file)  # noqa: PTH118
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
                with open(path, "xb") as opened:  # noqa: PTH123
                    opened.write(file)
            except OSError:  # a folder is where this file should be, or the other way round
                pass
        expected = []
        for parent, folders, inside in os.walk(folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            expected += [
                os.path.join(parent, name)  # noqa: PTH118
                for name in sorted(inside)
                if not name.startswith(".") and os.path.splitext(name)[1] == ".jpg"  # noqa: PTH122
            ]
        found = list(find([folder], recursive=True))
        assert [picture.name for picture in found] == expected
        for picture in found:
            assert os.fsencode(picture.name).endswith(picture.read())
        assert count([folder], recursive=True) == len(found)


MEMORY = """
import tracemalloc
from captioner.batch.sources import find
assert sum(1 for _ in find(["p"])) == 20_000  # Python's own tables of names grow, this once
found = find(["p"])
tracemalloc.start()
next(found)
names_alone, _ = tracemalloc.get_traced_memory()
left = sum(1 for _ in found)
print(left, names_alone, tracemalloc.get_traced_memory()[0])
"""


def test_a_large_folder_takes_little_memory() -> None:
    Path("p").mkdir()
    for number in range(20_000):
        os.close(os.open(f"p/{number:06}.jpg", os.O_CREAT))
    # In a process of its own: what other tests have left may be moved about meanwhile.
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    left, names_alone, in_the_end = map(int, done.stdout.split())
    assert left == 20_000 - 1
    assert in_the_end < names_alone < 20_000 * 100
