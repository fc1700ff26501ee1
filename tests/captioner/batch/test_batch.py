"""``captioner batch`` into tables: every picture once, what was there before, what failed."""

from __future__ import annotations

import csv
import io
import itertools
import json
import shutil
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import KILLED, main, picture, run, write_pictures

import captioner
from captioner.batch import shards
from captioner.batch.record import Record

Command = Callable[..., int]
Capture = pytest.CaptureFixture[str]


def rows(path: str | Path = "out.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def images(path: str | Path = "out.jsonl") -> list[str]:
    return [row["image"] for row in rows(path)]


def spoil(path: str | Path) -> None:
    Path(path).write_text("Dear Sir or Madam,\n" * 9, encoding="utf-8")


@pytest.fixture
def model(tiny_model_dir: Path) -> captioner.Captioner:
    return captioner.load(tiny_model_dir, device="cpu")


def test_rows_are_those_of_the_library(batch: Command, model: captioner.Captioner, capsys: Capture) -> None:
    write_pictures(Path("photos"), 10)
    assert batch("photos", "--output", "out.jsonl") == 0
    assert images() == [f"photos/{number:03}.jpg" for number in range(10)]
    expected = [result.to_row() for result in model.batch(images(), batch_size=4)]
    assert rows() == expected
    assert len({row["captions"][0]["text"] for row in expected}) > 3
    assert sorted(path.name for path in Path().iterdir()) == ["out.jsonl", "photos"]
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("captioner: 10 captioned, 0 failed; ")


def test_a_picture_that_fails_leaves_its_neighbours_alone(batch: Command, capsys: Capture) -> None:
    write_pictures(Path("photos"), 6)
    spoil("photos/002.jpg")
    assert batch("photos", "gone.jpg", "--output", "out.jsonl") == 1
    assert [row["image"] for row in rows() if "captions" in row] == [f"photos/{n:03}.jpg" for n in (0, 1, 3, 4, 5)]
    broken, gone = (row for row in rows() if "error" in row)
    assert broken == {
        "image": "photos/002.jpg",
        "error": "the image has no known image format; use JPEG, PNG, WebP or another common one",
        "code": "not_an_image",
    }
    assert (gone["image"], gone["code"]) == ("gone.jpg", "image_not_found")
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("captioner: photos/002.jpg: the image has no known image format")
    assert told[1].startswith("captioner: gone.jpg does not exist")
    assert told[2].startswith("captioner: 5 captioned, 2 failed")


@pytest.mark.skipif(sys.platform == "win32", reason="names have no control characters there")
def test_a_name_cannot_meddle_with_the_terminal(batch: Command, capsys: Capture) -> None:
    Path("photos").mkdir()
    spoil("photos/a\x1b[31m\n.jpg")
    assert batch("photos", "--output", "out.jsonl") == 1
    told = capsys.readouterr().err
    assert "photos/a\\x1b[31m\\n.jpg: the image" in told
    assert "\x1b" not in told
    assert images() == ["photos/a\x1b[31m\n.jpg"]


def test_what_is_there_is_kept_and_what_is_new_is_added(batch: Command, capsys: Capture) -> None:
    write_pictures(Path("photos"), 3)
    assert batch("photos", "--output", "out.jsonl") == 0
    before = Path("out.jsonl").read_bytes()
    write_pictures(Path("photos"), 2, first=3)
    write_pictures(Path("photos"), 1, first=9, ending=".JPG")  # sorts before the others' letters
    assert batch("photos", "--output", "out.jsonl") == 0
    assert Path("out.jsonl").read_bytes().startswith(before)
    assert len(rows()) == 6
    assert "3 captioned, 0 failed, 3 done before" in capsys.readouterr().err


def test_a_run_without_news_leaves_the_file_alone(batch: Command) -> None:
    write_pictures(Path("photos"), 3)
    batch("photos", "--output", "out.jsonl")
    before = Path("out.jsonl").stat()
    assert batch("photos", "--output", "out.jsonl") == 0
    assert Path("out.jsonl").stat() == before
    assert sorted(path.name for path in Path().iterdir()) == ["out.jsonl", "photos"]


def test_what_failed_is_tried_again_only_when_asked(batch: Command, capsys: Capture) -> None:
    write_pictures(Path("photos"), 5)
    good = Path("photos/001.jpg").read_bytes()
    spoil("photos/001.jpg")
    assert batch("photos", "--output", "out.jsonl") == 1
    Path("photos/001.jpg").write_bytes(good)
    capsys.readouterr()
    assert batch("photos", "--output", "out.jsonl") == 1
    told = capsys.readouterr().err
    assert "1 failed in an earlier run; --retry-failed tries again" in told
    assert "photos/001.jpg: the image has no known" in told
    assert batch("photos", "--output", "out.jsonl", "--retry-failed") == 0
    assert images() == [f"photos/{number:03}.jpg" for number in range(5)]
    assert not [row for row in rows() if "error" in row]
    once = rows()
    Path("out.jsonl").unlink()
    batch("photos", "--output", "out.jsonl")
    assert [row["captions"] for row in rows()] == [row["captions"] for row in once]


def test_overwriting_begins_anew(batch: Command) -> None:
    write_pictures(Path("photos"), 3)
    batch("photos", "--output", "out.jsonl")
    Path("photos/000.jpg").unlink()
    assert batch("photos", "--output", "out.jsonl", "--on-existing", "overwrite", "--prefix", "> ") == 0
    assert images() == ["photos/001.jpg", "photos/002.jpg"]
    assert all(row["captions"][0]["text"].startswith("> ") for row in rows())


def test_appending_adds_all_of_them_again(batch: Command) -> None:
    write_pictures(Path("photos"), 3)
    spoil("photos/001.jpg")
    batch("photos", "--output", "out.jsonl")
    before = Path("out.jsonl").read_bytes()
    write_pictures(Path("photos"), 3)
    assert batch("photos", "--output", "out.jsonl", "--on-existing", "append", "--suffix", " <") == 0
    assert Path("out.jsonl").read_bytes().startswith(before)
    assert images() == [f"photos/{number:03}.jpg" for number in (0, 1, 2)] * 2
    # Now that one of the two is good, the other one goes when it is tried again.
    assert batch("photos", "--output", "out.jsonl", "--retry-failed") == 0
    assert len(rows()) == 6


def test_exact_duplicates_are_shown_to_the_model_once(
    batch: Command, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = captioner.Captioner.caption_pixels

    def counted(self: captioner.Captioner, pixels: Any, options: Any, **settings: Any) -> Any:
        seen.append(len(pixels))
        return real(self, pixels, options, **settings)

    monkeypatch.setattr(captioner.Captioner, "caption_pixels", counted)
    write_pictures(Path("photos"), 6)
    shutil.copy("photos/000.jpg", "photos/0001.jpg")  # in the first chunk
    shutil.copy("photos/002.jpg", "photos/004a.jpg")  # in the second
    shutil.copy("photos/000.jpg", "photos/zzz.jpg")  # in the third
    picture(5).save("photos/zzzz.bmp")
    assert batch("photos", "--output", "out.jsonl") == 0
    by_name = {row["image"].removeprefix("photos/"): row["captions"] for row in rows()}
    assert by_name["0001.jpg"] == by_name["000.jpg"] == by_name["zzz.jpg"]
    assert by_name["004a.jpg"] == by_name["002.jpg"] != by_name["000.jpg"]
    assert seen == [3, 3, 1]
    assert "10 captioned (3 of them duplicates)" in capsys.readouterr().err


def test_duplicates_are_known_before_they_are_recorded(batch: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, again = [], threading.Event()
    caption, commit = captioner.Captioner.caption_pixels, Record.commit

    def captioned(self: captioner.Captioner, pixels: Any, options: Any, **settings: Any) -> Any:
        asked.append(len(pixels))
        if len(asked) == 2:
            again.set()
        return caption(self, pixels, options, **settings)

    def committed(self: Record, entries: Any) -> None:
        again.wait(20)
        commit(self, entries)

    monkeypatch.setattr(captioner.Captioner, "caption_pixels", captioned)
    monkeypatch.setattr(Record, "commit", committed)
    write_pictures(Path("photos"), 6)
    shutil.copy("photos/001.jpg", "photos/zzz.jpg")
    assert batch("photos", "--output", "out.jsonl") == 0
    assert asked == [4, 2]
    assert rows()[6]["captions"] == rows()[1]["captions"]


def test_texts_are_shaped_alike_in_every_table(batch: Command) -> None:
    write_pictures(Path("photos"), 4)
    shape = ["--prefix", "Photo: ", "--suffix", "!", "--max-length", 14, "--sentence", "--n-best", 2]
    for name in ("out.jsonl", "out.csv"):
        assert batch("photos", "--output", name, *shape) == 0
    texts = [caption["text"] for row in rows() for caption in row["captions"]]
    assert len(texts) == 8
    assert all(text.startswith("Photo: ") and text.endswith("!") and len(text) <= 14 for text in texts)
    assert any(text[7].isupper() for text in texts)
    with Path("out.csv").open(encoding="utf-8", newline="") as file:
        assert [line["text"] for line in csv.DictReader(file)] == texts


def test_options_reach_the_model(batch: Command, model: captioner.Captioner) -> None:
    write_pictures(Path("photos"), 5)
    asked = {"beam_size": 5, "n_best": 3, "length_penalty": 0.0, "no_repeat_ngram": 2, "rank": "consensus"}
    flags = [part for name, value in asked.items() for part in (f"--{name.replace('_', '-')}", value)]
    assert batch("photos", "--output", "out.jsonl", *flags) == 0
    results = model.batch(images(), batch_size=4, **asked)
    assert rows() == [result.to_row() for result in results]
    plain = [result.to_row() for result in model.batch(images(), batch_size=4, n_best=3)]
    assert plain != rows()


def test_several_models_have_a_row_each(tiny_model_dir: Path, other: Path, batch: Command) -> None:
    write_pictures(Path("photos"), 5)
    spoil("photos/003.jpg")
    arguments = ["photos", "--output", "out.jsonl", "--batch-size", 2, "--device", "cpu"]
    both = ["--model", tiny_model_dir, "--model", other]
    assert main([*both, *arguments]) == 1
    names = [(row["image"][-7:-4], row.get("model")) for row in rows()]
    pairs = [(image, model) for image in ("000", "001", "002", "004") for model in ("tiny", "other")]
    assert names == [*pairs[:6], ("003", None), *pairs[6:]]
    assert all(len(row["captions"][0]["tokens"]) <= 4 for row in rows() if row.get("model") == "other")
    write_pictures(Path("photos"), 6)
    assert main([*both, *arguments, "--retry-failed"]) == 0
    assert [row["model"] for row in rows()] == ["tiny", "other"] * 6
    assert images()[6:8] == ["photos/003.jpg"] * 2


def test_an_unfinished_run_is_not_gone_on_with_elsewhere(first: list[object], batch: Command, capsys: Capture) -> None:
    for folder in ("one", "two"):
        write_pictures(Path(folder), 9)
    arguments = ["--output", "out.jsonl", "--on-existing", "overwrite"]
    assert run([*first, "one", *arguments], cwd=Path.cwd(), killed_at="open:10").returncode == KILLED
    assert batch("two", *arguments) == 2
    assert 'INPUT was ["one"], not ["two"]' in capsys.readouterr().err
    assert batch("one", *arguments) == 0
    assert images() == [f"one/{number:03}.jpg" for number in range(9)]


def test_what_failed_and_is_gone_keeps_its_row_and_fails_no_run(batch: Command, capsys: Capture) -> None:
    write_pictures(Path("photos"), 3)
    spoil("photos/001.jpg")
    assert batch("photos", "--output", "out.jsonl") == 1
    before = Path("out.jsonl").read_bytes()
    Path("photos/001.jpg").unlink()
    capsys.readouterr()
    assert batch("photos", "--output", "out.jsonl", "--retry-failed") == 0
    assert "--retry-failed tries again" not in capsys.readouterr().err
    assert Path("out.jsonl").read_bytes() == before


def test_a_name_that_no_system_has_is_kept_as_it_is(batch: Command) -> None:
    write_pictures(Path("photos"), 1)
    odd = '{"image": "\\ud83d.jpg", "error": "gone", "code": "image_not_found"}\n'
    Path("out.jsonl").write_text(odd, encoding="utf-8")
    assert batch("photos", "--output", "out.jsonl") == 0
    assert Path("out.jsonl").read_text(encoding="utf-8").startswith(odd)


def test_captions_of_other_models_are_not_mixed_in(
    tiny_model_dir: Path, other: Path, batch: Command, capsys: Capture
) -> None:
    write_pictures(Path("photos"), 2)
    batch("photos", "--output", "out.jsonl")
    before = Path("out.jsonl").read_bytes()
    for models in (["--model", other], ["--model", tiny_model_dir, "--model", other]):
        assert main(["photos", "--output", "out.jsonl", *models]) == 2
        assert "out.jsonl holds captions of tiny, not of" in capsys.readouterr().err
        assert Path("out.jsonl").read_bytes() == before
    assert main(["photos", "--output", "out.jsonl", "--model", other, "--on-existing", "append"]) == 0
    assert [row["model"] for row in rows()] == ["tiny", "tiny", "other", "other"]


def test_models_of_one_name_are_refused(tiny_model_dir: Path, batch: Command, capsys: Capture) -> None:
    write_pictures(Path("photos"), 1)
    assert batch("photos", "--output", "out.jsonl", "--model", tiny_model_dir) == 2
    assert "two of these have one name: tiny, tiny" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--ray-workers", "--ray-cpus", "--ray-gpus", "--part-size"])
def test_what_is_for_a_cluster_means_nothing_without(batch: Command, capsys: Capture, option: str) -> None:
    write_pictures(Path("photos"), 1)
    assert batch("photos", "--output", "out.jsonl", option, 2) == 2
    assert f"{option} is for a cluster: give --ray" in capsys.readouterr().err


def test_what_was_unpacked_is_let_go_of_once_it_is_decoded(batch: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[shards._Held] = []

    class Held(shards._Held):
        def __init__(self, data: bytes) -> None:
            super().__init__(data)
            held.append(self)

    monkeypatch.setattr(shards, "_Held", Held)
    paths = write_pictures(Path("photos"), 6)
    with tarfile.open("shard.tgz", "w:gz") as archive:
        for path in paths:
            archive.add(path)
    assert batch("shard.tgz", "--output", "out.jsonl") == 0
    assert [one._data for one in held] == [None] * 6


def test_nothing_found_is_an_empty_table(batch: Command) -> None:
    Path("photos").mkdir()
    assert batch("photos", "--output", "out.jsonl") == 0
    assert Path("out.jsonl").read_bytes() == b""


def test_tables_can_lie_among_the_pictures(batch: Command) -> None:
    write_pictures(Path("photos"), 2)
    for _ in range(2):
        assert batch("photos", "--output", "photos/out.jsonl", "--recursive") == 0
    assert len(rows("photos/out.jsonl")) == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["photos"], "give --output FILE for the captions, or --format txt"),
        (["--output", "out.jsonl"], "give an INPUT, or a --list"),
        (["nowhere", "--output", "out.jsonl"], "there is no file or folder nowhere"),
        (["photos", "--output", "photos"], "photos is a folder: name a file in it"),
        (["photos", "--output", "nowhere/out.jsonl"], "nowhere is no folder: make it first"),
        (["photos/000.jpg", "--output", "photos/000.jpg"], "photos/000.jpg is called like a picture"),
        (["--list", "list", "--output", "list"], "list is an input"),
        (
            ["photos", "--output", "out.jsonl", "--retry-failed", "--on-existing", "append"],
            "leave --on-existing append",
        ),
        (["photos", "--output", "out.jsonl", "--shard", "2/2"], "shards are counted from 0"),
        (["photos", "--output", "out.jsonl", "--max-length", 0], "raise it"),
        (["photos", "--output", "out.jsonl", "--batch-size", 0], "--batch-size must be at least 1"),
        (["photos", "--output", "out.jsonl", "--n-best", 0], "n_best must be"),
        (["photos", "--output", "out.xlsx"], "the ending of out.xlsx tells no format"),
        (["photos", "--output", "texts"], "the ending of texts tells no format"),
        (["photos", "--output", "out.jsonl", "--model", "nobody"], "no model 'nobody'"),
        (["photos", "--output", "photos/000.jpg", "--on-existing", "overwrite"], "photos/000.jpg is called like a"),
        (["photos", "--output", "x.jsonl", "--progress", "x.jsonl"], "--progress x.jsonl is a file of its own"),
        (["photos/000.jpg", "--output", "x.jsonl", "--progress", "photos/000.jpg"], "is a file of its own"),
        (["photos", "--output", "x.jsonl", "--progress", "letter.jsonl"], "letter.jsonl is no record of captioner"),
        (["photos", "--output", "letter.jsonl"], "line 1 of letter.jsonl is no row of captioner"),
        (["photos", "--output", "letter.jsonl", "--format", "csv"], "letter.jsonl has other columns"),
    ],
)
def test_wrong_usage_is_told_and_changes_nothing(
    batch: Command, capsys: Capture, arguments: list[object], told: str
) -> None:
    write_pictures(Path("photos"), 1)
    Path("list").write_text("photos/000.jpg\n", encoding="utf-8")
    spoil("letter.jsonl")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    code = batch(*arguments)
    assert told in capsys.readouterr().err
    assert code in (1, 2)
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_an_input_by_another_name_is_no_output(batch: Command, capsys: Capture) -> None:
    write_pictures(Path("photos"), 1)
    Path("link").symlink_to("photos/000.jpg")
    assert batch("photos/000.jpg", "--output", "link", "--on-existing", "overwrite") == 2
    assert "is an input" in capsys.readouterr().err


def test_a_list_on_standard_input_is_captioned(batch: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_pictures(Path("photos"), 5)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(map(str, paths)).encode())))
    assert batch("-", "--output", "out.jsonl") == 0
    assert images() == [*map(str, paths)]


def test_a_share_that_is_finished_is_not_begun_again(batch: Command, other: Path, capsys: Capture) -> None:
    write_pictures(Path("photos"), 7)
    spoil("photos/003.jpg")
    for number in range(3):
        assert batch("photos", "--output", "to/here", "--shard", f"{number}/3") == (1 if number == 0 else 0)
    names = sorted(path.name for path in Path("to/here").iterdir())
    assert names == [f"captions-0000{number}-of-00003.jsonl" for number in range(3)]
    found = [images(Path("to/here") / name) for name in names]
    assert sorted(itertools.chain.from_iterable(found)) == [f"photos/{number:03}.jpg" for number in range(7)]
    write_pictures(Path("photos"), 9)
    capsys.readouterr()
    assert batch("photos", "--output", "to/here", "--shard", "0/3") == 1
    told = capsys.readouterr().err
    assert "captions-00000-of-00003.jsonl is finished" in told
    assert "photos/003.jpg: the image has no known" in told
    assert batch("photos", "--output", "to/here", "--shard", "1/3") == 0
    assert main(["photos", "--output", "to/here", "--shard", "1/3", "--model", other]) == 2
    assert "holds captions of tiny, not of other: give --on-existing" in capsys.readouterr().err
    assert [images(Path("to/here") / name) for name in names] == found
    assert batch("photos", "--output", "to/here", "--shard", "0/3", "--retry-failed") == 0
