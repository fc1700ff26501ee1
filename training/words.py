"""Teach a model of phones to be read: ``python -m training.words --data DIR --model DIR``.

From the training captions, written and spoken, come a lexicon and an n-gram language model; they are written into the
model's directory, where :mod:`captioner.reading` finds them. English text without phones is pronounced; data of another
language brings both (``captions`` and ``tokens`` with boundaries, see :mod:`training.datasets`).
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from captioner.checkpoint import read_info, resolve
from captioner.errors import CaptionerError, DataError, ModelError, OptionError
from captioner.ngrams import NgramModel
from captioner.phones import split_words
from captioner.pronunciation import spell_out
from captioner.reading import WORDS_NAME, Phones, WordReader
from training.datasets import Example, read_dataset
from training.pronounce import phones_of

log = logging.getLogger(__name__)


def learn_words(examples: Sequence[Example]) -> WordReader:
    """A reader from captions and their phones.

    A caption whose phones have as many words as its text teaches how its words sound; every caption teaches which words
    follow one another. Examples without text are left out.

    Raises:
        DataError: no example has text, or no caption's words and phones belong together.
        DependencyError: there is text to pronounce, and the ``speech`` extra is not installed.
    """
    examples = [example for example in examples if example.has_text]
    if not examples:
        raise DataError("phones are read by words seen in text: the data needs captions beside its tokens")
    lexicon: defaultdict[str, dict[Phones, None]] = defaultdict(dict)  # in the order of first sight
    sentences: list[list[str]] = []
    skipped: list[str] = []
    for example, sequences in zip(examples, phones_of(examples), strict=True):
        for caption, phones in zip(example.captions, sequences, strict=True):
            spoken = list(split_words(phones))
            words = _split_text(caption, len(spoken)) if example.tokens else spell_out(caption)
            sentences.append(words)
            if len(words) == len(spoken):
                for word, sounds in zip(words, spoken, strict=True):
                    lexicon[word][tuple(sounds)] = None
            else:
                skipped.append(f"{caption!r} has {len(words)} words, its phones {len(spoken)}")
    if not lexicon:
        raise DataError("no caption has as many words in its phones as in its text: do its tokens have boundaries?")
    if skipped:
        log.warning("%d of %d captions teach no sounds, first: %s", len(skipped), len(sentences), skipped[0])
    return WordReader(lexicon, NgramModel.learn(sentences))


def _split_text(caption: str, spoken: int) -> list[str]:
    """The words of any language that puts space between them, in lower case and without punctuation around them.

    A hyphen parts words unless it stands within one of the ``spoken`` words.
    """

    def bare(words: list[str]) -> list[str]:
        stripped = (word.strip("".join(one for one in word if unicodedata.category(one)[0] in "PS")) for word in words)
        return [word for word in stripped if word]

    whole = bare(caption.lower().split())
    return whole if len(whole) == spoken else bare(re.split(r"[\s\-\u2010-\u2015]+", caption.lower()))


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.words", description="Teach a model of phones to be read.")
    parser.add_argument("--data", required=True, type=Path, help="dataset: Flickr8k in any layout, or JSONL")
    parser.add_argument("--model", required=True, help="a bundled model's name or a model directory, made of phones")
    arguments = parser.parse_args(argv)
    try:
        directory = resolve(arguments.model)
        if read_info(directory).tokenizer != "symbols":
            raise OptionError(f"{directory} is no model of phones: its captions need no reading")
        reader = learn_words(read_dataset(arguments.data, required=("train",))["train"])
        reader.save(directory)
    except (CaptionerError, OSError) as error:
        print(f"words: {error}", file=sys.stderr)
        return 2 if isinstance(error, OptionError | ModelError) else 1
    print(f"{len(reader.lexicon)} words, {len(reader.language.counts)} n-grams: {directory / WORDS_NAME}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
