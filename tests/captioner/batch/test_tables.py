"""Tables: the same rows in each of them, and back again."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from captioner.batch.outputs.formats import TABLES, format_of
from captioner.batch.outputs.replacing import OutputError, sweep
from captioner.batch.outputs.tables import Table
from captioner.batch.rows import shown, to_line
from captioner.errors import DependencyError, OptionError

ODD = [
    "caf\udce9.jpg",
    'with "quotes", a comma\tand a tab.jpg',
    "two\nlines\r.jpg",
    "a\rb.jpg",
    "日本.jpg",
    "=1+1.jpg",
    " .jpg",
]


def caption(text: str, score: float = -0.5, **more: Any) -> dict[str, Any]:
    return {"text": text, "tokens": text.split(), "score": score, **more}


ROWS: list[dict[str, Any]] = [
    {"image": "a.jpg", "model": "words", "captions": [caption("a dog"), caption("a cat", -1.25)]},
    {"image": "a.jpg", "model": "phones", "captions": [caption("D AO1 G", words="dog")]},
    {"image": "b.jpg", "error": 'b.jpg is damaged, "incomplete"\nor both', "code": "image_broken"},
    *({"image": name, "model": "words", "captions": [caption("")]} for name in ODD),
    {"image": "c.jpg", "model": "words", "captions": [caption("a dog", -0.1234)]},
]


@pytest.fixture(params=TABLES)
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Table:
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
    return TABLES[request.param](tmp_path / f"out.{request.param}")


def write(table: Table, rows: Sequence[dict[str, Any]]) -> bytes:
    table.write(map(to_line, rows))
    return table.path.read_bytes()


def test_rows_come_back(table: Table) -> None:
    content = write(table, ROWS)
    found = [line.text for entry in table.entries() for line in entry.lines]
    assert [json.loads(line)["image"] for line in found] == [table.key(row["image"]) for row in ROWS]
    table.write(found)
    assert table.path.read_bytes() == content


def test_rows_of_a_picture_are_one_entry(table: Table) -> None:
    write(table, [*ROWS[:3], ROWS[0], ROWS[0]])
    found = [(entry.image, [line.model for line in entry.lines], entry.failed) for entry in table.entries()]
    pair, one = ["words", "phones"], ["words"]
    assert found == [("a.jpg", pair, False), ("b.jpg", [None], True), ("a.jpg", one, False), ("a.jpg", one, False)]


def test_a_table_of_nothing_is_one(table: Table) -> None:
    write(table, [])
    assert list(table.entries()) == []


def test_all_rows_are_there_however_many(table: Table) -> None:
    rows = [{"image": f"{number}.jpg", "model": "words", "captions": [caption("a dog")]} for number in range(25_000)]
    write(table, rows)
    assert [entry.image for entry in table.entries()] == [row["image"] for row in rows]


def test_something_else_is_no_table(table: Table) -> None:
    table.path.write_bytes(b"Dear Sir or Madam,\n\xff\xfe\n")
    with pytest.raises(OutputError, match="name another output"):
        list(table.entries())


def test_what_was_there_stays_where_writing_fails(table: Table) -> None:
    before = write(table, ROWS)

    def lines() -> Any:
        yield to_line(ROWS[0])
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left on device"):
        table.write(lines())
    assert table.path.read_bytes() == before
    assert [path.name for path in table.path.parent.iterdir()] == [table.path.name]


def test_a_table_keeps_its_rights_and_its_link(table: Table, tmp_path: Path) -> None:
    real = tmp_path / "elsewhere"
    real.touch(mode=0o640)
    table.path.symlink_to(real)
    write(table, ROWS)
    assert table.path.is_symlink()
    assert real.stat().st_size
    assert real.stat().st_mode & 0o777 == 0o640


def test_what_a_killed_run_left_is_swept_up(table: Table) -> None:
    name = table.path.name
    left, others = [f".{name}.0123abcd.partial"], [f".{name}.partial", f".x{name}.0123abcd.partial", f"{name}.partial"]
    for path in map(table.path.with_name, [*left, *others]):
        path.touch()
    write(table, ROWS)
    assert sorted(path.name for path in table.path.parent.iterdir()) == sorted([name, *others])


def test_it_is_swept_up_where_a_link_leads_to(table: Table, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    left = tmp_path / "there/.real.0123abcd.partial"
    left.touch()
    table.path.symlink_to(tmp_path / "there/real")
    write(table, ROWS)
    assert [path.name for path in left.parent.iterdir()] == ["real"]


def test_of_a_long_name_the_beginning_tells(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 125 + ".txt")
    left = tmp_path / f".{'é' * 118}.0123abcd.partial"
    other = tmp_path / f".{'é' * 100}.0123abcd.partial"
    left.touch()
    other.touch()
    sweep(path)
    assert [path.name for path in tmp_path.iterdir()] == [other.name]


def test_a_place_that_is_none_is_refused(table: Table, tmp_path: Path) -> None:
    table.check()
    with pytest.raises(OptionError, match="is no folder: make it first"):
        type(table)(tmp_path / "nowhere" / "out").check()
    with pytest.raises(OptionError, match="is a folder: name a file in it"):
        type(table)(tmp_path).check()
    with pytest.raises(OptionError, match="is no file"):
        type(table)(Path(os.devnull)).check()


# JSON Lines


def test_json_lines_stay_as_they_are(tmp_path: Path) -> None:
    table = TABLES["jsonl"](tmp_path / "out.jsonl")
    line = '{"mine": 1, "image":"a.jpg",   "model": "words", "captions": []}'
    table.path.write_text(f"{line}\n\n", encoding="utf-8")
    assert [line.text for entry in table.entries() for line in entry.lines] == [line]


@pytest.mark.parametrize("line", ["[]", "{}", '{"image": 1, "error": ""}', '{"image": "a"}', '{"image": "a', '"a"'])
def test_a_line_that_is_no_row_is_told_by_number(tmp_path: Path, line: str) -> None:
    table = TABLES["jsonl"](tmp_path / "out.jsonl")
    table.path.write_text(f"{to_line(ROWS[0])}\n{line}\n", encoding="utf-8")
    with pytest.raises(OutputError, match="line 2 of"):
        list(table.entries())


# CSV


def test_csv_has_a_line_for_each_caption(tmp_path: Path) -> None:
    table = TABLES["csv"](tmp_path / "out.csv")
    write(table, ROWS[:3])
    with table.path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    assert lines == [
        ["image", "model", "rank", "text", "score", "words", "error", "code"],
        ["a.jpg", "words", "1", "a dog", "-0.5", "", "", ""],
        ["a.jpg", "words", "2", "a cat", "-1.25", "", "", ""],
        ["a.jpg", "phones", "1", "D AO1 G", "-0.5", "dog", "", ""],
        ["b.jpg", "", "", "", "", "", ROWS[2]["error"], "image_broken"],
    ]


@pytest.mark.parametrize("line", ["a.jpg,words,1", "a.jpg,words,1,text,x,,,", "a.jpg,words,1,t,-1,,,,,", '"a.jpg'])
def test_a_line_that_is_no_caption_is_told(tmp_path: Path, line: str) -> None:
    table = TABLES["csv"](tmp_path / "out.csv")
    write(table, ROWS[:1])
    table.path.write_text(table.path.read_text(encoding="utf-8") + line, encoding="utf-8")
    with pytest.raises(OutputError):
        list(table.entries())


def test_another_table_is_none_of_ours(tmp_path: Path) -> None:
    table = TABLES["csv"](tmp_path / "out.csv")
    table.path.write_text("name,price\napple,1\n", encoding="utf-8")
    with pytest.raises(OutputError, match="has other columns"):
        list(table.entries())


# Parquet


def test_parquet_holds_what_json_lines_hold(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = TABLES["parquet"](tmp_path / "out.parquet")
    write(table, ROWS)
    found = parquet.read_table(table.path).to_pylist()
    assert [row["image"] for row in found] == [shown(row["image"]) for row in ROWS]
    assert [one["score"] for one in found[0]["captions"]] == [-0.5, -1.25]
    assert found[1]["captions"][0] == {**ROWS[1]["captions"][0]}
    assert (found[2]["model"], found[2]["captions"], found[2]["code"]) == (None, None, "image_broken")


def test_another_parquet_is_none_of_ours(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = TABLES["parquet"](tmp_path / "out.parquet")
    parquet.write_table(pyarrow.table({"name": ["apple"]}), table.path)
    with pytest.raises(OutputError, match="has other columns"):
        list(table.entries())


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr("captioner.batch.outputs.parquet_table.find_spec", lambda _: None)
    with pytest.raises(DependencyError, match=r"captioner\[parquet\]"):
        TABLES["parquet"](tmp_path / "out.parquet").check()


def test_a_name_tells_the_format() -> None:
    names = ["a.jsonl", "a.ndjson", "a.CSV", "b/a.parquet", "a.txt", "a"]
    assert [format_of(Path(name)) for name in names] == ["jsonl", "jsonl", "csv", "parquet", "jsonl", "jsonl"]
    assert format_of(None) == "jsonl"
