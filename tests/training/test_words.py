from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import captioner
from captioner.checkpoint import read_info, write_info
from captioner.errors import DataError
from captioner.reading import WORDS_NAME
from captioner.tokens import SPECIAL_TOKENS, Vocabulary
from training.datasets import Example, read_dataset
from training.evaluate import evaluate
from training.evaluate import main as evaluate_command
from training.pronounce import phones_of, pronounce
from training.words import learn_words, main

# A phone for each word of the toy captions: what the toy model says, said in phones of a language of one-phone words.
PHONE_OF = dict(
    zip(
        ["a", "red", "green", "blue", "yellow", "square", "circle", "cross", "one", "all"],
        "AH R G B Y S K T W L".split(),
        strict=True,
    )
)


def sounds(caption: str) -> list[str]:
    return " | ".join(PHONE_OF[word] for word in caption.lower().replace(",", "").strip(".").split()).split()


@pytest.fixture
def phone_data(toy_data: Path, tmp_path: Path) -> Path:
    """The toy dataset with the phones of its captions."""
    folder = tmp_path / "phones"
    folder.mkdir()
    for split in ("train", "dev"):
        rows = [json.loads(line) for line in (toy_data / f"{split}.jsonl").read_text().splitlines()]
        for row in rows:
            row |= {"image": str(toy_data / row["image"]), "tokens": [sounds(caption) for caption in row["captions"]]}
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder


@pytest.fixture
def phone_model(learnt_run: Path, tmp_path: Path) -> Path:
    """The learnt model, its words' numbers now those of phones."""
    directory = shutil.copytree(learnt_run / "model", tmp_path / "model")
    info = read_info(directory)
    phones = [token if token in SPECIAL_TOKENS else PHONE_OF[token] for token in info.vocabulary.tokens]
    values = info.to_dict() | {"vocabulary": list(Vocabulary(phones).tokens), "tokenizer": "symbols"}
    write_info(directory, type(info).from_dict(values))
    return directory


def test_english_is_pronounced_and_read_back(toy_examples: dict[str, list[Example]]) -> None:
    reader = learn_words(toy_examples["train"])
    assert reader.lexicon["square"] == (("S", "K", "W", "EH1", "R"),)
    (phones,) = pronounce(["One cross, all yellow."])
    assert reader.read(phones) == ["one", "cross", "all", "yellow"]
    assert reader.read([phone for phone in phones if phone != "|"]) == ["one", "cross", "all", "yellow"]


def test_phones_that_came_with_the_text_are_used(phone_data: Path) -> None:
    examples = read_dataset(phone_data)["train"]
    assert phones_of(examples)[0] == [tuple(sounds(caption)) for caption in examples[0].captions]
    reader = learn_words(examples)
    assert reader.lexicon["square"] == (("S",),)
    assert reader.read(["W", "|", "K", "|", "L", "|", "G"]) == ["one", "circle", "all", "green"]


def test_captions_whose_words_and_phones_do_not_match_teach_no_sounds(toy_examples: dict[str, list[Example]]) -> None:
    image = toy_examples["train"][0].image
    odd = Example(image, ("a red square", "red"), "train", (("AH", "|", "R"), ("R", "EH", "D")))
    reader = learn_words([odd])
    assert reader.lexicon == {"red": (("R", "EH", "D"),)}
    assert ("square",) in reader.language.counts
    with pytest.raises(DataError, match="do its tokens have boundaries"):
        learn_words([Example(image, ("a red square",), "train", (("AH", "R"),))])


def test_captions_of_other_scripts_teach_their_words(toy_examples: dict[str, list[Example]]) -> None:
    image = toy_examples["train"][0].image
    caption, tokens = "«एक कुत्ता, 2 honden, T-shirt!»", "e k | k u t a | d v e | h O n | t i | S 3 t"
    reader = learn_words([Example(image, (caption,), "train", (tuple(tokens.split()),))])
    assert list(reader.lexicon) == ["एक", "कुत्ता", "2", "honden", "t", "shirt"]


def test_a_hyphen_may_stand_within_a_word(
    toy_examples: dict[str, list[Example]], caplog: pytest.LogCaptureFixture
) -> None:
    image = toy_examples["train"][0].image
    phones = tuple("t i N | v a k a".split()), tuple("v a k a".split())
    reader = learn_words([Example(image, ("Tiŋ va-ʼka.", "a va-ʼka"), "train", phones)])
    assert list(reader.lexicon) == ["tiŋ", "va-ʼka"]
    assert "1 of 2 captions teach no sounds, first: 'a va-ʼka' has 3 words, its phones 1" in caplog.text


def test_phones_with_text_need_no_speech_extra(phone_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert learn_words(read_dataset(phone_data)["train"]).read(["W"]) == ["one"]


def test_examples_without_text_are_left_out(phone_data: Path) -> None:
    examples = read_dataset(phone_data)["train"]
    wordless = Example(examples[0].image, ("AH | R",), "train", (("AH", "|", "R"),))
    assert learn_words([wordless, *examples]).lexicon == learn_words(examples).lexicon


def test_one_recording_a_picture_can_be_measured(phone_model: Path, phone_data: Path, tmp_path: Path) -> None:
    row = json.loads((phone_data / "dev.jsonl").read_text().splitlines()[0])
    (tmp_path / "dev.jsonl").write_text(json.dumps({"image": row["image"], "tokens": row["tokens"][0]}) + "\n")
    figures = evaluate(captioner.load(phone_model, device="cpu"), tmp_path, "dev", "ptb")
    assert list(figures["anchors"]) == ["chance"], "there are no people to compare"
    assert figures["tokenizer"] is None, "nothing rests on one"


def test_phones_without_text_cannot_be_read(toy_examples: dict[str, list[Example]]) -> None:
    example = Example(toy_examples["train"][0].image, ("AH R",), "train", (("AH", "R"),))
    with pytest.raises(DataError, match="needs captions beside its tokens"):
        learn_words([example])


def test_a_model_of_phones_is_measured_by_phones_and_words(
    phone_model: Path, phone_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = evaluate(captioner.load(phone_model, device="cpu"), phone_data, "dev", "simple")
    assert list(before["scores"]) == ["phone-BLEU-4", "PER", "PER-mean"]
    assert "words" not in before["predictions"][0]["captions"][0]

    assert main(["--data", str(phone_data), "--model", str(phone_model)]) == 0
    assert capsys.readouterr().out.startswith("10 words, ")
    arguments = ["--model", str(phone_model), "--data", str(phone_data), "--tokenizer", "simple"]
    assert evaluate_command([*arguments, "--json", str(phone_model / "figures.json")]) == 0
    figures = json.loads((phone_model / "figures.json").read_text())
    for row in figures["predictions"]:
        (caption,) = row["captions"]
        assert [PHONE_OF[word] for word in caption["words"].split()] == [t for t in caption["tokens"] if t != "|"]
    assert figures["scores"]["PER"] < 0.3, "it has learnt its pictures by heart"
    assert figures["scores"]["CIDEr"] > 3
    assert figures["scores"]["PER"] < figures["anchors"]["chance"]["PER"]
    printed = capsys.readouterr().out
    assert (
        f"chance {figures['anchors']['chance']['PER']:.4f}   people {figures['anchors']['people']['PER']:.4f}"
        in printed
    )


def test_a_model_of_words_is_measured_as_phones_when_asked(
    learnt_captioner: captioner.Captioner, toy_data: Path
) -> None:
    words = evaluate(learnt_captioner, toy_data, "dev", "simple")
    both = evaluate(learnt_captioner, toy_data, "dev", "simple", phones=True)
    assert {metric: both["scores"][metric] for metric in words["scores"]} == words["scores"]
    assert set(both["scores"]) - set(words["scores"]) == {"phone-BLEU-4", "PER", "PER-mean"}
    assert both["scores"]["PER"] < 0.3
    assert words["anchors"] == {}


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"--data": "nowhere"}, 1, "nowhere does not exist"),
        ({"--model": "nowhere"}, 2, "no model 'nowhere'"),
        ({"--model": "words"}, 2, "is no model of phones"),
    ],
)
def test_command_fails_with_a_sentence(
    phone_model: Path,
    phone_data: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    code: int,
    message: str,
) -> None:
    options = {"--model": str(phone_model), "--data": str(phone_data)} | changes
    assert main([part for option in options.items() for part in option]) == code
    assert message in capsys.readouterr().err
    assert not (phone_model / WORDS_NAME).exists()
