"""The recurrent cells, a step at a time and whole sequences: against torch's own cells and against their equations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from equations import Weights, stack
from torch import Tensor, nn

from captioner.config import ModelConfig
from captioner.model import CaptionModel, State

WIDTH, HIDDEN, ROWS, STEPS = 5, 4, 3, 6
TORCHS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}


@pytest.fixture(scope="module", params=[(cell, layers) for cell in TORCHS for layers in (1, 2)], ids=str)
def model(request: pytest.FixtureRequest) -> CaptionModel:
    cell, layers = request.param
    torch.manual_seed(0)
    config = ModelConfig(
        vocabulary_size=9,
        value_size=3,
        embedding_size=WIDTH,
        hidden_size=HIDDEN,
        cell=cell,
        layers=layers,
        attention="none",
        gated_context=False,
    )
    model = CaptionModel(config)
    with torch.no_grad():
        for parameter in model.cells.parameters():
            parameter.mul_(2)  # far enough from zero for the cells not to be linear
    return model.eval()


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(ROWS, STEPS, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def state(model: CaptionModel) -> State:
    layers = model.config.layers
    hidden, cell = torch.randn(2, ROWS, layers, HIDDEN, generator=torch.Generator().manual_seed(2))
    return State(hidden, cell if model.config.cell == "lstm" else cell[:, :0], hidden.new_zeros(ROWS, 0))


def one_by_one(model: CaptionModel, inputs: Tensor, state: State) -> tuple[Tensor, State]:
    """The last layer's hidden states, (N, T, H), and the last state."""
    said = []
    for one in inputs.unbind(dim=1):
        state = model.recur(one, state)
        said.append(state.hidden[:, -1])
    return torch.stack(said, dim=1), state


@torch.no_grad()
def test_they_are_torchs_cells_upon_each_other(model: CaptionModel, inputs: Tensor, state: State) -> None:
    config = model.config
    widths = [WIDTH] + [HIDDEN] * (config.layers - 1)
    cells: list[Any] = [TORCHS[config.cell](width, HIDDEN) for width in widths]
    for cell, mine in zip(cells, model.cells, strict=True):
        cell.load_state_dict(mine.state_dict())
    hidden, memory = list(state.hidden.unbind(dim=1)), list(state.cell.unbind(dim=1))
    expected = []
    for one in inputs.unbind(dim=1):
        read = one
        for layer, cell in enumerate(cells):
            if config.cell == "lstm":
                hidden[layer], memory[layer] = cell(read, (hidden[layer], memory[layer]))
            else:
                hidden[layer] = cell(read, hidden[layer])
            read = hidden[layer]
        expected.append(read)

    said, last = one_by_one(model, inputs, state)
    torch.testing.assert_close(said, torch.stack(expected, dim=1))
    torch.testing.assert_close(last.hidden, torch.stack(hidden, dim=1))
    assert last.cell.shape == state.cell.shape
    if memory:
        torch.testing.assert_close(last.cell, torch.stack(memory, dim=1))
    torch.testing.assert_close(model.run(inputs, state), torch.stack(expected, dim=1))


@torch.no_grad()
def test_they_are_their_equations(model: CaptionModel, inputs: Tensor, state: State) -> None:
    weight = Weights(model)
    said, last = one_by_one(model, inputs, state)
    whole = model.run(inputs, state)
    for row in range(ROWS):
        hidden, memory = (part[row].double().numpy() for part in (state.hidden, state.cell))
        for position, x in enumerate(inputs[row].double().numpy()):
            hidden, memory = stack(weight, model.config.cell, x, hidden, memory)
            for found in (said, whole):
                np.testing.assert_allclose(found[row, position], hidden[-1], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(last.hidden[row], hidden, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(last.cell[row], memory, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_dropout_stands_between_the_layers_alone(model: CaptionModel, inputs: Tensor, state: State) -> None:
    """What a layer remembers, and what leaves the last one, is whole (Zaremba et al. 2014, "RNN regularization")."""
    first = inputs[:, 0]
    settled, whole = model.recur(first, state), model.run(inputs, state)
    torch.manual_seed(3)
    try:
        model.train()
        dropped, dropped_whole = model.recur(first, state), model.run(inputs, state)
    finally:
        model.eval()
    assert torch.equal(dropped.hidden[:, 0], settled.hidden[:, 0])
    assert (dropped_whole != 0).all()
    for found, expected in ((dropped.hidden[:, -1], settled.hidden[:, -1]), (dropped_whole, whole)):
        assert torch.allclose(found, expected) == (model.config.layers == 1)
