"""The record: there after anything, one process's alone, and true to what it was told."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from captioner.batch.record import DONE, FAILED, FAILED_BEFORE, KEPT, Record
from captioner.batch.rows import Entry, Line, to_line
from captioner.errors import CaptionerError, OptionError


def good(image: str, text: str = "a dog", *, digest: bytes | None = None, position: int | None = None) -> Entry:
    row = {"image": image, "model": "tiny", "captions": [{"text": text}]}
    return Entry(image, (Line(to_line(row), "tiny", digest),), position)


def bad(image: str, why: str = "broken", position: int | None = None) -> Entry:
    return Entry(image, (Line(to_line({"image": image, "error": why, "code": "image_broken"})),), position)


def images(record: Record) -> list[str]:
    return [json.loads(line)["image"] for line in record.lines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.progress"


def test_what_is_committed_is_there_when_it_is_opened_again(path: Path) -> None:
    with Record(path) as record:
        assert not record.begun
        record.begin({"a": 1}, afresh=True)
        record.commit([good("b.jpg"), bad("a.jpg")])
        assert record.find("c.jpg") is None
    with Record(path) as record:
        assert record.begun
        assert record.find("b.jpg") == (1, DONE)
        assert record.find("a.jpg") == (2, FAILED)
        assert images(record) == ["b.jpg", "a.jpg"]
        assert record.counts() == {DONE: 1, FAILED: 1}


def test_nothing_is_there_of_a_beginning_that_failed(path: Path) -> None:
    def kept() -> object:
        yield good("a.jpg"), DONE
        raise OptionError("no")

    with Record(path) as record, pytest.raises(OptionError):
        record.begin({}, kept(), afresh=True)  # type: ignore[arg-type]
    with Record(path) as record:
        assert not record.begun
        assert images(record) == []


def test_names_are_bytes(path: Path) -> None:
    odd = ["caf\udce9.jpg", 'tab\t"quote".jpg', "line\n.jpg", "日本.jpg"]
    with Record(path) as record:
        record.begin({}, afresh=True)
        record.commit([good(name) for name in odd])
        assert images(record) == odd
        assert [record.find(name) for name in odd] == [(number, DONE) for number in range(1, 5)]
        assert record.find("caf\\udce9.jpg") is None


def test_the_same_pixels_are_known_for_the_same_model(path: Path) -> None:
    with Record(path) as record:
        record.begin({}, afresh=True)
        record.commit([good("a.jpg", "a cat", digest=b"1"), good("b.jpg", "a dog")])
        assert record.captions(b"1", "tiny") == [{"text": "a cat"}]
        assert record.captions(b"1", "other") is None
        assert record.captions(b"2", "tiny") is None


def test_what_was_begun_keeps_its_place(path: Path) -> None:
    with Record(path) as record:
        record.begin({}, afresh=True)
        positions = record.mark([("a.jpg", None), ("b.jpg", None)])
        assert record.find("b.jpg") == (positions[1], "begun")
        record.commit([good("c.jpg")])
        record.commit([good("b.jpg", position=positions[1]), good("a.jpg", position=positions[0])])
        assert images(record) == ["a.jpg", "b.jpg", "c.jpg"]
        assert record.counts() == {DONE: 3}


def test_what_failed_is_replaced_where_it_stands(path: Path) -> None:
    with Record(path) as record:
        record.begin({}, afresh=True)
        record.commit([bad("a.jpg"), good("b.jpg"), bad("c.jpg"), bad("a.jpg")])
        position, status = record.find("a.jpg") or (0, "")
        assert (position, status) == (1, FAILED)
        record.commit([good("a.jpg", position=position)])
        assert images(record) == ["a.jpg", "b.jpg", "c.jpg"]
        assert record.counts() == {DONE: 2, FAILED: 1}
        assert [row["image"] for row in record.failures(5)] == ["c.jpg"]


def test_what_failed_is_found_before_what_did_not(path: Path) -> None:
    with Record(path) as record:
        record.begin({}, [(good("a.jpg"), DONE), (bad("a.jpg"), FAILED)], afresh=True)
        assert record.find("a.jpg") == (2, FAILED)


def test_what_was_kept_is_there_and_yet_unknown(path: Path) -> None:
    with Record(path) as record:
        record.begin({}, [(good("a.jpg"), KEPT)], afresh=True)
        assert record.find("a.jpg") is None
        record.commit([good("a.jpg", "a cat")])
        assert images(record) == ["a.jpg", "a.jpg"]


def test_other_settings_are_told(path: Path) -> None:
    with Record(path) as record:
        record.begin({"--prefix": "", "--beam-size": 3, "--model": ["a"]}, afresh=True)
        record.check({"--prefix": "", "--beam-size": 3, "--model": ("a",)})
        with pytest.raises(OptionError) as caught:
            record.check({"--prefix": "x", "--beam-size": 3, "--model": ["a"], "--suffix": None})
        assert '--prefix was "", not "x".' in str(caught.value)
        assert str(path) in str(caught.value)


def test_a_finished_run_is_remembered_by_what_failed(path: Path) -> None:
    with Record(path) as record:
        record.begin({"a": 1}, afresh=True)
        record.commit([good("a.jpg"), bad("b.jpg")])
        record.finish()
    with Record(path) as record:
        assert not record.begun
        record.begin({"a": 2}, afresh=False)
        assert record.begun
        assert record.find("a.jpg") is None
        assert record.find("b.jpg") == (2, FAILED_BEFORE)
        assert record.counts() == {FAILED_BEFORE: 1}
        record.fail_again(2)
        assert record.find("b.jpg") == (2, FAILED)
        assert images(record) == ["b.jpg"]
        record.begin({"a": 2}, afresh=True)
        assert images(record) == []


def test_nothing_stays_of_a_record_that_is_removed(path: Path) -> None:
    with Record(path) as record:
        record.begin({}, afresh=True)
        record.remove()
    assert list(path.parent.iterdir()) == []


def test_a_second_run_is_told_to_wait(path: Path) -> None:
    code = "import sys; from pathlib import Path; from captioner.batch.record import Record; Record(Path(sys.argv[1]))"
    with Record(path):
        done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
        assert "another run is writing the same output" in done.stderr
    assert subprocess.run([sys.executable, "-c", code, path], check=False).returncode == 0


def test_something_else_is_left_alone(path: Path) -> None:
    path.write_bytes(b"Dear Sir or Madam,\n" * 100)
    with pytest.raises(CaptionerError, match="is no record of captioner batch"):
        Record(path)
    assert path.read_bytes().startswith(b"Dear")
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE accounts (name TEXT)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(CaptionerError, match="is no record of this version"):
        Record(path)
    assert path.read_bytes() == before


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(CaptionerError, match=r"cannot be made: name another output"):
        Record(tmp_path / "nowhere" / "out.progress")


def test_rows_are_lines_of_utf_8_whatever_the_name() -> None:
    line = to_line({"image": "caf\udce9\n.jpg", "error": "日本"})
    assert "\n" not in line
    assert "日本" in line
    assert json.loads(line.encode())["image"] == "caf\udce9\n.jpg"
