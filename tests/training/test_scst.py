"""Self-critical training: what captions are worth, what is learnt from it, and that it helps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocoevalcap.cider.cider import Cider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from captioner.decoding.filters import NEVER
from captioner.model import CaptionModel, Grid
from captioner.tokens import Vocabulary
from training.batching import Batch
from training.cider import CiderScorer
from training.loss import caption_loss
from training.recipe import Recipe, Stage
from training.scst import END, Reward, SelfCritical, advantages, beside, pad_samples, policy_losses, sample_captions
from training.train import train

BOS, EOS, PAD, UNK = Vocabulary.bos, Vocabulary.eos, Vocabulary.pad, Vocabulary.unk
REFERENCES = [
    [text.split() for text in own]
    for own in (
        ("a dog sits on a red sofa", "the dog sits on a sofa", "a dog on a sofa"),
        ("a cat runs on the grass", "the red cat runs", "a cat on the green grass"),
        ("a dog runs on the grass", "the dog runs on the grass"),
    )
]
WORDS = Vocabulary.build((caption for image in REFERENCES for caption in image), min_count=2)


def numbers(text: str, *, ended: bool = True) -> np.ndarray:
    return np.array([*WORDS.encode(text.split()), *([EOS] if ended else [])])


def earn(text: str, *, image: int = 0, ended: bool = True) -> float:
    return float(Reward(REFERENCES, WORDS)(np.array([image]), [[numbers(text, ended=ended)]])[0, 0])


def test_the_reward_is_the_standards_cider_d_with_the_end_as_a_word() -> None:
    said = [["a dog sits on a", "the dog sits on a sofa"], ["a cat runs", "a dog"], ["grass", ""]]
    images = np.array([2, 0, 1])
    rewards = Reward(REFERENCES, WORDS)(images, [[numbers(text) for text in said[image]] for image in images])
    assert rewards.shape == (3, 2)
    gold = {image: [" ".join([*caption, "endofcaption"]) for caption in own] for image, own in enumerate(REFERENCES)}
    for column in range(2):
        guess = {image: [f"{own[column]} endofcaption".strip()] for image, own in enumerate(said)}
        _, expected = Cider().compute_score(gold, guess)
        assert rewards[:, column] == pytest.approx(expected[images], abs=1e-5)


def test_the_reward_is_that_of_the_scorer_over_references_with_their_end() -> None:
    scorer = CiderScorer([[[*caption, END] for caption in image] for image in REFERENCES])
    assert earn("the dog runs on a", image=2) == pytest.approx(
        scorer.score_image(2, ["the", "dog", "runs", "on", "a", END]), abs=1e-5
    )
    assert earn("the dog runs on a", image=2, ended=False) == pytest.approx(
        scorer.score_image(2, ["the", "dog", "runs", "on", "a"]), abs=1e-5
    )


def test_stopping_amid_a_phrase_costs() -> None:
    without_end = CiderScorer(REFERENCES).score_image(0, "a dog sits on a".split())
    assert earn("a dog sits on a") < earn("a dog sits on a sofa")
    assert earn("a dog sits on a") < without_end, "where the end counted for nothing, the stop was free"
    assert earn("a dog sits on a sofa") > earn("a dog sits on a sofa", ended=False), "and an end in its place is earned"


def test_a_word_that_the_vocabulary_lacks_cannot_be_earned() -> None:
    assert "green" not in WORDS
    assert earn("a cat on the grass", image=1) > earn("a cat on the <unk> grass", image=1)
    assert earn("<unk>", image=1, ended=False) == 0


def test_advantages_by_their_definition() -> None:
    rewards = np.random.default_rng(0).random((4, 5)).astype(np.float32)
    expected = np.empty_like(rewards)
    for image, own in enumerate(rewards):
        for sample, reward in enumerate(own):
            others = [other for number, other in enumerate(own) if number != sample]
            expected[image, sample] = reward - sum(others) / len(others)
    found = advantages(rewards)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == np.float32
    np.testing.assert_allclose(advantages(rewards[:, :2]), [[a - b, b - a] for a, b in rewards[:, :2]], atol=1e-6)


def test_the_policy_gradient_by_its_definition() -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 9, generator=random, dtype=torch.float64, requires_grad=True)
    tokens = torch.tensor([[[5, 6, EOS, PAD], [EOS, PAD, PAD, PAD], [5, 6, 7, 8]], [[4, EOS, PAD, PAD]] * 3])
    worth = torch.randn(2, 3, generator=random, dtype=torch.float64)
    policy_losses(logits.log_softmax(dim=-1), tokens, worth).mean().backward()

    expected = torch.zeros_like(logits)
    count = 0
    for image in range(2):
        for sample in range(3):
            steps = [step for step, token in enumerate(tokens[image, sample].tolist()) if token != PAD]
            count += len(steps)
            log_prob = sum(logits[image, sample, step].log_softmax(0)[tokens[image, sample, step]] for step in steps)
            assert isinstance(log_prob, Tensor)
            expected -= worth[image, sample] * torch.autograd.grad(log_prob, logits)[0]
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, expected / count)


def test_samples_are_padded_behind_their_begin() -> None:
    samples = [[np.array([5, 6, EOS]), np.array([EOS])], [np.array([7, 8, 9]), np.array([4, EOS])]]
    expected = [[BOS, 5, 6, EOS], [BOS, EOS, PAD, PAD], [BOS, 7, 8, 9], [BOS, 4, EOS, PAD]]
    found = pad_samples(samples)
    assert found.tolist() == expected
    assert found.dtype == torch.int64


@pytest.mark.parametrize("longer", ["drawn", "given"])
def test_captions_stand_beside_the_samples_of_their_image(longer: str) -> None:
    two = torch.tensor([[11, 12], [13, 14], [21, 22], [23, 24]])  # of two images
    three = torch.tensor([[15, 16, 17], [25, 26, 27]])
    if longer == "given":
        expected = [[11, 12, PAD], [13, 14, PAD], [15, 16, 17], [21, 22, PAD], [23, 24, PAD], [25, 26, 27]]
        assert beside(two, three, 2).tolist() == expected
    else:
        expected = [[15, 16, 17], [11, 12, PAD], [13, 14, PAD], [25, 26, 27], [21, 22, PAD], [23, 24, PAD]]
        assert beside(three, two, 2).tolist() == expected


@pytest.fixture
def features(tiny_model: CaptionModel) -> Tensor:
    """Of four images."""
    return torch.randn(4, 6, tiny_model.config.grid_features, generator=torch.Generator().manual_seed(0))


def draw(model: CaptionModel, features: Tensor, *, seed: int = 0, max_length: int = 6) -> list[list[np.ndarray]]:
    with torch.no_grad():
        grid = model.read(features)
    return sample_captions(model, grid, samples=25, max_length=max_length, seed=seed)


def test_samples_follow_from_their_seed(tiny_model: CaptionModel, features: Tensor) -> None:
    first, again, other = (
        [[sample.tolist() for sample in image] for image in draw(tiny_model, features, seed=seed)] for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other
    assert all(len(image) == 25 for image in first)
    assert all(len({tuple(sample) for sample in image}) > 3 for image in first), "drawn, not searched"


@pytest.mark.parametrize("max_length", [1, 4, 20])
def test_samples_end_with_the_end_unless_they_are_cut_off(
    tiny_model: CaptionModel, features: Tensor, max_length: int
) -> None:
    samples = [sample for image in draw(tiny_model, features, max_length=max_length) for sample in image]
    for sample in samples:
        assert 1 <= len(sample) <= max_length
        assert sample[-1] == EOS or len(sample) == max_length
        assert not np.isin(sample[:-1], [EOS]).any()
        assert not np.isin(sample, [PAD, BOS, UNK]).any()
        assert sample.dtype == np.int64
    ended = [sample[-1] == EOS for sample in samples]
    assert any(ended)
    assert max_length > 4 or not all(ended), "some were cut"


class Doubling:
    """A reward that no references decide: how many tokens a sample has, or the same for all."""

    def __init__(self, *, fair: bool = False) -> None:
        self._fair = fair

    def __call__(self, images: np.ndarray, samples: list[list[np.ndarray]]) -> np.ndarray:
        worth = [[1.0 if self._fair else float(len(sample)) for sample in own] for own in samples]
        return np.array(worth, dtype=np.float32)


CAPTIONS = torch.tensor(
    [[BOS, 5, 6, EOS], [BOS, 7, EOS, PAD], [BOS, 8, EOS, PAD], [PAD] * 4] * 2
)  # two a picture, for one picture in two but one
BATCH = Batch(np.arange(4), np.array([0, 1, 0, -1] * 2), CAPTIONS)


@pytest.fixture
def model(tiny_model: CaptionModel) -> CaptionModel:
    """To be trained; without dropout and with statistics that stay, so that one pass can be compared with the next."""
    model = copy.deepcopy(tiny_model)
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        elif isinstance(part, nn.BatchNorm1d):
            part.momentum = 0.0
    return model.train()


def make_objective(model: CaptionModel, reward: Doubling | Reward | None = None, **stage: float) -> SelfCritical:
    options = {"objective": "reward", "samples": 6, "sample_length": 7} | stage
    reward = reward or Doubling()
    return SelfCritical(model, reward, Stage(epochs=1, **options), label_smoothing=0.1)  # type: ignore[arg-type]


def gradients(model: CaptionModel, loss: Tensor) -> dict[str, Tensor]:
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {
        name: torch.zeros_like(value) if gradient is None else gradient
        for (name, value), gradient in zip(parameters.items(), found, strict=True)
    }


def learn_from(objective: SelfCritical, grid: Callable[[], Grid], *, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return objective(grid, BATCH, 0.0)


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert sum(float(gradient.abs().sum()) for gradient in theirs.values()) > 0
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: name + text)


def test_a_share_of_one_is_the_likelihood_alone(model: CaptionModel, features: Tensor) -> None:
    ours = gradients(model, learn_from(make_objective(model, likelihood_share=1.0), lambda: model.read(features)))
    loss = caption_loss(model, model.read(features), CAPTIONS, Stage(epochs=1), label_smoothing=0.1)
    assert_same(ours, gradients(model, loss))


def test_a_share_of_nothing_is_the_policy_gradient_of_what_was_drawn(model: CaptionModel, features: Tensor) -> None:
    ours = gradients(model, learn_from(make_objective(model), lambda: model.read(features)))
    torch.manual_seed(0)
    seed = int(torch.randint(2**31, ()))
    with torch.no_grad():
        seen = model.eval().read(features)
    samples = sample_captions(model, seen, samples=6, max_length=7, seed=seed)
    tokens = pad_samples(samples)
    logits, _ = model.train()(model.read(features), tokens[:, :-1])
    worth = torch.from_numpy(advantages(Doubling()(BATCH.images, samples))).flatten()
    # Drawn was from words and the end alone: that is the distribution whose gradient it is.
    words = [number for number in range(logits.shape[-1]) if number not in NEVER]
    possible = torch.full_like(logits, -torch.inf)
    possible[..., words] = logits[..., words].log_softmax(dim=-1)
    assert_same(ours, gradients(model, policy_losses(possible, tokens[:, 1:], worth).mean()))


def test_a_share_between_is_the_weighted_mean(model: CaptionModel, features: Tensor) -> None:
    nothing, some, one = (
        learn_from(make_objective(model, likelihood_share=share), lambda: model.read(features)).item()
        for share in (0.0, 0.3, 1.0)
    )
    assert abs(nothing - one) > 0.1
    assert some == pytest.approx(0.7 * nothing + 0.3 * one, rel=1e-4)


def test_where_all_samples_are_worth_the_same_nothing_is_learnt(model: CaptionModel, features: Tensor) -> None:
    loss = learn_from(make_objective(model, Doubling(fair=True)), lambda: model.read(features))
    assert all(not gradient.any() for gradient in gradients(model, loss).values())


def test_samples_come_from_the_model_at_rest_and_teach_it_in_training(
    tiny_model: CaptionModel, features: Tensor
) -> None:
    model = copy.deepcopy(tiny_model).train()
    statistics = model.reader.norm.running_mean
    assert isinstance(statistics, Tensor)
    before, modes = statistics.clone(), []

    def grid() -> Grid:
        modes.append((model.training, torch.is_grad_enabled(), torch.equal(statistics, before)))
        return model.read(features)

    loss = learn_from(make_objective(model), grid)
    assert modes == [(False, False, True), (True, True, True)], "what is drawn moves no statistics"
    assert model.training
    assert all(part.training for part in (model.reader, model.dropout))
    assert loss.requires_grad


def test_figures_tell_what_was_drawn(model: CaptionModel, features: Tensor) -> None:
    objective = make_objective(model)
    learn_from(objective, lambda: model.read(features))
    assert objective.figures["reward"] == pytest.approx(objective.figures["sample_length"], rel=1e-6)
    assert 1 < objective.figures["sample_length"] <= 7


def test_a_self_critical_stage_raises_the_reward(
    toy_recipe: Recipe, toy_data: Path, toy_cache: Path, tmp_path: Path
) -> None:
    likely = Stage(epochs=16, images_per_batch=4, captions_per_image=2, decoder_rate=2e-2)
    rewarded = Stage(epochs=20, objective="reward", images_per_batch=12, decoder_rate=5e-3, samples=8, sample_length=8)
    recipe = toy_recipe.replace(dropout=0.0, average_decay=0.0, patience=30, stages=(likely, rewarded))
    train(recipe, toy_data, tmp_path / "run", cache=toy_cache)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    rewards = [event.value for event in events.Scalars("train/reward")]
    lengths = [event.value for event in events.Scalars("train/sample_length")]
    assert len(rewards) == 20, "of each epoch's only batch, all pictures"
    assert np.mean(rewards[-3:]) > 1.4 * np.mean(rewards[:3]), rewards
    assert 3 < lengths[-1] < 8, lengths
