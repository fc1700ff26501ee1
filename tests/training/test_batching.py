from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captioner.tokens import Vocabulary
from training.batching import Batch, encode_captions, make_batches, make_corpus, pad_captions
from training.datasets import Example
from training.recipe import Recipe

PAD, BOS, EOS, UNK = Vocabulary.pad, Vocabulary.bos, Vocabulary.eos, Vocabulary.unk


def batches_of(
    captions: Sequence[Sequence[Sequence[int]]],
    images_per_batch: int = 4,
    captions_per_image: int = 2,
    seed: int = 0,
    **options: bool,
) -> list[Batch]:
    return make_batches(
        captions,
        images_per_batch=images_per_batch,
        captions_per_image=captions_per_image,
        random=np.random.default_rng(seed),
        **options,
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


def test_the_corpus_is_what_a_recipe_makes_of_the_training_split(
    toy_recipe: Recipe, toy_examples: dict[str, list[Example]]
) -> None:
    examples = toy_examples["train"]
    corpus = make_corpus(examples, toy_recipe.replace(min_count=9, max_tokens=4))
    assert corpus.images == [example.image for example in examples]
    assert corpus.captions[0] == [["a", "red", "square"], ["one", "square", "all", "red"]]
    assert corpus.vocabulary.tokens[4:] == ("a", "all", "one"), "twelve times each; a colour occurs six times"
    a, all_, one = corpus.vocabulary.encode(["a", "all", "one"])
    assert corpus.encoded[0] == [[BOS, a, UNK, UNK, EOS], [BOS, one, UNK, all_, UNK, EOS]]
    cut = make_corpus(examples, toy_recipe.replace(max_tokens=3))
    assert [len(caption) for caption in cut.encoded[0]] == [5, 4]
    assert cut.captions == corpus.captions, "the tokens themselves are not cut"


def test_captions_are_padded_to_the_longest_and_the_most() -> None:
    captions = [[[BOS, 5, EOS]], [[BOS, 6, 7, EOS], [BOS, EOS]]]
    expected = [[[BOS, 5, EOS, PAD], [PAD] * 4], [[BOS, 6, 7, EOS], [BOS, EOS, PAD, PAD]]]
    assert pad_captions(captions).tolist() == expected
    assert pad_captions(captions, 3).tolist() == [[*own, [PAD] * 4] for own in expected]


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


@given(
    counts=st.lists(st.integers(1, 6), min_size=1, max_size=15),
    captions_per_image=st.integers(1, 4),
    every_caption=st.booleans(),
    seed=st.integers(0, 9),
)
def test_a_batch_tells_which_caption_each_row_is(
    counts: list[int], captions_per_image: int, every_caption: bool, seed: int
) -> None:
    captions = [[[BOS, *([4 + image] * number), EOS] for number in range(count)] for image, count in enumerate(counts)]
    for batch in batches_of(captions, 3, captions_per_image, seed, every_caption=every_caption):
        assert batch.captions.shape == (len(batch.tokens),)
        for row, (number, tokens) in enumerate(zip(batch.captions, batch.tokens.tolist(), strict=True)):
            said = [token for token in tokens if token != PAD]
            if number < 0:
                assert said == []
            else:
                assert said == captions[batch.images[row // captions_per_image]][number]


def test_an_epoch_of_images_has_each_once_with_some_of_its_captions() -> None:
    captions = random_captions(images=30)
    pairs = []
    for seed in range(20):
        batches = batches_of(captions, 4, 2, seed, every_caption=False)
        assert sorted(image for batch in batches for image in batch.images) == list(range(30))
        assert all((batch.captions >= 0).all() for batch in batches)
        numbers = {
            int(image): pair
            for batch in batches
            for image, pair in zip(batch.images, batch.captions.reshape(-1, 2).tolist(), strict=True)
        }
        assert all(len(set(pair)) == 2 for pair in numbers.values()), "two captions, not one twice"
        pairs.append(numbers[0])
    assert {number for pair in pairs for number in pair} == set(range(5)), "in time, all of them"


def test_an_image_of_few_captions_is_filled_up_where_each_occurs_once() -> None:
    captions = [[[BOS, 5, EOS]], [[BOS, 6, EOS], [BOS, 7, EOS], [BOS, 8, EOS]]]
    (batch,) = batches_of(captions, 2, 2, every_caption=False)
    assert sorted(batch.images.tolist()) == [0, 1]
    rows = dict(zip(batch.images.tolist(), batch.captions.reshape(2, 2).tolist(), strict=True))
    assert rows[0] == [0, -1]
