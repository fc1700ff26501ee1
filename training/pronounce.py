"""Phones of a dataset's captions: those that came with it, else those of the dictionary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tqdm import tqdm

from captioner.errors import DataError, OptionError
from captioner.pronunciation import Pronouncer
from captioner.speech import EspeakSpeaker
from training.datasets import Example

Tokens = tuple[str, ...]


def pronounce(texts: Iterable[str]) -> list[Tokens]:
    """English texts as ARPAbet with stress and boundaries.

    Raises:
        DataError: a text cannot be pronounced.
        DependencyError: the ``speech`` extra is not installed.
    """
    with EspeakSpeaker() as speaker:
        pronouncer = Pronouncer(speaker.transcribe)

        def phones(text: str) -> Tokens:
            try:
                return tuple(pronouncer(text))
            except OptionError as error:
                raise DataError(f"{text!r}: {error}") from error

        return [phones(text) for text in tqdm(texts, desc="phones", unit="caption", leave=False)]


def phones_of(examples: Sequence[Example]) -> list[list[Tokens]]:
    """The phones of each example's captions: its tokens, or its English text pronounced.

    Raises:
        DataError: a caption cannot be pronounced.
        DependencyError: there is text to pronounce, and the ``speech`` extra is not installed.
    """
    texts = [text for example in examples if not example.tokens for text in example.captions]
    spoken = iter(pronounce(texts) if texts else [])
    return [
        list(example.tokens) if example.tokens else [next(spoken) for _ in example.captions] for example in examples
    ]
