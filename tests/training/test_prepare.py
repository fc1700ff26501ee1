from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from training.datasets import read_dataset
from training.prepare import describe, main


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three real pictures in JSONL, with tokens on the dev side."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (4, 3), "red").save(folder / name)
    (folder / "train.jsonl").write_text(
        '{"image": "a.png", "captions": ["A dog runs.", "A red dog!"]}\n{"image": "b.png", "caption": "A café"}\n'
    )
    (folder / "dev.jsonl").write_text('{"image": "c.png", "tokens": ["a", "cat"]}\n')
    return folder


def test_writes_an_equal_dataset(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new" / "prepared"
    assert main(["--data", str(data), "--output", str(output)]) == 0
    assert read_dataset(output) == read_dataset(data)
    assert sorted(path.name for path in output.iterdir()) == ["dev.jsonl", "train.jsonl"]
    assert "café" in (output / "train.jsonl").read_text(encoding="utf-8")
    out, err = capsys.readouterr()
    assert " ".join(out.splitlines()[1].split()) == "train 2 3 1 / 1.5 / 1.95 / 2 2 / 3 / 3 / 3"
    assert "train 100.00%, dev 50.00%" in out
    assert err == ""


def test_relative_data_gives_absolute_paths(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--data", "data", "--output", "prepared"]) == 0
    row = json.loads((tmp_path / "prepared/dev.jsonl").read_text())
    assert row == {"image": str(data / "c.png"), "tokens": [["a", "cat"]]}


def test_text_is_kept_beside_tokens(data: Path, tmp_path: Path) -> None:
    (data / "dev.jsonl").write_text('{"image": "c.png", "caption": "A cat.", "tokens": ["AH", "K", "AE", "T"]}\n')
    assert main(["--data", str(data), "--output", str(tmp_path / "prepared")]) == 0
    assert read_dataset(tmp_path / "prepared") == read_dataset(data)


def test_describe_counts_by_hand(data: Path) -> None:
    description = describe(read_dataset(data))
    assert description["splits"]["train"] == {
        "images": 2,
        "captions": 3,
        "captions_per_image": {"min": 1, "median": 1.5, "p95": 1.95, "max": 2},
        "tokens_per_caption": {"min": 2, "median": 3, "p95": 3, "max": 3},
    }
    # a 3, dog 2, runs 1, red 1, café 1
    assert description["vocabulary"][:2] == [
        {"min_count": 1, "types": 5, "coverage": {"train": 1.0, "dev": 0.5}},
        {"min_count": 2, "types": 2, "coverage": {"train": 5 / 8, "dev": 0.5}},
    ]


def test_json_holds_the_figures(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    assert main(["--data", str(data), "--output", str(tmp_path / "prepared"), "--json", str(file)]) == 0
    assert json.loads(file.read_text()) == describe(read_dataset(data))


def test_broken_pictures_are_named_and_left_out(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "b.png").write_bytes(b"no picture")
    (data / "c.png").write_bytes((data / "a.png").read_bytes()[:40])
    assert main(["--data", str(data), "--output", str(tmp_path / "prepared")]) == 1
    err = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in err] == [f"left out {data / name}" for name in ("b.png", "c.png")]
    prepared = read_dataset(tmp_path / "prepared")
    assert [example.image.name for example in prepared["train"]] == ["a.png"]
    assert "dev" not in prepared, "a split without a sound picture gets no file"


def test_malformed_data_is_one_plain_line(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "dev.jsonl").write_text("oops\n")
    assert main(["--data", str(data), "--output", str(tmp_path / "prepared")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "dev.jsonl, line 1: not JSON" in err
    assert not (tmp_path / "prepared").exists()


def test_output_over_a_file_is_one_plain_line(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(data), "--output", str(data / "a.png" / "prepared")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["--data", "x"], ["--data", "x", "--output", "y", "--fast"]])
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)


def test_existing_splits_are_not_overwritten(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (data / "train.jsonl").read_text()
    with pytest.raises(SystemExit, match="2"):
        main(["--data", str(data), "--output", str(data)])
    assert "already holds train.jsonl" in capsys.readouterr().err
    assert (data / "train.jsonl").read_text() == before


@pytest.mark.parametrize(
    ("options", "tokens"),
    [
        ([], "AH D AO G R AH N Z"),
        (["--stress"], "AH0 D AO1 G R AH1 N Z"),
        (["--boundaries"], "AH | D AO G | R AH N Z"),
        (["--stress", "--boundaries"], "AH0 | D AO1 G | R AH1 N Z"),
    ],
)
def test_captions_are_pronounced(data: Path, tmp_path: Path, options: list[str], tokens: str) -> None:
    (data / "dev.jsonl").write_text('{"image": "c.png", "caption": "Cats"}\n')
    assert main(["--data", str(data), "--output", str(tmp_path / "phones"), "--phones", *options]) == 0
    dataset = read_dataset(tmp_path / "phones")
    assert dataset["train"][0].tokens is not None
    assert dataset["train"][0].tokens[0] == tuple(tokens.split())
    assert [len(example.tokens or ()) for example in dataset["train"]] == [2, 1]
    assert [example.captions for example in dataset["train"]] == [("A dog runs.", "A red dog!"), ("A café",)]
    assert len(dataset["dev"]) == 1


def test_a_caption_that_cannot_be_pronounced_is_named(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "dev.jsonl").write_text('{"image": "c.png", "caption": "..."}\n')
    assert main(["--data", str(data), "--output", str(tmp_path / "phones"), "--phones"]) == 1
    assert "c.png has no words: '...'" in capsys.readouterr().err
    assert not (tmp_path / "phones").exists()


def test_phones_are_made_of_captions_only(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(data), "--output", str(tmp_path / "phones"), "--phones"]) == 1
    assert "c.png has tokens already" in capsys.readouterr().err


def test_stress_and_boundaries_are_of_phones(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--data", str(data), "--output", str(tmp_path / "x"), "--stress"])
    assert "go with --phones or --alignments" in capsys.readouterr().err
