"""A trained network as graphs that run without torch: an encoder, and a decoder as it is and in 8 bits.

python -m captioner.export MODEL DIRECTORY

They are traced from :class:`captioner.model.CaptionModel` itself, so that there is one description of the network; the
decoder's is then rearranged, see :mod:`captioner.rewriting`. Beside them lies what they compute of a known picture, for
whoever loads them to check.

Tracing is global in torch: no other thread can run a network meanwhile. So the library exports in a process of its own,
which also keeps torch out of those that need none otherwise.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from safetensors.numpy import save
from torch import Tensor, nn
from torch.onnx import register_custom_op_symbolic  # type: ignore[attr-defined]  # torch's own list lacks it
from torch.onnx.symbolic_helper import parse_args

from captioner.checkpoint import load_model
from captioner.config import ImageConfig
from captioner.engines.graph_engine import (
    BEST,
    BEST_LOG_PROBS,
    COUNT,
    DECODER,
    ENCODER,
    GRID,
    LOGITS,
    NEXT,
    PIXELS,
    SUMMARY,
    TOKENS,
    WEIGHTS,
)
from captioner.engines.torch_engine import TorchEngine
from captioner.errors import CaptionerError
from captioner.graphs import ANSWER_NAME, examine, graph_name, probe
from captioner.model import CaptionModel, Grid, State
from captioner.rewriting.fusion import fuse
from captioner.rewriting.quantisation import quantise_products

IMAGES, ROWS = 2, 3  # of the example that is traced; tracing would take a single one for a constant
OPSET = 17


class EncoderGraph(nn.Module):
    """From pixels to all that decoding an image needs of it: the grid, its summary and the state to start from."""

    def __init__(self, model: CaptionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) normalised pixels → the parts of the grid, (B, F) its summary, the parts of the state."""
        grid = self.model.encode(pixels)
        return *present(grid).values(), grid.values.mean(dim=1), *present(self.model.start(grid)).values()


class DecoderGraph(nn.Module):
    """One step, and the likeliest tokens after it.

    Args:
        model: the network.
        names: of the parts of state and grid that it is given.
    """

    def __init__(self, model: CaptionModel, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, tokens: Tensor, count: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        """(N,) tokens, M, parts of state and grid → (N, V) logits; (N, M) of the likeliest tokens, and their
        log-probabilities; the parts of the next state; (N, P) weights.
        """
        given = dict(zip(self.names, parts, strict=True))
        hidden, values = given["hidden"], given["values"]
        state = State(hidden, given.get("cell", hidden[:, :0]), given.get("said", hidden[:, 0, :0]))
        grid = Grid(values, given.get("keys", values[..., :0]))
        logits, state, weights = self.model.step(tokens, state, grid)
        most = torch.tensor(self.model.config.vocabulary_size)
        largest, best = logits.topk(torch.minimum(count, most), dim=-1)  # type: ignore[arg-type]  # a tensor is traced
        beyond = (logits - largest[:, :1]).exp().sum(dim=-1, keepdim=True).log()
        return logits, best, largest - largest[:, :1] - beyond, *present(state).values(), weights


def present(value: Grid | State) -> dict[str, Tensor]:
    """The parts of a grid or a state that an architecture has, by name: the others are of width 0."""
    return {name: part for name, part in value._asdict().items() if part.numel()}


def export(model: CaptionModel, image: ImageConfig, directory: Path) -> None:
    """Write the graphs of a network, and what they compute of a known picture.

    Args:
        model: on the CPU; its batch normalisation is folded into its convolutions.
        image: the size of its pictures.
        directory: must be there.

    Raises:
        CaptionerError: torch cannot export this architecture.
    """
    register_custom_op_symbolic("aten::unsafe_chunk", _split_evenly, OPSET)
    engine = TorchEngine(model, device="cpu")
    pixels = torch.from_numpy(probe(image)).repeat(IMAGES, 1, 1, 1)
    with torch.no_grad():
        grid = model.encode(pixels)
        state = State(*(part.repeat_interleave(ROWS, dim=0) for part in model.start(grid)))
        grids, states = present(grid), present(state)
        parts = {name: part.clone() for name, part in (states | grids).items()}  # tracing tells none apart that is one
        _write(
            EncoderGraph(model),
            {PIXELS: pixels},
            [*grids, SUMMARY, *states],
            directory / graph_name(ENCODER),
        )
        tokens = torch.zeros(IMAGES * ROWS, dtype=torch.int64)
        _write(
            DecoderGraph(model, list(parts)),
            {TOKENS: tokens, COUNT: torch.tensor(2)} | parts,
            [LOGITS, BEST, BEST_LOG_PROBS, *(NEXT + name for name in states), WEIGHTS],
            directory / graph_name(DECODER),
        )
    decoder = onnx.load(directory / graph_name(DECODER))
    fuse(decoder)
    onnx.save(decoder, directory / graph_name(DECODER))
    quantise_products(decoder)
    onnx.save(decoder, directory / graph_name(DECODER, quantised=True))
    (directory / ANSWER_NAME).write_bytes(save(examine(engine, image)))  # its save_file would make the file private


@parse_args("v", "i", "i", "i")
def _split_evenly(graph: Any, value: Any, _parts: int, axis: int, _outputs: int) -> Any:
    """ONNX splits evenly by itself; torch's own translation asks for a length, which it may have lost sight of."""
    return graph.op("Split", value, axis_i=axis, outputs=_outputs)


def _write(module: nn.Module, inputs: dict[str, Tensor], outputs: list[str], path: Path) -> None:
    """Trace a module; the first axis of everything, images or rows, may have any length, and candidates may be any."""
    axes = {name: {0: "images" if name in (PIXELS, SUMMARY, *GRID) else "rows"} for name in (*inputs, *outputs)}
    for name in (BEST, BEST_LOG_PROBS):
        axes.get(name, {})[1] = "candidates"
    axes.pop(COUNT, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this way of exporting is old, and what of a shape it takes as constant
        try:
            torch.onnx.export(
                module.eval(),  # the mode that it is set back to
                tuple(inputs.values()),
                path,
                input_names=list(inputs),
                output_names=outputs,
                dynamic_axes=axes,
                opset_version=OPSET,
                dynamo=False,
            )
        except Exception as error:  # of many kinds, and of no interest but their words
            raise CaptionerError(f"torch cannot export this architecture: {error}") from error


def main(arguments: Sequence[str]) -> int:
    """Export a model into a directory; returns the exit code."""
    name, directory = arguments
    try:
        model, info = load_model(name)
        export(model, info.image, Path(directory))
    except (CaptionerError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
