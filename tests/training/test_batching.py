from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captioner.tokens import Vocabulary
from training.batching import Batch, encode_captions, make_batches

PAD, BOS, EOS, UNK = Vocabulary.pad, Vocabulary.bos, Vocabulary.eos, Vocabulary.unk


def batches_of(
    captions: Sequence[Sequence[Sequence[int]]], images_per_batch: int = 4, captions_per_image: int = 2, seed: int = 0
) -> list[Batch]:
    return make_batches(
        captions,
        images_per_batch=images_per_batch,
        captions_per_image=captions_per_image,
        random=np.random.default_rng(seed),
    )


def rows_of(batch: Batch) -> list[tuple[int, tuple[int, ...]]]:
    """Image number and tokens of each row that holds a caption, its padding stripped."""
    copies = len(batch.tokens) // len(batch.images)
    return [
        (int(batch.images[row // copies]), tuple(token for token in tokens if token != PAD))
        for row, tokens in enumerate(batch.tokens.tolist())
        if any(token != PAD for token in tokens)
    ]


def random_captions(images: int, seed: int = 0) -> list[list[list[int]]]:
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 30, size=(images, 5))
    return [[[BOS, *random.integers(4, 99, size=length).tolist(), EOS] for length in own] for own in lengths]


def test_captions_are_numbered_between_begin_and_end() -> None:
    vocabulary = Vocabulary.build([["a", "dog"]])
    a, dog = vocabulary.encode(["a", "dog"])
    assert encode_captions([[["a", "dog"], ["dog"]], [["a", "cat"]]], vocabulary, max_tokens=4) == [
        [[BOS, a, dog, EOS], [BOS, dog, EOS]],
        [[BOS, a, UNK, EOS]],
    ]


def test_a_cut_caption_teaches_no_end() -> None:
    vocabulary = Vocabulary.build([["a", "red", "dog"]])
    a, red, dog = vocabulary.encode(["a", "red", "dog"])
    (image,) = encode_captions([[["a", "red", "dog"], ["a", "red"]]], vocabulary, max_tokens=2)
    assert image == [[BOS, a, red], [BOS, a, red, EOS]]
    assert encode_captions([[["a", "red", "dog"]]], vocabulary, max_tokens=3) == [[[BOS, a, red, dog, EOS]]]


@given(
    captions=st.lists(
        st.lists(st.lists(st.integers(4, 20), max_size=6).map(lambda own: [BOS, *own, EOS]), min_size=1, max_size=6),
        min_size=1,
        max_size=20,
    ),
    images_per_batch=st.integers(1, 5),
    captions_per_image=st.integers(1, 6),
    seed=st.integers(0, 9),
)
def test_an_epoch_holds_every_caption_once(
    captions: list[list[list[int]]], images_per_batch: int, captions_per_image: int, seed: int
) -> None:
    batches = batches_of(captions, images_per_batch, captions_per_image, seed)
    seen = Counter(row for batch in batches for row in rows_of(batch))
    assert seen == Counter((image, tuple(caption)) for image, own in enumerate(captions) for caption in own)
    for batch in batches:
        assert 1 <= len(batch.images) <= images_per_batch
        assert len(batch.tokens) == len(batch.images) * captions_per_image


def test_padding_is_no_longer_than_the_longest_caption_and_follows_it() -> None:
    captions = random_captions(images=50)
    for batch in batches_of(captions):
        real = batch.tokens != PAD
        assert real.any(dim=0).all(), "a column of nothing but padding"
        assert (real.int().diff(dim=1) <= 0).all(), "padding amid a caption"
        assert batch.tokens.dtype == torch.int64


def test_the_last_group_of_an_image_is_filled_with_empty_places() -> None:
    captions = [[[BOS, 5, EOS], [BOS, 6, EOS], [BOS, 7, EOS]]]
    batches = batches_of(captions, images_per_batch=2, captions_per_image=2)
    (batch,) = batches
    assert batch.images.tolist() == [0, 0]
    assert batch.tokens.shape == (4, 3)
    assert sorted((batch.tokens != PAD).any(dim=1).tolist()) == [False, True, True, True]


def test_captions_of_like_length_stand_together() -> None:
    captions = [[own] for image in random_captions(images=80) for own in image]
    spread = [np.ptp((batch.tokens != PAD).sum(dim=1).numpy()) for batch in batches_of(captions, 20, 1)]
    assert np.mean(spread) < 4, "of lengths from 3 to 31"


def test_batches_come_in_random_order() -> None:
    lengths = [batch.tokens.shape[1] for batch in batches_of(random_captions(images=25))]  # one pool
    assert lengths != sorted(lengths)
    assert lengths != sorted(lengths, reverse=True)


def test_an_image_does_not_always_pair_the_same_captions() -> None:
    captions = random_captions(images=1)
    pairs = {
        frozenset(row for _, row in rows_of(batch)) for seed in range(9) for batch in batches_of(captions, 1, 2, seed)
    }
    assert len(pairs) > 3


@pytest.mark.parametrize("seed", [0, 1])
def test_the_order_follows_from_the_generator_alone(seed: int) -> None:
    captions = random_captions(images=30)
    first, again, other = (
        [rows_of(batch) for batch in batches_of(captions, seed=number)] for number in (seed, seed, seed + 1)
    )
    assert first == again
    assert first != other
