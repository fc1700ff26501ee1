"""Image-caption data: four layouts in, examples per split out.

The layout is recognised by looking, in this order:

=========  ==========================================================================================================
JSONL      rows ``{"image", "caption" | "captions", "tokens"}``, text, tokens or both, in train.jsonl, dev.jsonl and
           test.jsonl, or one file
Karpathy   ``dataset_flickr8k.json``
original   ``Flickr8k.token.txt`` with ``Flickr_8k.trainImages.txt``, ``.devImages.txt`` and ``.testImages.txt``
Kaggle     ``captions.txt``, a table ``image,caption``; the original lists decide the splits if they lie there too
=========  ==========================================================================================================

Flickr8k's pictures are looked for in ``Images``, ``Flicker8k_Dataset`` or ``Flickr8k_Dataset``, its text files in the
directory or its ``Flickr8k_text``. Where nothing decides the split of an image, :func:`hashed_split` does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from captioner.errors import DataError
from training import layouts
from training.layouts import SPLITS, Row, as_text


@dataclass(frozen=True)
class Example:
    """One image with its reference captions.

    Attributes:
        image: path of the picture; the file exists.
        captions: raw text, at least one: what people read. The tokens with spaces between, where there is no text.
        split: ``train``, ``dev`` or ``test``.
        tokens: one sequence per caption, what a model learns as it is; None where the text is to be tokenised.
    """

    image: Path
    captions: tuple[str, ...]
    split: str
    tokens: tuple[tuple[str, ...], ...] | None = None

    @property
    def has_text(self) -> bool:
        """Whether the captions tell more than the tokens do."""
        return self.tokens is None or self.captions != tuple(map(as_text, self.tokens))


def read_dataset(source: str | Path, *, required: Sequence[str] = ()) -> dict[str, list[Example]]:
    """Read a dataset of any known layout.

    Args:
        source: a directory, a ``.jsonl`` file or a Karpathy ``.json`` file.
        required: splits that the caller cannot do without.

    Returns:
        The examples of each split that is there, in the order train, dev, test and within a split in file order. A test
        split of which no image is there counts as withheld and is left out.

    Raises:
        DataError: a file or image is missing, a line is malformed, an image stands in two splits, or a required split
            is absent.
    """
    source = Path(source)
    dataset: dict[str, list[Example]] = {}
    for example in _grouped(layouts.read_rows(source)):
        dataset.setdefault(example.split, []).append(example)
    dataset = {split: dataset[split] for split in SPLITS if split in dataset and _has_images(split, dataset[split])}
    if not dataset:
        raise DataError(f"{source} holds no examples with images")
    for split in required:
        if split not in dataset:
            raise DataError(
                f"{source} has no {split} split, or none of its images; it has {', '.join(dataset)}. "
                f"{layouts.WHERE_TO_GET}"
            )
    return dataset


def hashed_split(name: str) -> str:
    """Split of an image by its file name alone: 6/8 train, 1/8 dev, 1/8 test, as Flickr8k's 6000/1000/1000.

    The same name always lands in the same split, on every machine and whatever else the dataset holds.
    """
    bucket = int.from_bytes(hashlib.sha256(name.encode()).digest()) % 8
    return {0: "dev", 1: "test"}.get(bucket, "train")


def _grouped(rows: Iterable[Row]) -> Iterable[Example]:
    """Collect the captions of each image; refuse an image that two splits claim."""
    images: dict[Path, list[Row]] = {}
    for row in rows:
        images.setdefault(row.image, []).append(row)
    for image, group in images.items():
        splits = sorted({row.split or hashed_split(image.name) for row in group})
        if len(splits) > 1:
            raise DataError(f"{image} is in the {' and the '.join(splits)} split; remove it from all but one")
        tokens = tuple(row.tokens for row in group if row.tokens is not None)
        if tokens and len(tokens) != len(group):
            raise DataError(f"{image} has tokens for {len(tokens)} of its {len(group)} captions; give all or none")
        yield Example(image, tuple(row.caption for row in group), splits[0], tokens or None)


def _has_images(split: str, examples: Sequence[Example]) -> bool:
    """Whether the pictures are there: all of them, or for a withheld test split none."""
    missing = [example.image for example in examples if not example.image.is_file()]
    if split == "test" and len(missing) == len(examples):
        return False
    if missing:
        raise DataError(
            f"{len(missing)} of {len(examples)} images of the {split} split are missing, first {missing[0]}; "
            "put them there, or take them out of the split"
        )
    return True
