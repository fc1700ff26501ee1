"""Each decoder of the family against a transcription of its paper's equations, a row at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from equations import Weights, sigmoid, softmax, stack

from captioner.config import ModelConfig
from captioner.engines import Array
from captioner.model import Attention, CaptionModel, Grid

HIDDEN, POSITIONS, FEATURES = 5, 6, 8
TOKENS = (4, 7, 4)
CLOSE = {"rtol": 1e-3, "atol": 1e-5}


def make_model(**changes: Any) -> CaptionModel:
    """A decoder over a grid of random features, with weights large enough for opinions."""
    torch.manual_seed(0)
    config = ModelConfig(
        vocabulary_size=11,
        grid_rows=2,
        grid_columns=3,
        grid_features=FEATURES,
        value_size=HIDDEN,
        embedding_size=7,
        hidden_size=HIDDEN,
        attention_size=6,
        gated_context=False,
    )
    model = CaptionModel(config.replace(**changes)).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if not name.startswith("encoder."):
            parameter.mul_(2)
    return model


def see(model: CaptionModel) -> tuple[Grid, Array]:
    """The grid of one image, and its values (Q, F)."""
    grid = model.read(torch.randn(1, POSITIONS, FEATURES, generator=torch.Generator().manual_seed(1)))
    return grid, grid.values[0].double().numpy()


def begin(weight: Weights, config: ModelConfig, values: Array) -> tuple[Array, Array]:
    """(L, H) hidden states and, of an LSTM, as many memories: Xu et al. (2015), section 3.1.2."""
    first = np.tanh(weight.linear("initial", values.mean(axis=0))).reshape(-1, config.layers, HIDDEN)
    return first[0], first[-1]


def score(weight: Weights, kind: str, hidden: Array, value: Array, key: str = "key") -> float:
    """Of one position: Bahdanau et al. (2015), appendix A.1.2; Luong et al. (2015), section 3.1."""
    if kind == "dot":
        return float(hidden @ value)
    if kind == "general":
        return float(hidden @ weight[f"attention.{key}.weight"] @ value)
    compared = weight.linear(f"attention.{key}", value) + weight["attention.query.weight"] @ hidden
    return float(weight["attention.score.weight"][0] @ np.tanh(compared))


@pytest.mark.parametrize("kind", ["additive", "dot", "general"])
@torch.no_grad()
def test_attention_scores_are_the_papers(kind: str) -> None:
    torch.manual_seed(2)
    width = HIDDEN if kind == "dot" else 3
    holder = torch.nn.ModuleDict({"attention": Attention(kind, width, HIDDEN, 6, sentinel=False)})
    values, hidden = torch.randn(2, POSITIONS, width), torch.randn(6, HIDDEN)  # three rows an image
    attention = holder["attention"]
    for parameter in attention.parameters():
        parameter.mul_(3)
    context, weights = attention(hidden, Grid(values, attention.key(values)))
    weight = Weights(holder)
    for row in range(6):
        h, f = hidden[row].double().numpy(), values[row // 3].double().numpy()
        alpha = softmax(np.array([score(weight, kind, h, value) for value in f]))
        assert alpha.max() > 1.5 * alpha.min()
        np.testing.assert_allclose(weights[row], alpha, **CLOSE)
        np.testing.assert_allclose(context[row], sum(a * value for a, value in zip(alpha, f, strict=True)), **CLOSE)


@pytest.mark.parametrize("image_input", ["start", "steps", "both"])
@pytest.mark.parametrize(("cell", "layers"), [("lstm", 1), ("gru", 2), ("rnn", 1)])
def test_show_and_tell_by_its_equations(cell: str, layers: int, image_input: str) -> None:
    """Vinyals et al. (2015), with the image where the architecture has it."""
    model = make_model(cell=cell, layers=layers, attention="none", image_input=image_input)
    grid, values = see(model)
    weight, state = Weights(model), model.start(grid)
    hidden = memory = np.zeros((layers, HIDDEN))
    if image_input != "steps":
        hidden, memory = begin(weight, model.config, values)
    for token in TOKENS:
        logits, state, weights = model.step(torch.tensor([token]), state, grid)
        x = weight["embedding.weight"][token]
        if image_input != "start":
            x = x + weight["seen.weight"] @ values.mean(axis=0)
        hidden, memory = stack(weight, cell, x, hidden, memory)
        np.testing.assert_allclose(state.hidden[0], hidden, **CLOSE)
        expected = weight.linear("output", weight.linear("output_hidden", hidden[-1]))
        np.testing.assert_allclose(logits[0], expected, **CLOSE)
        np.testing.assert_allclose(weights[0], 1 / POSITIONS, rtol=1e-6)


@pytest.mark.parametrize("fed", [True, False], ids=["fed", "not fed"])
@pytest.mark.parametrize(
    ("kind", "cell", "layers"),
    [("dot", "lstm", 2), ("general", "gru", 1), ("general", "lstm", 1), ("additive", "rnn", 2)],
)
def test_luongs_attention_by_its_equations(kind: str, cell: str, layers: int, fed: bool) -> None:
    """Luong et al. (2015): the attentional vector of equation 5, which input feeding of section 3.3 hands on."""
    model = make_model(attention=kind, cell=cell, layers=layers, attend="after", input_feeding=fed, image_input="both")
    grid, values = see(model)
    weight, state = Weights(model), model.start(grid)
    hidden, memory = begin(weight, model.config, values)
    combine = np.concatenate((weight["output_context.weight"], weight["output_hidden.weight"]), axis=1)
    vector = np.zeros(7)
    for token in TOKENS:
        logits, state, weights = model.step(torch.tensor([token]), state, grid)
        x = weight["embedding.weight"][token] + weight["seen.weight"] @ values.mean(axis=0)
        hidden, memory = stack(weight, cell, np.concatenate((x, vector)) if fed else x, hidden, memory)
        alpha = softmax(np.array([score(weight, kind, hidden[-1], value) for value in values]))
        both = np.concatenate((alpha @ values, hidden[-1]))
        vector = np.tanh(combine @ both + weight["output_hidden.bias"])
        np.testing.assert_allclose(state.hidden[0], hidden, **CLOSE)
        np.testing.assert_allclose(weights[0], alpha, **CLOSE)
        np.testing.assert_allclose(logits[0], weight.linear("output", vector), **CLOSE)
        assert state.said.shape == (1, 7 if fed else 0)


@pytest.mark.parametrize(
    ("kind", "layers", "fed"), [("additive", 1, False), ("additive", 2, True), ("dot", 1, True), ("general", 2, False)]
)
def test_a_sentinel_by_its_equations(kind: str, layers: int, fed: bool) -> None:
    """Lu et al. (2017), equations 6 to 12; the biases are this model's, and so is the output layer."""
    model = make_model(attention=kind, layers=layers, attend="after", sentinel=True, input_feeding=fed)
    grid, values = see(model)
    weight, state = Weights(model), model.start(grid)
    hidden, memory = begin(weight, model.config, values)
    vector, shares = np.zeros(7), []
    for token in TOKENS:
        logits, state, weights = model.step(torch.tensor([token]), state, grid)
        before = hidden[-1]
        x = weight["embedding.weight"][token]
        x = np.concatenate((x, vector)) if fed else x
        hidden, memory = stack(weight, "lstm", x, hidden, memory)
        # (9), (10): the gate and the sentinel
        from_x, from_h = np.split(weight["sentinel_gate.weight"], [len(x)], axis=1)
        gate = sigmoid(from_x @ x + from_h @ before + weight["sentinel_gate.bias"])
        sentinel = gate * np.tanh(memory[-1])
        # (6) to (8): attention and its context; (12), (11): the sentinel's share and the adaptive context
        z = np.array([score(weight, kind, hidden[-1], value) for value in values])
        context = softmax(z) @ values
        share = softmax(np.append(z, score(weight, kind, hidden[-1], sentinel, "sentinel_key")))[-1]
        adaptive = share * sentinel + (1 - share) * context
        vector = np.tanh(weight.linear("output_hidden", hidden[-1]) + weight.linear("output_context", adaptive))
        np.testing.assert_allclose(state.cell[0], memory, **CLOSE)
        np.testing.assert_allclose(weights[0], (1 - share) * softmax(z), **CLOSE)
        np.testing.assert_allclose(logits[0], weight.linear("output", vector), **CLOSE)
        shares.append(share)
    assert 0.02 < min(shares) < max(shares) < 0.98, "a share of nothing or all would show nothing"
