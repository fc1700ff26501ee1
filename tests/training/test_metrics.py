from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from captioner.errors import DataError, DependencyError, OptionError
from captioner.tokens import WordTokenizer
from training import metrics
from training.cider import CiderScorer
from training.metrics import score

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="Java is not installed")

REFERENCES = [
    ["A black dog's ball (red) is on the grass .", "The dog is running , fast !", "a dog runs on grass at 5 p.m."],
    ["Two men are sitting on a bench.", "Men sit on a wooden bench", "Two people don't talk on the bench ."],
    ["A girl in a t-shirt climbs the stairs", "A child is climbing up a set of stairs", "a girl goes up"],
]
HYPOTHESES = ["A dog is running on the grass.", "two men sit on a bench", "a boy is climbing a rock"]
NAMES = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr"]


def by_pycocoevalcap(references: list[list[str]], hypotheses: list[str], *, java: bool) -> dict[str, float]:
    """The oracle: the package called as its own demonstration calls it, or on the simple tokens."""

    def make(module: str, name: str, *arguments: object) -> object:
        return getattr(importlib.import_module(f"pycocoevalcap.{module}"), name)(*arguments)

    raw = (dict(enumerate(references)), {i: [text] for i, text in enumerate(hypotheses)})
    if java:
        ptb = make("tokenizer.ptbtokenizer", "PTBTokenizer")
        gold, guess = (ptb.tokenize({i: [{"caption": t} for t in side[i]] for i in side}) for side in raw)
    else:
        words = WordTokenizer()
        gold, guess = ({i: [" ".join(words.tokenize(t)) for t in side[i]] for i in side} for side in raw)
    figures = dict(zip(NAMES, make("bleu.bleu", "Bleu", 4).compute_score(gold, guess, verbose=0)[0], strict=False))
    if java:
        meteor = make("meteor.meteor", "Meteor")
        figures["METEOR"] = meteor.compute_score(gold, guess)[0]
        meteor.meteor_p.communicate()
    figures["ROUGE-L"] = make("rouge.rouge", "Rouge").compute_score(gold, guess)[0]
    figures["CIDEr"] = make("cider.cider", "Cider").compute_score(gold, guess)[0]
    return figures


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The child processes started from here on."""
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def recording(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments, **options))  # type: ignore[call-overload]
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", recording)
    return started


@needs_java
def test_score_is_pycocoevalcap_to_the_last_digit(capfd: pytest.CaptureFixture[str]) -> None:
    expected = by_pycocoevalcap(REFERENCES, HYPOTHESES, java=True)
    capfd.readouterr()
    figures = score(REFERENCES, HYPOTHESES)
    assert figures == expected
    assert list(figures) == NAMES
    assert all(type(figure) is float for figure in figures.values())
    assert capfd.readouterr() == ("", ""), "scoring must be quiet"


def test_simple_score_is_pycocoevalcap_on_simple_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    figures = score(REFERENCES, HYPOTHESES, tokenizer="simple")
    assert figures == by_pycocoevalcap(REFERENCES, HYPOTHESES, java=False)
    assert list(figures) == [name for name in NAMES if name != "METEOR"]


def test_bleu_by_hand() -> None:
    # 4 of 5 words and 2 of 4 bigrams match. 5 words lie equally near to 4 and 6, and the shorter counts: no penalty.
    figures = score([["a dog runs fast now here", "a dog runs home"]], ["a dog runs quickly home"], tokenizer="simple")
    assert figures["BLEU-1"] == pytest.approx(4 / 5)
    assert figures["BLEU-2"] == pytest.approx((4 / 5 * 2 / 4) ** 0.5)


def test_brevity_penalty_by_hand() -> None:
    figures = score([["a small dog runs over grass"]], ["a small dog"], tokenizer="simple")
    assert figures["BLEU-1"] == pytest.approx(2.718281828459045 ** (1 - 6 / 3))


def test_case_and_punctuation_do_not_count() -> None:
    assert score([["A dog (wet) runs!"]], ["a dog, wet: runs"], tokenizer="simple")["BLEU-4"] == pytest.approx(1)


@needs_java
def test_odd_captions_score_and_no_process_stays(processes: list[subprocess.Popen[bytes]]) -> None:
    odd = ["", " ", "|||", "a ||| dog", ".", "\N{DOG FACE}"]
    figures = score([*REFERENCES, *[["a dog"]] * len(odd), ["a ||| bar", "", "."]], [*HYPOTHESES, *odd, "a bar"])
    assert list(figures) == NAMES
    assert all(figure > 0 for figure in figures.values())
    assert len(processes) == 3, "two runs of the tokeniser, one of METEOR"
    for process in processes:
        assert process.returncode is not None
        assert all(pipe is None or pipe.closed for pipe in (process.stdin, process.stdout, process.stderr))


@needs_java
def test_line_breaks_do_not_shift_the_captions_after_them() -> None:
    tokenized = metrics._ptb([["One\ntwo.", ""], ["three\r\u2028four \ud83d"], ["", "five"], [""]])
    assert tokenized == {0: ["one two", ""], 1: ["three four"], 2: ["", "five"], 3: [""]}


def test_nothing_said_scores_nothing() -> None:
    figures = score(REFERENCES, [""] * 3, tokenizer="simple")
    assert figures == pytest.approx(dict.fromkeys(figures, 0.0), abs=1e-9)


def test_missing_java_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DependencyError, match=r"Java 11.*PTB tokeniser and METEOR.*tokenizer='simple'.*not comparable"):
        score(REFERENCES, HYPOTHESES)


def test_useless_java_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As macOS ships it: the program is there, and only says that it is not.
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'no runtime' >&2\nexit 1\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DependencyError, match="gave no answer"):
        score(REFERENCES, HYPOTHESES)
    sentences = {0: ["a dog"]}
    with pytest.raises(DependencyError, match="METEOR's Java process stopped early"):
        metrics._meteor(sentences, sentences)


@needs_java
def test_tokenizer_that_may_not_write_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: object) -> None:
        raise PermissionError(13, "Permission denied", "site-packages")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    with pytest.raises(DependencyError, match=r"the PTB tokeniser could not run: .*Permission denied"):
        score(REFERENCES, HYPOTHESES)


def test_missing_pycocoevalcap_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocoevalcap.bleu.bleu", None)
    with pytest.raises(DependencyError, match="make install-train"):
        score(REFERENCES, HYPOTHESES, tokenizer="simple")


@pytest.mark.parametrize(
    ("references", "hypotheses", "message"),
    [
        ([["a"]], ["a", "b"], "2 hypotheses cannot be scored against references for 1 images"),
        ([], [], "no hypotheses"),
        ([["a"], []], ["a", "b"], "image number 1 has no reference"),
    ],
)
def test_mismatched_input_is_refused(references: list[list[str]], hypotheses: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        score(references, hypotheses)


def test_references_without_words_are_refused() -> None:
    with pytest.raises(DataError, match="no words"):
        score([["."], ["!"]], ["a", "b"], tokenizer="simple")


def test_unknown_tokenizer_is_refused() -> None:
    with pytest.raises(OptionError, match="'moses'; choose ptb or simple"):
        score(REFERENCES, HYPOTHESES, tokenizer="moses")


@pytest.mark.parametrize(
    "hypotheses",
    [
        HYPOTHESES,
        ["dog", "bench bench bench", "stairs stairs climbs the stairs stairs"],
        [captions[0] for captions in REFERENCES],
    ],
)
def test_fast_cider_equals_pycocoevalcap(hypotheses: list[str]) -> None:
    expected = by_pycocoevalcap(REFERENCES, hypotheses, java=False)["CIDEr"]
    words = WordTokenizer().tokenize
    scorer = CiderScorer([[words(caption) for caption in captions] for captions in REFERENCES])
    assert scorer([words(hypothesis) for hypothesis in hypotheses]) == pytest.approx(expected, abs=1e-12)


def test_cider_is_zero_for_silence_and_for_a_single_image() -> None:
    assert CiderScorer([[["a", "dog"]], [["a", "cat"]]])([[], []]) == 0
    # With a single image every n-gram is in all of them, so none tells anything.
    assert CiderScorer([[["a", "dog"]]])([["a", "dog"]]) == 0


def test_cider_scorer_per_image() -> None:
    scorer = CiderScorer([[caption.split() for caption in captions] for captions in REFERENCES])
    tokens = [hypothesis.split() for hypothesis in HYPOTHESES]
    scores = [scorer.score_image(image, tokens[image]) for image in range(3)]
    assert scorer(tokens) == pytest.approx(sum(scores) / 3)
    assert scores[1] > scorer.score_image(1, tokens[0]), "a caption fits its own image best"


def test_cider_scorer_refuses_what_does_not_match() -> None:
    with pytest.raises(DataError, match="at least one reference"):
        CiderScorer([[["a"]], []])
    with pytest.raises(DataError, match="2 hypotheses cannot be scored for 1 images"):
        CiderScorer([[["a"]]])([["a"], ["b"]])
