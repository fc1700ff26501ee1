"""Caption metrics: BLEU, METEOR, ROUGE-L and CIDEr by the coco-caption standard.

Figures compare with published ones only under the whole convention (Chen et al. 2015, "Microsoft COCO Captions"): Penn
Treebank tokens in lower case without punctuation on both sides, all references, corpus BLEU with the closest reference
length. :func:`score` keeps it by running pycocoevalcap's own classes.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from captioner.errors import DataError, DependencyError, OptionError
from captioner.tokens import WordTokenizer

Sentences = dict[int, list[str]]  # image number to tokenised sentences, the shape that pycocoevalcap takes


def score(references: Sequence[Sequence[str]], hypotheses: Sequence[str], tokenizer: str = "ptb") -> dict[str, float]:
    """Score one hypothesis per image against that image's references.

    Args:
        references: raw captions of each image, one or more.
        hypotheses: one caption per image, in the same order; an empty one scores 0.
        tokenizer: ``ptb``, the standard, needs Java; ``simple`` needs none, but its figures are not comparable with
            published ones and METEOR, which is a Java program, is left out.

    Returns:
        ``BLEU-1`` to ``BLEU-4``, ``METEOR`` and ``ROUGE-L`` in [0, 1], ``CIDEr`` in [0, 10].

    Raises:
        DataError: there is nothing to score, or the two sides do not match.
        OptionError: there is no such tokenizer.
        DependencyError: pycocoevalcap or Java is missing.
    """
    require_scoring(tokenizer)
    _check(references, hypotheses)
    rouge, cider_standard = _coco("rouge.rouge").Rouge(), _coco("cider.cider").Cider()

    tokenize = _ptb if tokenizer == "ptb" else _simple
    gold, guess = tokenize(references), tokenize([[hypothesis] for hypothesis in hypotheses])
    if not any(sentence for sentences in gold.values() for sentence in sentences):
        raise DataError("the references hold no words to score against, only punctuation")

    figures = {f"BLEU-{n}": figure for n, figure in enumerate(_bleu(gold, guess), start=1)}
    if tokenizer == "ptb":
        figures["METEOR"] = _meteor(gold, guess)
    figures["ROUGE-L"] = rouge.compute_score(gold, guess)[0]
    figures["CIDEr"] = cider_standard.compute_score(gold, guess)[0]
    return {name: float(figure) for name, figure in figures.items()}


def bleu(references: Sequence[Sequence[str]], hypotheses: Sequence[str]) -> list[float]:
    """BLEU-1 to BLEU-4 of symbols that white space separates already, by pycocoevalcap's own class.

    Raises:
        DataError: there is nothing to score, or the two sides do not match.
        DependencyError: pycocoevalcap is missing.
    """
    _check(references, hypotheses)
    return _bleu(dict(enumerate(map(list, references))), {i: [one] for i, one in enumerate(hypotheses)})


def _bleu(gold: Sentences, guess: Sentences) -> list[float]:
    figures: list[float] = _coco("bleu.bleu").Bleu(4).compute_score(gold, guess, verbose=0)[0]
    return figures


def _check(references: Sequence[Sequence[str]], hypotheses: Sequence[str]) -> None:
    if len(references) != len(hypotheses):
        raise DataError(
            f"{len(hypotheses)} hypotheses cannot be scored against references for {len(references)} images"
        )
    if not hypotheses:
        raise DataError("there are no hypotheses to score")
    if not all(references):
        raise DataError(f"image number {next(i for i, r in enumerate(references) if not r)} has no reference caption")


def require_scoring(tokenizer: str) -> None:
    """Raise now what :func:`score` would raise for want of a package or program, before long work is done for it.

    Raises:
        OptionError: there is no such tokenizer.
        DependencyError: pycocoevalcap or Java is missing.
    """
    if tokenizer not in ("ptb", "simple"):
        raise OptionError(f"unknown tokenizer {tokenizer!r}; choose ptb or simple")
    _coco("cider.cider")
    if tokenizer == "ptb" and shutil.which("java") is None:
        raise DependencyError(
            "Java 11 or newer must be on PATH for the PTB tokeniser and METEOR; without it, tokenizer='simple' gives "
            "BLEU, ROUGE-L and CIDEr that are not comparable with published figures"
        )


def _coco(module: str) -> Any:
    try:
        return importlib.import_module(f"pycocoevalcap.{module}")
    except ImportError as error:
        raise DependencyError("scoring needs pycocoevalcap: run make install-train") from error


def _simple(texts: Sequence[Sequence[str]]) -> Sentences:
    tokenize = WordTokenizer().tokenize
    return {image: [" ".join(tokenize(text)) for text in group] for image, group in enumerate(texts)}


def _ptb(texts: Sequence[Sequence[str]]) -> Sentences:
    """Tokenise by Stanford's PTBTokenizer, references and hypotheses in a run each, as the standard does."""
    captions = {i: [{"caption": _one_line(text)} for text in group] for i, group in enumerate(texts)}
    try:
        with _silent_stderr():
            tokenized: Sentences = _coco("tokenizer.ptbtokenizer").PTBTokenizer().tokenize(captions)
    except OSError as error:  # it writes a file beside itself, where we may not
        raise DependencyError(f"the PTB tokeniser could not run: {error}") from error
    if [len(tokenized.get(i, [])) for i in captions] != [len(group) for group in captions.values()]:
        raise DependencyError("the PTB tokeniser gave no answer; check that 'java -version' reports 11 or newer")
    return tokenized


def _one_line(text: str) -> str:
    """The text as the tokeniser can take it: line by line, in UTF-8; a break would shift all captions after it."""
    return " ".join(text.encode("utf-8", "replace").decode().split())


def _meteor(gold: Sentences, guess: Sentences) -> float:
    meteor = _coco("meteor.meteor").Meteor()
    try:
        return float(meteor.compute_score(gold, guess)[0])
    except (OSError, ValueError) as error:
        raise DependencyError("METEOR's Java process stopped early; it needs Java 11 and 2 GB of memory") from error
    finally:
        # Meteor leaves pipes open, and after a failure its lock held, on which its __del__ would wait for ever.
        if meteor.lock.locked():
            meteor.lock.release()
        meteor.meteor_p.kill()
        meteor.meteor_p.communicate()


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Silence standard error also for child processes: Java's tokeniser reports its speed there."""
    saved = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
