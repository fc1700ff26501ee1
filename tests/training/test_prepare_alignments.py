"""The phones of recorded speech in a dataset: which picture an utterance belongs to, and the command that writes it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from training.datasets import read_dataset
from training.prepare import main

PHRASE = "DH AH0 | D AO1 G"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two pictures to train on, one with two captions, and one of the dev split."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("a.png", "b.png", "c_1.png"):
        Image.new("RGB", (4, 3), "red").save(folder / name)
    (folder / "train.jsonl").write_text(
        '{"image": "a.png", "captions": ["The dog.", "A dog."]}\n{"image": "b.png", "caption": "A cat."}\n'
    )
    (folder / "dev.jsonl").write_text('{"image": "c_1.png", "caption": "The dog."}\n')
    return folder


def speak(tmp_path: Path, **utterances: str) -> Path:
    """A CTM in Kaldi's manner; ``#`` cannot stand in a keyword and is written ``HASH``."""
    lines = []
    for utterance, phrase in utterances.items():
        start = 0.0
        for word in phrase.split(" | "):
            phones = word.split()
            positions = "S" if len(phones) == 1 else "B" + "I" * (len(phones) - 2) + "E"
            for phone, position in zip(phones, positions, strict=True):
                lines.append(f"{utterance.replace('HASH', '#')} 1 {start:.1f} 0.1 {phone}_{position}\n")
                start += 0.1
    path = tmp_path / "speech.ctm"
    path.write_text("".join(lines))
    return path


def prepare(data: Path, alignments: Path, *options: str) -> int:
    output = data.parent / "prepared"
    return main(["--data", str(data), "--alignments", str(alignments), "--output", str(output), *options])


def rows(data: Path, split: str = "train") -> list[dict[str, Any]]:
    text = (data.parent / "prepared" / f"{split}.jsonl").read_text()
    return [{**json.loads(line), "image": Path(json.loads(line)["image"]).name} for line in text.splitlines()]


def test_what_was_said_stands_beside_the_caption_of_its_number(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    speech = speak(tmp_path, a_1="AH0 | D AO1 G", bHASH0="AH0 | K AE1 T", a_0=PHRASE, c_1_0=PHRASE)
    assert prepare(data, speech, "--boundaries", "--stress") == 0
    assert rows(data) == [
        {
            "image": "a.png",
            "captions": ["The dog.", "A dog."],
            "tokens": [PHRASE.split(), ["AH0", "|", "D", "AO1", "G"]],
        },
        {"image": "b.png", "captions": ["A cat."], "tokens": [["AH0", "|", "K", "AE1", "T"]]},
    ]
    assert [row["tokens"] for row in rows(data, "dev")] == [[PHRASE.split()]]
    out, err = capsys.readouterr()
    assert err == ""
    assert "dev 100.00%" in out


def test_a_folder_of_textgrids(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "grids"
    folder.mkdir()
    intervals = '0 0.3 "sil" 0.3 0.4 "d" 0.4 0.5 "ao1" 0.5 0.6 "g"'
    (folder / "a_1.TextGrid").write_text(
        f'File type = "ooTextFile"\nObject class = "TextGrid"\n0 1 <exists> 1 "IntervalTier" "phones" 0 1 4 {intervals}'
    )
    assert prepare(data, folder, "--silence", "keep") == 0
    assert rows(data) == [{"image": "a.png", "captions": ["A dog."], "tokens": [["SIL", "D", "AO", "G"]]}]


@pytest.mark.parametrize("utterances", [{"a_0": PHRASE, "a_2": PHRASE}, {"a": PHRASE}])
def test_without_a_caption_of_its_number_the_phones_stand_alone(
    data: Path, tmp_path: Path, utterances: dict[str, str]
) -> None:
    assert prepare(data, speak(tmp_path, **utterances)) == 0
    (row,) = rows(data)
    assert row == {"image": "a.png", "tokens": [["DH", "AH", "D", "AO", "G"]] * len(utterances)}
    (example,) = read_dataset(tmp_path / "prepared")["train"]
    assert example.captions == ("DH AH D AO G",) * len(utterances)


def test_an_utterance_without_a_number_says_the_only_caption(data: Path, tmp_path: Path) -> None:
    assert prepare(data, speak(tmp_path, b="AH0 | K AE1 T")) == 0
    assert rows(data) == [{"image": "b.png", "captions": ["A cat."], "tokens": [["AH", "K", "AE", "T"]]}]


def test_tokens_of_the_data_are_replaced_and_its_text_is_kept(data: Path, tmp_path: Path) -> None:
    (data / "train.jsonl").write_text(
        '{"image": "a.png", "tokens": ["the", "dog"]}\n{"image": "b.png", "caption": "A dog.", "tokens": ["x"]}\n'
    )
    assert prepare(data, speak(tmp_path, a_0=PHRASE, b_0=PHRASE)) == 0
    assert [row.get("captions") for row in rows(data)] == [None, ["A dog."]]
    assert [row["tokens"] for row in rows(data)] == [[["DH", "AH", "D", "AO", "G"]]] * 2


def test_what_has_no_counterpart_is_counted(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(data, speak(tmp_path, a_0=PHRASE, x_0="??", b_x=PHRASE)) == 0
    assert capsys.readouterr().err.splitlines() == [
        "left out 2 pictures without an utterance, first b.png",
        "left out 2 utterances without a picture, first x_0",
    ]
    assert sorted(path.name for path in (tmp_path / "prepared").iterdir()) == ["train.jsonl"]


@pytest.mark.parametrize(
    ("utterances", "message"),
    [
        ({"x_0": PHRASE}, "no utterance of .* belongs to a picture of the data.* as in a_0"),
        ({"a_0": PHRASE, "a_00": PHRASE}, r"a\.png has another utterance of the number of a_00"),
        ({"a_0": "DH QQ"}, r"speech\.ctm, line 2: 'QQ' is no ARPAbet phone"),
    ],
)
def test_faults_are_one_plain_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], utterances: dict[str, str], message: str
) -> None:
    assert prepare(data, speak(tmp_path, **utterances)) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert re.search(message, err)
    assert not (tmp_path / "prepared").exists()


@pytest.mark.parametrize("rival", ["c.png", "sub/c_1.png"])
def test_an_utterance_that_could_be_of_two_pictures(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], rival: str
) -> None:
    (data / "sub").mkdir()
    Image.new("RGB", (4, 3)).save(data / rival)
    with (data / "train.jsonl").open("a") as file:
        file.write(json.dumps({"image": rival, "caption": "A cat."}) + "\n")
    assert prepare(data, speak(tmp_path, c_1=PHRASE)) == 1
    assert "the utterance c_1 could be of" in capsys.readouterr().err


def test_another_language_and_its_noises(data: Path, tmp_path: Path) -> None:
    speech = speak(tmp_path, a_0="ø2 | spn | kʷ")
    assert prepare(data, speech, "--phone-set", "any", "--noise", "keep", "--boundaries") == 0
    assert rows(data)[0]["tokens"] == [["ø2", "|", "SPN", "|", "kʷ"]]


def test_the_shortest_pause(data: Path, tmp_path: Path) -> None:
    speech = speak(tmp_path, a_0="DH | sil | AH0")
    assert prepare(data, speech, "--silence", "boundary", "--shortest-pause", "0.2") == 0
    assert rows(data)[0]["tokens"] == [["DH", "AH"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--silence", "drop"], "go with --alignments"),
        (["--phones", "--phone-set", "arpabet"], "go with --alignments"),
        (["--noise", "keep"], "go with --alignments"),
        (["--shortest-pause", "0.1"], "go with --alignments"),
        (["--alignments", "x", "--phones"], "not allowed with argument"),
        (["--alignments", "x", "--stress", "--phone-set", "any"], "--stress belongs to ARPAbet"),
        (["--alignments", "x", "--shortest-pause", "-1"], "must be a positive number"),
        (["--alignments", "x", "--silence", "refuse"], "invalid choice"),
    ],
)
def test_options_that_contradict_one_another(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--data", str(data), "--output", str(tmp_path / "prepared"), *options])
    assert message in capsys.readouterr().err
