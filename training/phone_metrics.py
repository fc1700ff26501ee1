"""Metrics of phone sequences: BLEU-4 and the phone error rate, beside what chance and people reach.

The measures of image2speech (Hasegawa-Johnson et al. 2018): all references; boundaries, stress, silence and noise count
nowhere. A phone error rate is Levenshtein's distance over the length of the reference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import mean

from captioner.errors import DataError, DependencyError
from captioner.phones import split_words
from captioner.reading import plain
from training.metrics import bleu

Phones = Sequence[str]


def score_phones(references: Sequence[Sequence[Phones]], hypotheses: Sequence[Phones]) -> dict[str, float]:
    """Score one hypothesis per image against that image's references.

    Args:
        references: phones of each image's captions, boundaries and stress with them or not.
        hypotheses: one sequence per image, in the same order.

    Returns:
        ``phone-BLEU-4`` in [0, 1], corpus-wide with the closest reference length; ``PER``: an image's smallest error
        rate over its references, averaged over the images; ``PER-mean``: the mean over its references instead.

    Raises:
        DataError: there is nothing to score, the two sides do not match, or a reference holds no phone.
        DependencyError: pycocoevalcap or rapidfuzz is missing.
    """
    gold = [[_phones(reference) for reference in image] for image in references]
    guess = [_phones(hypothesis) for hypothesis in hypotheses]
    figure = bleu([[" ".join(one) for one in image] for image in gold], [" ".join(said) for said in guess])[-1]
    if not all(map(all, gold)):
        raise DataError("a reference holds no phone")
    rates = [[_error_rate(reference, said) for reference in image] for image, said in zip(gold, guess, strict=True)]
    return {
        "phone-BLEU-4": figure,
        "PER": mean(map(min, rates)),
        "PER-mean": mean(map(mean, rates)),
    }


def score_chance(references: Sequence[Sequence[Phones]]) -> dict[str, float]:
    """What the most frequent phone scores, repeated to the length that suits it best: of the shortest reference."""
    gold = [[_phones(reference) for reference in image] for image in references]
    ((commonest, _),) = Counter(phone for image in gold for one in image for phone in one).most_common(1)
    return score_phones(gold, [[commonest] * min(map(len, image)) for image in gold])


def score_people(references: Sequence[Sequence[Phones]]) -> dict[str, float]:
    """What people score: each image's references in turn against its others, averaged.

    Raises:
        DataError: an image has fewer than two references.
    """
    turns = min(map(len, references))
    if turns < 2:
        raise DataError("people are compared with one another: every image needs two references")
    scores = [
        score_phones(
            [[*image[:turn], *image[turn + 1 :]] for image in references], [image[turn] for image in references]
        )
        for turn in range(turns)
    ]
    return {metric: mean(score[metric] for score in scores) for metric in scores[0]}


def require_phone_scoring() -> None:
    """Raise now what :func:`score_phones` would raise for want of a package, before long work is done for it.

    Raises:
        DependencyError: pycocoevalcap or rapidfuzz is missing.
    """
    bleu([["AH"]], ["AH"])
    _error_rate(["AH"], ["AH"])


def _phones(tokens: Phones) -> tuple[str, ...]:
    return plain(phone for word in split_words(tokens) for phone in word)


def _error_rate(reference: Phones, said: Phones) -> float:
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError as error:
        raise DependencyError("scoring phones needs rapidfuzz: run make install-train") from error
    return Levenshtein.distance(reference, said) / len(reference)
