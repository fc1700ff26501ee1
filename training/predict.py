"""What a captioner says about the pictures of a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from captioner.captioner import Captioner
from captioner.errors import DataError
from captioner.results import Caption
from captioner.tokens import Tokenizer
from training import distributed
from training.datasets import Example

BATCH = 32


def predict(captioner: Captioner, examples: Sequence[Example], **options: Any) -> list[Caption]:
    """The best caption of each example's picture, in order; several processes share the pictures, and all have all.

    Raises:
        ImageError: a picture cannot be read; a figure over the others would not be comparable.
    """
    images = [example.image for example in examples][distributed.part_of(len(examples))]
    quiet = not distributed.is_main()

    def caption() -> list[Caption]:
        captions = []
        results = captioner.batch(images, batch_size=BATCH, **options)
        for result in tqdm(results, total=len(images), desc="captions", unit="image", leave=False, disable=quiet):
            if result.error is not None:
                raise result.error
            captions.append(result.captions[0])
        return captions

    return distributed.gather(distributed.agreed(caption))


def reference_tokens(examples: Sequence[Example], tokenizer: Tokenizer) -> list[list[Sequence[str]]]:
    """Each example's captions as tokens: those given with the data, else by ``tokenizer``.

    Raises:
        DataError: only some examples have tokens; words would be learnt beside phones.
    """
    without = [example.image for example in examples if not example.tokens]
    if 0 < len(without) < len(examples):
        raise DataError(
            f"{len(without)} of {len(examples)} images have no tokens, first {without[0]}; give all or none"
        )
    return [
        list(example.tokens) if example.tokens else [tokenizer.tokenize(caption) for caption in example.captions]
        for example in examples
    ]
