"""Which picture an utterance describes, told by its name: the convention of the Flickr 8k Audio Caption Corpus.

The picture ``1000268201_693b08cb0e.jpg`` is described by ``1000268201_693b08cb0e_0``, ``_1`` and so on: its stem, then
``_`` or ``#`` and the number of its caption. The stem alone names an utterance without a number.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from captioner.errors import DataError
from training.alignments import read_alignments
from training.alignments.intervals import Alignment
from training.datasets import Example
from training.layouts import as_text

Dataset = dict[str, list[Example]]
_NUMBERED = re.compile(r"(?P<stem>.+)[_#](?P<number>[0-9]{1,9})")
UNNUMBERED = -1  # before the others


class Pairs(NamedTuple):
    """Pictures with what is said of them.

    Attributes:
        dataset: by split, an example for each picture that an utterance describes. Its tokens are those of its
            utterances, in the order of their numbers; its captions the text of the same numbers (an utterance without
            a number says a picture's only caption), or the tokens joined where one of them has no text.
        unspoken: names of the pictures without an utterance.
        unseen: utterances without a picture.
    """

    dataset: Dataset
    unspoken: list[str]
    unseen: list[str]


def pair(dataset: Dataset, source: Path, tokens: Callable[[Alignment], tuple[str, ...]]) -> Pairs:
    """Give each picture the tokens of its utterances.

    Args:
        dataset: pictures by split, with captions.
        source: alignments, a folder or a file.
        tokens: what is made of an utterance.

    Raises:
        DataError: an alignment is malformed, no utterance has a picture, one could be of several pictures, or two of a
            picture have one number.
    """
    stems: dict[str, list[Example]] = {}
    for examples in dataset.values():
        for example in examples:
            stems.setdefault(example.image.stem, []).append(example)
    said: dict[Path, dict[int, tuple[str, ...]]] = {}
    unseen: list[str] = []
    for alignment in read_alignments(source):
        found = _find(alignment.utterance, stems)
        if found is None:
            unseen.append(alignment.utterance)
            continue
        image, number = found
        utterances = said.setdefault(image, {})
        if number in utterances:
            raise DataError(f"{alignment.source}: {image} has another utterance of the number of {alignment.utterance}")
        utterances[number] = tokens(alignment)
    if not said:
        raise DataError(
            f"no utterance of {source} belongs to a picture of the data: an utterance is called as its picture, with "
            f"the number of its caption behind, as in {next(iter(stems))}_0"
        )
    paired = {
        split: [_spoken(example, said[example.image]) for example in examples if example.image in said]
        for split, examples in dataset.items()
    }
    unspoken = [one.image.name for examples in dataset.values() for one in examples if one.image not in said]
    return Pairs(paired, unspoken, unseen)


def _find(utterance: str, stems: dict[str, list[Example]]) -> tuple[Path, int] | None:
    """The picture that an utterance describes, and the number of its caption."""
    found = [(example.image, UNNUMBERED) for example in stems.get(utterance, ())]
    if match := _NUMBERED.fullmatch(utterance):
        found += [(example.image, int(match["number"])) for example in stems.get(match["stem"], ())]
    if len(found) > 1:
        raise DataError(
            f"the utterance {utterance} could be of {' or '.join(str(image) for image, _ in found)}; "
            "give the pictures names that tell them apart"
        )
    return found[0] if found else None


def _spoken(example: Example, utterances: dict[int, tuple[str, ...]]) -> Example:
    numbers = sorted(utterances)
    tokens = tuple(utterances[number] for number in numbers)
    texts = dict(enumerate(example.captions)) if example.has_text else {}
    if len(texts) == 1:
        texts[UNNUMBERED] = texts[0]
    captions = [texts[number] for number in numbers] if utterances.keys() <= texts.keys() else map(as_text, tokens)
    return replace(example, tokens=tokens, captions=tuple(captions))
