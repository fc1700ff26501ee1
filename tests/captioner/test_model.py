"""The network against its equations."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from equations import Weights, lstm_cell, sigmoid, softmax
from torch import Tensor

from captioner.config import ModelConfig
from captioner.model import Attention, CaptionModel, Grid, State, expand

ROWS, COLUMNS, FEATURES, VOCABULARY = 2, 4, 1280, 11


def make_model(*, tied: bool = True, gated: bool = True, **changes: Any) -> CaptionModel:
    torch.manual_seed(0)
    config = ModelConfig(
        vocabulary_size=VOCABULARY,
        grid_rows=ROWS,
        grid_columns=COLUMNS,
        grid_features=FEATURES,
        value_size=4,
        embedding_size=7,
        hidden_size=5,
        attention_size=6,
        tied_output=tied,
        gated_context=gated,
    )
    return CaptionModel(config.replace(**changes)).eval()


def features(images: int) -> Tensor:
    return torch.randn(images, ROWS * COLUMNS, FEATURES, generator=torch.Generator().manual_seed(1))


VARIANTS = [{"tied": tied, "gated": gated} for tied, gated in itertools.product([True, False], [True, False])] + [
    {"attend": "after", "input_feeding": True},
    {"reader": "pyramid"},
    {"reader": "pyramid", "attend": "after", "input_feeding": True, "tied": False, "gated": False, "output_size": 9},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_teacher_forcing_is_the_loop_over_step(variant: dict[str, Any]) -> None:
    model = make_model(**variant)
    grid = model.read(features(2))
    tokens = torch.randint(VOCABULARY, (6, 4))  # three sequences for each of two images
    logits, weights = model(grid, tokens)
    assert logits.shape == (6, 4, VOCABULARY)
    assert weights.shape == (6, 4, ROWS * COLUMNS)
    for row in range(6):
        alone = Grid(*(part[row // 3 : row // 3 + 1] for part in grid))
        state = model.start(alone)
        for position in range(4):
            step_logits, state, step_weights = model.step(tokens[row, position : position + 1], state, alone)
            torch.testing.assert_close(logits[row, position], step_logits[0])
            torch.testing.assert_close(weights[row, position], step_weights[0])


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_gradient_reaches_every_parameter(variant: dict[str, Any]) -> None:
    model = make_model(**variant).train()
    pixels = torch.randn(2, 3, 64, 128)
    logits, _ = model(model.encode(pixels), torch.randint(VOCABULARY, (2, 5)))
    logits.square().sum().backward()
    untouched = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not untouched
    decoder = {name: p.grad for name, p in model.named_parameters() if not name.startswith("encoder.")}
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in decoder.values())


def test_one_step_by_its_equations() -> None:
    model = make_model()
    model.reader.norm.running_mean.normal_()  # else it standardises by 0 and 1, and a mistake could hide
    model.reader.norm.running_var.uniform_(0.5, 2)
    grid = model.read(features(1))
    state = model.start(grid)
    token = torch.tensor([4])
    logits, after, weights = model.step(token, state, grid)

    weight = Weights(model)
    linear = weight.linear
    raw = features(1)[0].numpy().astype(np.float64)  # (P, D)
    scale = weight["reader.norm.weight"] / np.sqrt(weight["reader.norm.running_var"] + model.reader.norm.eps)
    standard = (raw - weight["reader.norm.running_mean"]) * scale + weight["reader.norm.bias"]
    f = np.maximum(linear("reader.project", standard), 0)  # (P, F)
    hidden, cell = np.split(np.tanh(linear("initial", f.mean(axis=0))), 2)
    scores = linear("attention.score", np.tanh(linear("attention.key", f) + linear("attention.query", hidden)))[:, 0]
    alpha = softmax(scores)
    context = (alpha @ f) * sigmoid(linear("gate", hidden))
    read = np.concatenate((weight["embedding.weight"][4], context))
    hidden, cell = lstm_cell(weight, "cells.0", read, hidden, cell)
    expected = linear("output", linear("output_hidden", hidden) + linear("output_context", context))

    np.testing.assert_allclose(weights[0].detach(), alpha, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after.hidden[0, 0].detach(), hidden, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(after.cell[0, 0].detach(), cell, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(logits[0].detach(), expected, rtol=1e-3, atol=1e-4)


def test_rows_of_one_image_share_its_grid() -> None:
    attention = Attention("additive", 8, 5, 6, sentinel=False)
    shared = torch.randn(2, 4, 8)
    grid = Grid(shared, attention.key(shared))
    hidden = torch.randn(6, 5)
    copied = Grid(*(part.repeat_interleave(3, dim=0) for part in grid))
    for together, apart in zip(attention(hidden, grid), attention(hidden, copied), strict=True):
        torch.testing.assert_close(together, apart)


def test_attention_weights_sum_to_one_and_are_positive() -> None:
    model = make_model()
    _, weights = model(model.read(features(3)), torch.randint(VOCABULARY, (3, 4)))
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3, 4))
    assert (weights > 0).all()


def test_a_batch_says_what_single_images_say() -> None:
    model = make_model()
    tokens = torch.randint(VOCABULARY, (3, 4))
    together, _ = model(model.read(features(3)), tokens)
    for image in range(3):
        alone, _ = model(model.read(features(3)[image : image + 1]), tokens[image : image + 1])
        torch.testing.assert_close(together[image : image + 1], alone)


def test_dropout_acts_in_training_alone() -> None:
    model = make_model()
    grid, tokens = model.read(features(1)), torch.randint(VOCABULARY, (1, 4))
    torch.testing.assert_close(model(grid, tokens)[0], model(grid, tokens)[0])
    model.train()
    assert not torch.equal(model(grid, tokens)[0], model(grid, tokens)[0])


def test_a_tied_output_layer_is_the_embedding() -> None:
    tied, free = make_model(tied=True), make_model(tied=False)
    assert tied.output.weight is tied.embedding.weight
    assert free.output.weight is not free.embedding.weight


def test_expand_keeps_copies_side_by_side() -> None:
    state = State(torch.tensor([[[1.0]], [[2.0]]]), torch.tensor([[[3.0]], [[4.0]]]), torch.tensor([[5.0], [6.0]]))
    hidden, cell, said = expand(state, 2)
    assert hidden.shape == cell.shape == (4, 1, 1)
    assert hidden.flatten().tolist() == [1, 1, 2, 2]
    assert cell.flatten().tolist() == [3, 3, 4, 4]
    assert said.flatten().tolist() == [5, 5, 6, 6]
    assert expand(state._replace(said=said[:2, :0]), 2).said.shape == (4, 0)
