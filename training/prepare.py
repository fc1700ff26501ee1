"""Check a dataset thoroughly, describe it, and write it down in the one generic layout.

    python -m training.prepare --data Flickr8k --output prepared

Every picture is decoded. Those that cannot be are named on standard error and left out. The output folder gets a
``train.jsonl``, ``dev.jsonl`` and ``test.jsonl`` (as far as the data has them) with absolute image paths, and can be
given as ``--data`` wherever a dataset is read.

Models that speak learn phones, which then stand in the rows as tokens beside the captions. With ``--phones`` they are
the captions, pronounced. With ``--alignments`` they are what was said in recordings, as a forced aligner found it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from captioner.errors import CaptionerError, DataError, ImageError, OptionError
from captioner.images import open_image
from captioner.phones import BOUNDARY, without_stress
from captioner.tokens import WordTokenizer
from training.alignments import SUFFIXES
from training.alignments.pairing import Dataset, pair
from training.alignments.symbols import NOISE_CHOICES, PHONE_SETS, SILENCE_CHOICES, SilencePolicy, phone_tokens
from training.datasets import Example, read_dataset
from training.layouts import SPLITS
from training.pronounce import phones_of

MIN_COUNTS = (1, 2, 3, 4, 5)  # vocabulary thresholds whose coverage is reported


def find_broken_images(examples: Iterable[Example]) -> dict[Path, str]:
    """Decode every picture; the message of each that cannot be captioned, by path."""

    def problem(image: Path) -> str | None:
        try:
            open_image(image)
        except ImageError as error:
            return str(error)
        return None

    images = [example.image for example in examples]
    with ThreadPoolExecutor() as pool:  # Pillow decodes without holding the interpreter's lock
        return {image: message for image, message in zip(images, pool.map(problem, images), strict=True) if message}


def describe(dataset: Dataset) -> dict[str, Any]:
    """Figures of a dataset as plain JSON values.

    Returns:
        ``splits``: per split its images, captions, and the distributions of captions per image and tokens per caption.
        ``vocabulary``: per threshold, how many token types the train split has at least so often, and the share of
        each other split's tokens that they cover in [0, 1]; empty without a train split.
    """
    tokens = {split: [sequence for example in dataset[split] for sequence in _tokens(example)] for split in dataset}
    splits = {
        split: {
            "images": len(dataset[split]),
            "captions": len(tokens[split]),
            "captions_per_image": _distribution([len(example.captions) for example in dataset[split]]),
            "tokens_per_caption": _distribution([len(sequence) for sequence in tokens[split]]),
        }
        for split in dataset
    }
    counts = {split: Counter(token for sequence in tokens[split] for token in sequence) for split in dataset}
    vocabulary = []
    for min_count in MIN_COUNTS if "train" in dataset else ():
        kept = {token for token, count in counts["train"].items() if count >= min_count}
        coverage = {
            split: sum(count for token, count in counted.items() if token in kept) / max(1, counted.total())
            for split, counted in counts.items()
        }
        vocabulary.append({"min_count": min_count, "types": len(kept), "coverage": coverage})
    return {"splits": splits, "vocabulary": vocabulary}


def format_description(description: dict[str, Any]) -> str:
    """The figures of :func:`describe` as two tables in plain text."""
    spread = "min / median / 95% / max"
    lines = [f"{'split':<8}{'images':>8}{'captions':>10}   {'per image: ' + spread:<40}{'tokens: ' + spread}"]
    for split, figures in description["splits"].items():
        per_image, length = (
            " / ".join(f"{value:g}" for value in figures[key].values())
            for key in ("captions_per_image", "tokens_per_caption")
        )
        lines.append(f"{split:<8}{figures['images']:>8}{figures['captions']:>10}   {per_image:<40}{length}")
    if description["vocabulary"]:
        lines += ["", "seen at least   types   tokens covered"]
    for row in description["vocabulary"]:
        coverage = ", ".join(f"{split} {share:.2%}" for split, share in row["coverage"].items())
        lines.append(f"{row['min_count']:>13}{row['types']:>8}   {coverage}")
    return "\n".join(lines)


def to_phones(dataset: Dataset, *, stress: bool, boundaries: bool) -> Dataset:
    """The same examples with their captions pronounced.

    Args:
        dataset: captions in English.
        stress: keep the vowels' digits of stress.
        boundaries: keep a token between words.

    Raises:
        DependencyError: the ``speech`` extra is not installed.
        DataError: a caption cannot be pronounced, or has tokens already.
    """
    examples = [example for split in dataset.values() for example in split]
    for example in examples:
        if example.tokens:
            raise DataError(f"{example.image} has tokens already; --phones pronounces captions")
    spoken = iter(phones_of(examples))

    def phones(example: Example) -> Iterator[tuple[str, ...]]:
        for caption, tokens in zip(example.captions, next(spoken), strict=True):
            if not tokens:
                raise DataError(f"a caption of {example.image} has no words: {caption!r}")
            kept = tokens if stress else without_stress(tokens)
            yield tuple(token for token in kept if boundaries or token != BOUNDARY)

    return {split: [replace(one, tokens=tuple(phones(one))) for one in dataset[split]] for split in dataset}


def write_dataset(dataset: Dataset, directory: Path) -> None:
    """Write one JSONL file per split, in the generic layout and with absolute image paths."""
    directory.mkdir(parents=True, exist_ok=True)
    for split, examples in dataset.items():
        with (directory / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for example in examples:
                row: dict[str, Any] = {"image": str(example.image.absolute())}
                row |= {"captions": example.captions} if example.has_text else {}
                row |= {"tokens": example.tokens} if example.tokens else {}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 all well, 1 something in the data is wrong, 2 wrong usage."""
    arguments = _parse(argv)
    try:
        dataset = read_dataset(arguments.data)
        if arguments.alignments:
            tokens = partial(
                phone_tokens,
                policy=arguments.policy,
                phone_set=arguments.phone_set or "arpabet",
                stress=arguments.stress,
                boundaries=arguments.boundaries,
            )
            dataset, unspoken, unseen = pair(dataset, arguments.alignments, tokens)
            for names, what in ((unspoken, "pictures without an utterance"), (unseen, "utterances without a picture")):
                if names:
                    print(f"left out {len(names)} {what}, first {names[0]}", file=sys.stderr)
        broken = find_broken_images(example for examples in dataset.values() for example in examples)
        sound = {split: [example for example in dataset[split] if example.image not in broken] for split in dataset}
        sound = {split: examples for split, examples in sound.items() if examples}
        if arguments.phones:
            sound = to_phones(sound, stress=arguments.stress, boundaries=arguments.boundaries)
        description = describe(sound)
        write_dataset(sound, arguments.output)
        if arguments.json:
            arguments.json.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    except (CaptionerError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(format_description(description))
    for image, message in broken.items():
        print(f"left out {image}: {message}", file=sys.stderr)
    return 1 if broken else 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.prepare", description="Check and normalise a dataset.")
    parser.add_argument("--data", type=Path, required=True, help="Flickr8k in any of its layouts, or JSONL")
    parser.add_argument("--output", type=Path, required=True, help="folder for train.jsonl, dev.jsonl and test.jsonl")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    phones = parser.add_argument_group("phones")
    source = phones.add_mutually_exclusive_group()
    source.add_argument("--phones", action="store_true", help="add the captions' phones, pronounced from their text")
    source.add_argument(
        "--alignments", type=Path, metavar="PATH", help=f"add phones of recorded speech: a folder of {SUFFIXES} files"
    )
    phones.add_argument("--stress", action="store_true", help="keep the stress of vowels")
    phones.add_argument("--boundaries", action="store_true", help="keep a token between words")
    speech = parser.add_argument_group("with --alignments")
    speech.add_argument("--phone-set", choices=PHONE_SETS, help="any keeps the symbols of another language [arpabet]")
    speech.add_argument("--silence", choices=SILENCE_CHOICES, help="what becomes of pauses [drop]")
    speech.add_argument("--noise", choices=NOISE_CHOICES, help="what becomes of breath, laughter, unknown words [drop]")
    speech.add_argument("--shortest-pause", type=float, metavar="SECONDS", help="shorter silence is none [0.05]")
    arguments = parser.parse_args(argv)
    if (arguments.stress or arguments.boundaries) and not (arguments.phones or arguments.alignments):
        parser.error("--stress and --boundaries go with --phones or --alignments")
    if arguments.stress and arguments.phone_set == "any":
        parser.error("--stress belongs to ARPAbet; --phone-set any keeps every symbol as it is")
    policy = {name: getattr(arguments, name) for name in ("silence", "noise", "shortest_pause")}
    policy = {name: value for name, value in policy.items() if value is not None}
    if (policy or arguments.phone_set) and not arguments.alignments:
        parser.error("--phone-set, --silence, --noise and --shortest-pause go with --alignments")
    try:
        arguments.policy = SilencePolicy(**policy)
    except OptionError as error:
        parser.error(str(error))
    for split in SPLITS:
        # A split left over from other data would silently join this dataset.
        if (arguments.output / f"{split}.jsonl").exists():
            parser.error(f"{arguments.output} already holds {split}.jsonl; remove it or choose another folder")
    return arguments


def _tokens(example: Example) -> Sequence[Sequence[str]]:
    return example.tokens or [WordTokenizer().tokenize(caption) for caption in example.captions]


def _distribution(values: Sequence[int]) -> dict[str, float]:
    minimum, median, high, maximum = np.percentile(values, [0, 50, 95, 100]).tolist()
    return {"min": minimum, "median": median, "p95": high, "max": maximum}


if __name__ == "__main__":
    sys.exit(main())
