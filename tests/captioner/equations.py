"""The textbooks' equations, plainly in numpy and double precision: what the network's numbers are compared with."""

from __future__ import annotations

import numpy as np
from torch import nn

from captioner.engines import Array


class Weights(dict[str, Array]):
    """The parameters of a module by name, and what they are applied to."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__((name, tensor.detach().double().numpy()) for name, tensor in module.state_dict().items())

    def linear(self, name: str, x: Array) -> Array:
        """W x + b, without b where there is none."""
        return np.asarray(x @ self[f"{name}.weight"].T + self.get(f"{name}.bias", 0))


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def softmax(x: Array) -> Array:
    powers = np.exp(x - x.max())
    return np.asarray(powers / powers.sum())


def lstm_cell(
    weight: Weights, name: str, x: Array, hidden: Array, memory: Array, suffix: str = ""
) -> tuple[Array, Array]:
    """Hochreiter and Schmidhuber (1997) with the forget gate of Gers et al. (2000): next hidden state and memory."""
    i, f, g, o = np.split(_both(weight, name, x, hidden, suffix), 4)
    memory = sigmoid(f) * memory + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(memory), memory


def gru_cell(weight: Weights, name: str, x: Array, hidden: Array) -> Array:
    """Cho et al. (2014), with the reset gate behind the recurrent product, as cuDNN and so torch have it."""
    read = np.split(x @ weight[f"{name}.weight_ih"].T + weight[f"{name}.bias_ih"], 3)
    kept = np.split(hidden @ weight[f"{name}.weight_hh"].T + weight[f"{name}.bias_hh"], 3)
    r, z = sigmoid(read[0] + kept[0]), sigmoid(read[1] + kept[1])
    return np.asarray((1 - z) * np.tanh(read[2] + r * kept[2]) + z * hidden)


def rnn_cell(weight: Weights, name: str, x: Array, hidden: Array) -> Array:
    """Elman (1990)."""
    return np.asarray(np.tanh(_both(weight, name, x, hidden, "")))


def _both(weight: Weights, name: str, x: Array, hidden: Array, suffix: str) -> Array:
    read = x @ weight[f"{name}.weight_ih{suffix}"].T + weight[f"{name}.bias_ih{suffix}"]
    return np.asarray(read + hidden @ weight[f"{name}.weight_hh{suffix}"].T + weight[f"{name}.bias_hh{suffix}"])


def stack(weight: Weights, cell: str, x: Array, hidden: Array, memory: Array) -> tuple[Array, Array]:
    """One step of all layers of a model's cells: (L, H) hidden states, and of an LSTM (L, H) memories."""
    hidden, memory = hidden.copy(), memory.copy()
    for layer in range(len(hidden)):
        name = f"cells.{layer}"
        if cell == "lstm":
            hidden[layer], memory[layer] = lstm_cell(weight, name, x, hidden[layer], memory[layer])
        else:
            hidden[layer] = {"gru": gru_cell, "rnn": rnn_cell}[cell](weight, name, x, hidden[layer])
        x = hidden[layer]
    return hidden, memory
