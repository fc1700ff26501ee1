"""Scheduled sampling: which previous tokens are the model's own, and which those are."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from captioner.model import CaptionModel, Grid
from captioner.tokens import Vocabulary
from training import loss as module
from training.batching import Batch
from training.loss import Likelihood, caption_loss, own_tokens
from training.recipe import Stage

BOS, EOS, PAD, UNK = Vocabulary.bos, Vocabulary.eos, Vocabulary.pad, Vocabulary.unk
CAPTION = [BOS, 5, 6, 7, 8]
TOKENS = torch.tensor([CAPTION, [BOS, 10, EOS, PAD, PAD], [BOS, 4, 4, EOS, PAD], [BOS, 10, 11, 5, EOS]])
SURE = 9  # a word that is in none of these captions


@pytest.fixture
def grid(tiny_model: CaptionModel) -> Grid:
    features = torch.randn(2, 6, tiny_model.config.grid_features, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return tiny_model.read(features)


def bent(model: CaptionModel, **towards: float) -> CaptionModel:
    """A copy with other biases of the output layer, by token number: ``t9=50.0``."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for token, bias in towards.items():
            model.output.bias[int(token.removeprefix("t"))] += bias
    return model


def many(rows: int, tokens: Sequence[int] = CAPTION) -> Tensor:
    return torch.tensor([tokens] * rows)


def test_a_share_of_nothing_replaces_nothing(tiny_model: CaptionModel, grid: Grid) -> None:
    assert torch.equal(own_tokens(tiny_model, grid, TOKENS, 0.0), TOKENS)
    stage = Stage(epochs=1, attention_penalty=0.5)
    at_the_beginning = stage.replace(scheduled_sampling=1.0)
    with_none = caption_loss(tiny_model, grid, TOKENS, at_the_beginning, label_smoothing=0.1, done=0.0)
    assert torch.equal(with_none, caption_loss(tiny_model, grid, TOKENS, stage, label_smoothing=0.1, done=1.0))


def test_the_whole_share_replaces_all_but_the_begin_and_padding(tiny_model: CaptionModel, grid: Grid) -> None:
    found = own_tokens(bent(tiny_model, t9=50), grid, TOKENS, 1.0)
    assert torch.equal(found[:, 0], TOKENS[:, 0])
    assert torch.equal(found == PAD, TOKENS == PAD)
    assert (found[:, 1:][TOKENS[:, 1:] != PAD] == SURE).all()


def test_what_is_no_word_never_takes_a_place(tiny_model: CaptionModel, grid: Grid) -> None:
    tempted = bent(tiny_model, **{f"t{PAD}": 50, f"t{BOS}": 50, f"t{EOS}": 50})
    found = own_tokens(tempted, grid, many(400), 1.0)[:, 1:]
    assert not torch.isin(found, torch.tensor([PAD, BOS, EOS])).any()
    assert len(found.unique()) > 3, "and what does is drawn, not chosen"


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_about_the_share_is_replaced_everywhere(tiny_model: CaptionModel, grid: Grid, share: float) -> None:
    torch.manual_seed(0)
    replaced = (own_tokens(bent(tiny_model, t9=50), grid, many(2000), share)[:, 1:] == SURE).double()
    assert replaced.mean(dim=0).tolist() == pytest.approx([share] * 4, abs=0.04)
    assert replaced.mean(dim=1).std() > 0.15, "each place by itself, not whole captions or none"
    assert replaced.mean(dim=1).std() < 0.3


def test_a_token_is_drawn_from_what_is_predicted_in_its_place(tiny_model: CaptionModel, grid: Grid) -> None:
    """The prediction of a step becomes the next step's input: one place off would show."""
    torch.manual_seed(0)
    rows = 8000
    found = own_tokens(tiny_model, grid, many(rows), 1.0)
    with torch.no_grad():
        logits, _ = tiny_model(grid, many(2))
    logits[..., [PAD, BOS, EOS]] = -torch.inf
    expected = logits.softmax(dim=-1)  # (an image each, T, V)
    assert expected.diff(dim=1).abs().max() > 0.1, "the places differ, or they could be confused"
    for image in range(2):
        own = found.view(2, rows // 2, -1)[image]
        for step in range(1, len(CAPTION)):
            shares = own[:, step].bincount(minlength=logits.shape[-1]) / (rows // 2)
            torch.testing.assert_close(shares, expected[image, step - 1], rtol=0, atol=0.03)


def test_the_loss_still_wants_the_captions_own_tokens(tiny_model: CaptionModel, grid: Grid) -> None:
    model = bent(tiny_model, t9=50)
    inputs = own_tokens(model, grid, TOKENS[:, :-1], 1.0)
    logits, _ = model(grid, inputs)
    real = TOKENS[:, 1:] != PAD
    expected = torch.nn.functional.cross_entropy(logits[real], TOKENS[:, 1:][real])
    loss = caption_loss(model, grid, TOKENS, Stage(epochs=1, scheduled_sampling=1.0), label_smoothing=0, done=1.0)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert model.output.weight.grad is not None
    assert model.output.weight.grad.abs().sum() > 0


def test_the_share_grows_evenly_over_the_stage(
    tiny_model: CaptionModel, grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = []

    def recorded(*arguments: Any) -> Tensor:
        shares.append(arguments[-1])
        return own_tokens(*arguments)

    monkeypatch.setattr(module, "own_tokens", recorded)
    objective = Likelihood(tiny_model, Stage(epochs=1, scheduled_sampling=0.4), label_smoothing=0.1)
    batch = Batch(np.array([0, 1]), np.array([0, 1, 0, 1]), TOKENS)
    for done in (0.0, 0.25, 0.5, 1.0):
        objective(lambda: grid, batch, done)
    assert shares == pytest.approx([0.1, 0.2, 0.4]), "at the beginning there is nothing to draw"
