"""A batch in parts is the batch: its losses, its gradient, its draws; only what is kept for the gradient is less."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from captioner.model import CaptionModel
from captioner.tokens import Vocabulary
from training import autocast
from training.accumulation import in_parts
from training.batching import Batch
from training.loss import Likelihood, SoftTargets
from training.recipe import Recipe, Stage
from training.scst import SelfCritical
from training.train import train

BOS, EOS, PAD = Vocabulary.bos, Vocabulary.eos, Vocabulary.pad
TOKENS = torch.tensor([[BOS, 5, 6, EOS], [BOS, 7, EOS, PAD], [BOS, 8, EOS, PAD], [PAD] * 4] * 2 + [[BOS, 9, 9, 9]] * 2)
BATCH = Batch(np.arange(5), np.array([0, 1, 0, -1] * 2 + [0, 1]), TOKENS)  # five images with two places each


@pytest.fixture(autouse=True)
def _in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autocast, "has_fast_bfloat16", lambda _: False)


@pytest.fixture
def model(tiny_model: CaptionModel) -> CaptionModel:
    """To be trained, without dropout."""
    model = copy.deepcopy(tiny_model)
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    return model.train()


def test_parts_are_whole_images_as_large_as_each_other_and_come_back_in_order() -> None:
    seen = []

    def compute(images: Tensor, captions: Tensor) -> tuple[Tensor, Tensor]:
        seen.append((images.tolist(), captions.tolist()))
        return images * 2, captions[captions % 3 > 0]

    images, captions = torch.arange(5), torch.arange(10)
    with torch.no_grad():
        doubled, some = in_parts(2, compute, images, captions)
    assert seen == [([0, 1], [0, 1, 2, 3]), ([2, 3, 4], [4, 5, 6, 7, 8, 9])]
    assert doubled.tolist() == [0, 2, 4, 6, 8]
    assert some.tolist() == [1, 2, 4, 5, 7, 8]
    seen.clear()
    in_parts(9, compute, images, captions)
    assert [own for own, _ in seen] == [[0], [1], [2], [3], [4]], "no more parts than images"
    seen.clear()
    in_parts(1, compute, images, captions)
    assert seen == [(images.tolist(), captions.tolist())]


def test_what_is_drawn_for_the_gradient_is_what_was_drawn_for_the_loss() -> None:
    torch.manual_seed(0)
    weight = torch.ones(1000, requires_grad=True)
    values = torch.arange(1.0, 5.0)[:, None].expand(4, 1000)
    (dropped,) = in_parts(2, lambda own: (nn.functional.dropout(own * weight),), values)
    assert 0.4 < (dropped == 0).float().mean() < 0.6
    dropped.sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, dropped.detach().sum(dim=0))


class Fair:
    """A reward that no references decide: how many tokens a sample has."""

    def __call__(self, images: np.ndarray, samples: list[list[np.ndarray]]) -> np.ndarray:
        return np.array([[float(len(sample)) for sample in own] for own in samples], dtype=np.float32)


def expect(batch: Batch) -> SoftTargets:
    """Teachers that expect the same everywhere but in another measure at each place."""
    rows, steps = len(batch.tokens), batch.tokens.shape[1] - 1
    share = torch.linspace(0.2, 0.8, rows * steps).view(rows, steps, 1)
    return SoftTargets(torch.tensor([4, 9]).expand(rows, steps, 2), torch.cat((share, 1 - share), dim=-1))


def learn(model: CaptionModel, stage: Stage) -> tuple[float, dict[str, Tensor], int]:
    """The loss of the batch, its gradient, and how many bytes were kept for it."""
    model = copy.deepcopy(model)
    model.encoder.requires_grad_(False)
    features = torch.randn(5, 6, model.config.grid_features, generator=torch.Generator().manual_seed(0))
    features.requires_grad_(True)
    objective: Any
    if stage.objective == "reward":
        objective = SelfCritical(model, Fair(), stage, label_smoothing=0.1)  # type: ignore[arg-type]
    else:
        teachers = expect if stage.distillation else None
        objective = Likelihood(model, stage, label_smoothing=0.1, teachers=teachers)
    kept = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    torch.manual_seed(0)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = objective(lambda: model.read(features), BATCH, 0.0)
    before = kept
    loss.backward()
    found = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    assert features.grad is not None
    return loss.item(), found | {"features": features.grad}, before


FIELDS = [
    {"attention_penalty": 0.5},
    {"distillation": 0.6},
    {"objective": "reward", "samples": 3, "sample_length": 6},
    {"objective": "reward", "samples": 3, "sample_length": 6, "likelihood_share": 0.4},
]


@pytest.mark.parametrize("fields", FIELDS, ids=str)
@pytest.mark.parametrize("parts", [2, 5])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(
    model: CaptionModel, fields: dict[str, Any], parts: int
) -> None:
    whole = Stage(epochs=1, **fields)
    loss, gradient, kept = learn(model, whole)
    loss_in_parts, in_parts, kept_in_parts = learn(model, whole.replace(accumulate=parts))
    assert loss_in_parts == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(in_parts, gradient, rtol=1e-4, atol=1e-7)
    assert kept_in_parts < kept / 3, "of the decoder's steps nothing is kept"


STILL = Stage(epochs=2, images_per_batch=5, decoder_rate=1e-2, flip=False)
LEARNING = STILL.replace(train_encoder=True, encoder_rate=1e-3)


@pytest.mark.parametrize(
    "stage",
    [STILL, LEARNING.replace(frozen="features.2", views=1), LEARNING],
    ids=["grids", "behind frozen modules", "pixels"],
)
def test_a_run_in_parts_is_the_run(
    toy_recipe: Recipe, toy_data: Path, toy_cache: Path, tmp_path: Path, stage: Stage
) -> None:
    losses, weights = [], []
    for parts in (1, 3):
        recipe = toy_recipe.replace(dropout=0.0, stages=(stage.replace(accumulate=parts),))
        folder = tmp_path / str(parts)
        losses.append([row["loss"] for row in train(recipe, toy_data, folder, cache=toy_cache).history])
        weights.append(torch.load(folder / "last.pt", weights_only=True)["model"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    for name in ("output.weight", "reader.project.weight", "encoder.backbone.features.4.conv.0.0.weight"):
        torch.testing.assert_close(weights[1][name], weights[0][name], rtol=1e-3, atol=1e-4)
