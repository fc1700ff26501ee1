"""What a captioner says about the pictures of a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from captioner.captioner import Caption, Captioner
from captioner.errors import DataError
from captioner.tokens import Tokenizer
from training.datasets import Example

BATCH = 32


def predict(captioner: Captioner, examples: Sequence[Example], **options: Any) -> list[Caption]:
    """The best caption of each example's picture, in order.

    Raises:
        ImageError: a picture cannot be read; a figure over the others would not be comparable.
    """
    results = captioner.batch([example.image for example in examples], batch_size=BATCH, **options)
    captions = []
    for result in tqdm(results, total=len(examples), desc="captions", unit="image", leave=False):
        if result.error is not None:
            raise result.error
        captions.append(result.captions[0])
    return captions


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
