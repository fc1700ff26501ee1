"""How much of a text comes back when it is pronounced and its phones are read again.

    python benchmarks/reading.py --data Flickr8k --split dev --captions 1000

The captions are the first ones of the split's pictures, then their second ones, and so on. Errors are those of the word
error rate: substituted, missing and added words over the words of the text.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

from rapidfuzz.distance import Levenshtein

import captioner
from captioner.phones import BOUNDARY
from captioner.pronunciation import spell_out
from training.datasets import read_dataset
from training.pronounce import pronounce


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--captions", type=int, default=1000)
    parser.add_argument("--model", default="phones", help="whose lexicon and language model read [phones]")
    arguments = parser.parse_args()
    reader = captioner.load(arguments.model).word_reader
    if reader is None:
        parser.error(f"{arguments.model} brings no lexicon: python -m training.words makes one")
    examples = read_dataset(arguments.data, required=(arguments.split,))[arguments.split]
    turns = itertools.zip_longest(*(example.captions for example in examples))
    captions = [caption for turn in turns for caption in turn if caption is not None][: arguments.captions]
    texts = [spell_out(caption) for caption in captions]
    sequences = pronounce(captions)
    known = sum(word in reader.lexicon for words in texts for word in words)
    total = sum(map(len, texts))
    print(f"{len(captions)} captions, {total} words, all pronounced; {known / total:.2%} of them in the lexicon")
    for name, kept in (("with boundaries", (BOUNDARY,)), ("without boundaries", ())):
        started = time.perf_counter()
        said = [reader.read([one for one in phones if one != BOUNDARY or one in kept]) for phones in sequences]
        milliseconds = 1000 * (time.perf_counter() - started) / len(captions)
        errors = sum(Levenshtein.distance(text, read) for text, read in zip(texts, said, strict=True))
        print(f"{name:18}  {1 - errors / total:.2%} of words return   {milliseconds:.1f} ms a caption")


if __name__ == "__main__":
    main()
