"""The floor: what the arithmetic of a caption takes at the rate at which this machine multiplies large matrices.

Only multiplications and additions of convolutions and matrix products count, two operations for each pair; activations,
softmax, the search and reading the picture are free. No engine can reach it, least of all in depthwise convolutions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from speed_parts.timing import seconds_of
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from captioner.checkpoint import ModelInfo
from captioner.config import READERS, ModelConfig
from captioner.model import skeleton

GATES = {"lstm": 4, "gru": 3, "rnn": 1}


def encoder_flops(info: ModelInfo) -> int:
    """Of one picture: encoder, reader and what attention computes of a grid once. Counted without computing it."""
    model = skeleton(info.model).eval()
    pixels = torch.empty(1, 3, info.image.height, info.image.width, device="meta")
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.encode(pixels)
    return int(counter.get_total_flops())


def start_flops(config: ModelConfig) -> int:
    """Of one picture: the state before the first token."""
    if config.image_input == "steps":
        return 0
    memories = 2 if config.cell == "lstm" else 1
    return 2 * config.value_size * memories * config.layers * config.hidden_size


def step_flops(config: ModelConfig, beam: int) -> int:
    """Of one picture: one step of all rows of its beam, by :meth:`captioner.model.CaptionModel.step`."""
    values, hidden, embedding = config.value_size, config.hidden_size, config.embedding_size
    said = config.output_size or embedding
    attends, before = config.attention != "none", config.attend == "before"
    positions = config.grid_rows * config.grid_columns // READERS[config.reader]

    first = embedding + (values if attends and before else said if config.input_feeding else 0)
    inputs = first + (config.layers - 1) * hidden
    row = GATES[config.cell] * hidden * (inputs + config.layers * hidden)  # the cells
    row += hidden * said + said * config.vocabulary_size  # the output layer
    if attends:
        row += positions * values + values * said  # the context, and its part of the output layer
        row += attention_products(config, positions)
    if config.gated_context:
        row += hidden * values
    if config.sentinel:
        row += (first + hidden) * hidden
    seen = values * embedding if config.image_input != "start" else 0  # once for all rows
    return 2 * (beam * row + seen)


def attention_products(config: ModelConfig, positions: int) -> int:
    """Multiplications of one row that score the positions of the grid, and a sentinel."""
    width, hidden, sentinel = config.attention_size, config.hidden_size, int(config.sentinel)
    if config.attention == "additive":
        key = config.value_size * width * sentinel
        return hidden * width + (positions + sentinel) * width + key
    if config.attention == "general":
        return positions * hidden + config.value_size * hidden * sentinel
    return positions * hidden  # dot; a sentinel's own product is taken element by element


def caption_flops(info: ModelInfo, beam: int, steps: float) -> float:
    """Of one picture and so many steps."""
    return encoder_flops(info) + start_flops(info.model) + steps * step_flops(info.model, beam)


def matrix_rates(size: int, repeats: int) -> dict[str, float]:
    """By precision: operations a second in products of square matrices, the best of several.

    int8 is left out where torch has no product of such matrices here, or one that is slower than bf16's.
    """
    rates = {
        name: _rate(lambda matrix: matrix @ matrix, torch.randn(size, size).to(dtype), repeats)
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }
    try:
        small = torch.randint(-100, 100, (size, size), dtype=torch.int8)
        int8 = _rate(lambda matrix: torch._int_mm(matrix, matrix), small, repeats)
    except RuntimeError:
        return rates
    return rates | ({"int8": int8} if int8 > rates["bf16"] else {})


def _rate(product: Callable[[Tensor], Tensor], matrix: Tensor, repeats: int) -> float:
    product(matrix)
    best = min(seconds_of(lambda: product(matrix)) for _ in range(repeats))
    return float(2 * len(matrix) ** 3 / best)
