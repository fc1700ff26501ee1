from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from captioner.model import CaptionModel, Grid
from captioner.tokens import Vocabulary
from training.batching import Batch
from training.loss import Likelihood, SoftTargets, caption_loss
from training.recipe import Stage

BOS, EOS, PAD = Vocabulary.bos, Vocabulary.eos, Vocabulary.pad
TOKENS = torch.tensor(  # two images with two captions each; the first is cut and has no end
    [[BOS, 5, 6, 7, 8], [BOS, 9, EOS, PAD, PAD], [BOS, 4, 4, EOS, PAD], [BOS, 10, 11, 5, EOS]]
)
EMPTY = torch.full((1, 5), PAD)


def stage_of(**fields: float) -> Stage:
    return Stage(epochs=1, **fields)  # type: ignore[arg-type]


@pytest.fixture
def grid(tiny_model: CaptionModel) -> Grid:
    features = torch.randn(2, 6, tiny_model.config.grid_features, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return tiny_model.read(features)


def by_numpy(
    model: CaptionModel,
    grid: Grid,
    tokens: Tensor,
    smoothing: float,
    penalty: float,
    soft: SoftTargets | None = None,
    distillation: float = 0,
) -> float:
    """The definition, caption by caption and token by token."""
    with torch.no_grad():
        logits, weights = (values.double().numpy() for values in model(grid, tokens[:, :-1]))
    log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    entropies, penalties = [], []
    for row, targets in enumerate(tokens[:, 1:].tolist()):
        steps = [step for step, token in enumerate(targets) if token != PAD]
        for step in steps:
            wanted = np.full(log_probs.shape[-1], smoothing / log_probs.shape[-1])
            wanted[targets[step]] += 1 - smoothing
            if soft is not None:
                wanted *= 1 - distillation
                candidates = zip(soft.tokens[row, step].tolist(), soft.probabilities[row, step].tolist(), strict=True)
                for token, probability in candidates:
                    wanted[token] += distillation * probability
            entropies.append(-(wanted * log_probs[row, step]).sum())
        if steps:
            penalties.append(((1 - weights[row, steps].sum(axis=0)) ** 2).sum())
    return float(np.mean(entropies) + penalty * np.mean(penalties))


@pytest.mark.parametrize(("smoothing", "penalty"), [(0, 0), (0.1, 0), (0, 0.7), (0.2, 1.5)])
def test_loss_by_its_definition(tiny_model: CaptionModel, grid: Grid, smoothing: float, penalty: float) -> None:
    loss = caption_loss(tiny_model, grid, TOKENS, stage_of(attention_penalty=penalty), label_smoothing=smoothing)
    assert loss.item() == pytest.approx(by_numpy(tiny_model, grid, TOKENS, smoothing, penalty), rel=1e-5)


def test_a_place_without_a_caption_counts_nowhere(tiny_model: CaptionModel, grid: Grid) -> None:
    whole = torch.cat((TOKENS[:3], EMPTY))
    loss = caption_loss(tiny_model, grid, whole, stage_of(attention_penalty=1), label_smoothing=0.1)
    assert loss.item() == pytest.approx(by_numpy(tiny_model, grid, whole, 0.1, 1), rel=1e-5)


def test_more_padding_changes_nothing(tiny_model: CaptionModel, grid: Grid) -> None:
    longer = torch.nn.functional.pad(TOKENS, (0, 3), value=PAD)
    losses = [
        caption_loss(tiny_model, grid, tokens, stage_of(attention_penalty=1), label_smoothing=0.1).item()
        for tokens in (TOKENS, longer)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.fixture
def soft(tiny_model: CaptionModel) -> SoftTargets:
    """Three candidates a step, padding left empty as teachers leave it."""
    random = torch.Generator().manual_seed(5)
    rows, steps = TOKENS.shape[0], TOKENS.shape[1] - 1
    scores = torch.rand(rows, steps, tiny_model.config.vocabulary_size, generator=random)
    real = (TOKENS[:, 1:] != PAD).unsqueeze(-1)
    tokens = scores.argsort(dim=-1)[..., :3] * real
    probabilities = torch.rand(rows, steps, 3, generator=random) * real
    return SoftTargets(tokens, probabilities / probabilities.sum(dim=-1, keepdim=True).clamp(min=1e-9))


@pytest.mark.parametrize(("distillation", "smoothing", "penalty"), [(1, 0, 0), (0.3, 0, 0), (0.7, 0.2, 0.5)])
def test_loss_with_teachers_by_its_definition(
    tiny_model: CaptionModel, grid: Grid, soft: SoftTargets, distillation: float, smoothing: float, penalty: float
) -> None:
    stage = stage_of(attention_penalty=penalty, distillation=distillation)
    loss = caption_loss(tiny_model, grid, TOKENS, stage, label_smoothing=smoothing, soft=soft)
    expected = by_numpy(tiny_model, grid, TOKENS, smoothing, penalty, soft, distillation)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_the_objective_asks_the_teachers_about_its_batch(
    tiny_model: CaptionModel, grid: Grid, soft: SoftTargets
) -> None:
    batch = Batch(np.array([3, 8]), np.array([0, 1, 0, 1]), TOKENS)
    asked = []

    def teachers(about: Batch) -> SoftTargets:
        asked.append(about)
        return soft

    stage = Stage(epochs=1, distillation=0.4, attention_penalty=0.5)
    loss = Likelihood(tiny_model, stage, label_smoothing=0.1, teachers=teachers)(lambda: grid, batch, 0.5)
    assert loss.item() == pytest.approx(by_numpy(tiny_model, grid, TOKENS, 0.1, 0.5, soft, 0.4), rel=1e-5)
    assert asked == [batch]
    plain = Likelihood(tiny_model, stage.replace(distillation=0.0), label_smoothing=0.1)(lambda: grid, batch, 0.5)
    assert plain.item() == pytest.approx(by_numpy(tiny_model, grid, TOKENS, 0.1, 0.5), rel=1e-5)
