from __future__ import annotations

import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import captioner
from captioner.checkpoint import read_info
from captioner.errors import DataError, OptionError
from captioner.ngrams import NgramModel
from captioner.reading import WordReader
from captioner.tokens import WordTokenizer
from training.datasets import Example
from training.diction import describe_diction, diction
from training.evaluate import evaluate, main, record

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="Java is not installed")


@pytest.fixture
def model_dir(learnt_run: Path, tmp_path: Path) -> Path:
    """A copy of the learnt model, to write into."""
    return shutil.copytree(learnt_run / "model", tmp_path / "model")


def by_pycocoevalcap(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Figures of written predictions, by the package's classes called as its own demonstration calls them.

    METEOR alone is left to the tests of the metrics: its Java program takes seconds to start.
    """

    def make(module: str, name: str, *arguments: object) -> Any:
        return getattr(importlib.import_module(f"pycocoevalcap.{module}"), name)(*arguments)

    tokenizer = make("tokenizer.ptbtokenizer", "PTBTokenizer")
    gold = tokenizer.tokenize({i: [{"caption": text} for text in row["references"]] for i, row in enumerate(rows)})
    guess = tokenizer.tokenize({i: [{"caption": row["captions"][0]["text"]}] for i, row in enumerate(rows)})
    bleu = make("bleu.bleu", "Bleu", 4).compute_score(gold, guess, verbose=0)[0]
    figures = {f"BLEU-{order}": value for order, value in enumerate(bleu, start=1)}
    figures["ROUGE-L"] = make("rouge.rouge", "Rouge").compute_score(gold, guess)[0]
    figures["CIDEr"] = make("cider.cider", "Cider").compute_score(gold, guess)[0]
    return figures


@needs_java
def test_figures_are_pycocoevalcaps_to_the_last_digit(
    learnt_run: Path, toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures.json"
    arguments = ["--model", str(learnt_run / "model"), "--data", str(toy_data), "--json", str(out), "--device", "cpu"]
    assert main([*arguments, "--max-length", "2"]) == 0  # cut short, so that the figures are not perfect
    figures = json.loads(out.read_text())
    expected = by_pycocoevalcap(figures["predictions"])
    assert 0 < expected["BLEU-1"] < 1
    assert 0 < figures["scores"]["METEOR"] < 1
    assert figures["scores"] == expected | {"METEOR": figures["scores"]["METEOR"]}
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("toy on 12 dev images, ")
    assert "comparable" not in printed[0]
    assert [line.split() for line in printed[1:8]] == [
        [name, f"{value:.4f}"] for name, value in figures["scores"].items()
    ]


def test_predictions_are_the_models_own_with_all_references(
    learnt_captioner: captioner.Captioner, toy_data: Path, toy_examples: dict[str, list[Example]]
) -> None:
    figures = evaluate(learnt_captioner, toy_data, "train", "simple", beam_size=1)
    for row, example in zip(figures["predictions"], toy_examples["train"], strict=True):
        assert row["image"] == example.image.name, "a path of the machine says nothing to others"
        assert row["references"] == list(example.captions)
        (caption,) = row["captions"]
        assert caption == learnt_captioner(example.image, beam_size=1).to_row()
    assert figures["scores"]["CIDEr"] > 3
    assert (figures["split"], figures["images"], figures["model"]) == ("train", 12, "toy")
    assert figures["decoding"]["beam_size"] == 1
    assert figures["decoding"]["max_length"] == 8, "the model's own where nothing else is asked"
    assert figures["engine"] == learnt_captioner.engine.name


def test_wording_is_measured_beside_that_of_the_first_references(
    learnt_run: Path, toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures.json"
    arguments = ["--model", str(learnt_run / "model"), "--data", str(toy_data), "--tokenizer", "simple"]
    assert main([*arguments, "--json", str(out), "--max-length", "1"]) == 0  # cut short: "a" or "one" of each picture
    figures = json.loads(out.read_text())
    said = [row["captions"][0]["text"] for row in figures["predictions"]]
    assert set(said) <= {"a", "one"}
    assert figures["diction"]["captions"] == diction([[word] for word in said])
    assert figures["diction"]["captions"]["dangling"] == said.count("a")
    words = ["a", *("square", "circle", "cross"), *("red", "green", "blue", "yellow")]
    expected = {"captions": 12, "dangling": 0, "length": 3, "words": len(words), "different": 12}
    assert {name: figures["diction"]["references"][name] for name in expected} == expected
    shown = [f"{who:12} {describe_diction(wording)}" for who, wording in figures["diction"].items()]
    assert capsys.readouterr().out.splitlines()[-2:] == shown


def test_symbols_are_worded_only_where_they_are_read_as_words(
    learnt_captioner: captioner.Captioner, toy_data: Path, toy_examples: dict[str, list[Example]]
) -> None:
    """A language whose words are single phones, called as the words are."""
    words = learnt_captioner.info.vocabulary.tokens[4:]
    captions = [WordTokenizer().tokenize(text) for example in toy_examples["train"] for text in example.captions]
    reader = WordReader({word: [(word,)] for word in words}, NgramModel.learn(captions))
    info = replace(learnt_captioner.info, tokenizer="symbols")
    unread, read = (captioner.Captioner(learnt_captioner.engine, info, one) for one in (None, reader))
    assert evaluate(unread, toy_data, "dev", "simple")["diction"] == {}
    expected = evaluate(learnt_captioner, toy_data, "dev", "simple")["diction"]
    assert expected["captions"]["words"] > 5
    assert evaluate(read, toy_data, "dev", "simple")["diction"] == expected


def test_an_unknown_decoding_option_raises(learnt_captioner: captioner.Captioner, toy_data: Path) -> None:
    with pytest.raises(OptionError, match="unknown option beam"):
        evaluate(learnt_captioner, toy_data, "dev", "simple", beam=3)


def test_simple_tokens_are_marked_as_not_comparable(
    model_dir: Path, toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures.json"
    arguments = ["--model", str(model_dir), "--data", str(toy_data), "--tokenizer", "simple", "--json", str(out)]
    assert main([*arguments, "--split", "train", "--beam-size", "3", "--length-penalty", "0"]) == 0
    assert "(simple tokeniser: not comparable with the standard)" in capsys.readouterr().out.splitlines()[0]
    figures = json.loads(out.read_text())
    assert figures["tokenizer"] == "simple"
    assert "METEOR" not in figures["scores"]
    assert (figures["decoding"]["beam_size"], figures["decoding"]["length_penalty"]) == (3, 0)
    assert len(figures["predictions"]) == 12


@needs_java
def test_figures_are_recorded_in_the_config_and_only_there(model_dir: Path, toy_data: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in model_dir.iterdir()}
    info = read_info(model_dir)
    out = tmp_path / "figures.json"
    arguments = ["--model", str(model_dir), "--data", str(toy_data), "--json", str(out)]
    assert main([*arguments, "--tokenizer", "simple"]) == 0
    assert {path.name: path.read_bytes() for path in model_dir.iterdir()} == before, "recorded without --record"

    assert main([*arguments, "--record"]) == 0
    after = {path.name: path.read_bytes() for path in model_dir.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"config.json"}
    assert set(after) == set(before)
    figures, recorded = json.loads(out.read_text()), read_info(model_dir)
    kept = ("scores", "diction", "images", "tokenizer", "decoding", "engine")
    assert recorded.figures == {"dev": {name: figures[name] for name in kept}}
    assert recorded.to_dict() | {"figures": {}} == info.to_dict() | {"figures": {}}
    assert captioner.load(model_dir, device="cpu").name == "toy"


def test_another_splits_figures_are_kept(model_dir: Path) -> None:
    figures = {"scores": {"CIDEr": 0.5}, "diction": {}, "images": 4, "tokenizer": "ptb", "decoding": {}, "engine": "x"}
    record(model_dir, figures | {"split": "dev", "predictions": [1]})
    record(model_dir, figures | {"split": "test", "predictions": [1]})
    record(model_dir, figures | {"split": "dev", "images": 5})
    assert read_info(model_dir).figures == {"dev": figures | {"images": 5}, "test": figures}


def test_a_missing_split_raises(learnt_captioner: captioner.Captioner, toy_data: Path) -> None:
    with pytest.raises(DataError, match="has no test split"):
        evaluate(learnt_captioner, toy_data, "test", "simple")


def test_a_broken_picture_fails_the_whole(
    model_dir: Path, toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Figures over the other pictures would not be comparable."""
    shutil.copytree(toy_data, tmp_path / "data")
    (tmp_path / "data" / "dev" / "red-square.png").write_bytes(b"no picture")
    arguments = ["--model", str(model_dir), "--data", str(tmp_path / "data"), "--tokenizer", "simple"]
    assert main(arguments) == 1
    out, error = capsys.readouterr()
    assert "red-square.png" in error
    assert "CIDEr" not in out


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"--split": "test"}, 1, "has no test split, or none of its images; it has train, dev"),
        ({"--data": "nowhere"}, 1, "nowhere does not exist"),
        ({"--json": "nowhere/figures.json"}, 1, "nowhere/figures.json"),
        ({"--model": "nowhere"}, 2, "no model 'nowhere'"),
        ({"--beam-size": "0"}, 2, "beam_size must be"),
        ({"--device": "abacus"}, 2, "no device 'abacus'"),
    ],
)
def test_command_fails_with_a_sentence(
    model_dir: Path,
    toy_data: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    code: int,
    message: str,
) -> None:
    options = {"--model": str(model_dir), "--data": str(toy_data), "--tokenizer": "simple"} | changes
    assert main([part for option in options.items() for part in option]) == code
    error = capsys.readouterr().err
    assert message in error[error.index("evaluation: ") :]
    assert "Traceback" not in error


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--model", "words", "--data", "x", "--split", "all"],
        ["--model", "words", "--data", "x", "--tokenizer", "simple", "--record"],
    ],
)
def test_command_refuses_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m training.evaluate" in capsys.readouterr().err
