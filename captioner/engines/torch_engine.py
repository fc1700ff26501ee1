"""The reference engine: the torch model itself, on CPU, CUDA or Apple's MPS."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from captioner.engines import Engine, FloatArray, IntArray, Pixels, stack
from captioner.engines.candidates import Candidates
from captioner.errors import OptionError
from captioner.model import CaptionModel, Grid, State

# On a CPU an encoder is fastest when what it computes in between stays in the cache: with MobileNetV2 at 224 x 224, for
# four images at a time in fp32, eight in bf16. One batch of 16 took 1.8 and 1.3 times as long on two cores with 32 MiB.
BYTES_AT_ONCE = 16  # images times bytes a value
MANY = 1_000_000

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}

Rows = TypeVar("Rows", Grid, State)


class TorchDecoder:
    """Runs the decoder of a :class:`CaptionModel` as it stands, without gradients: what a search needs behind a grid.

    Args:
        model: neither moved nor changed; whether it is in evaluation mode is the caller's choice.
    """

    def __init__(self, model: CaptionModel) -> None:
        self.model = model
        self.device = next(model.parameters()).device

    @torch.inference_mode()
    def start(self, grid: Grid) -> State:
        """See :meth:`captioner.engines.Engine.start`."""
        return self.model.start(grid)

    @torch.inference_mode()
    def step(
        self, tokens: IntArray, state: State, grid: Grid, count: int | None = None
    ) -> tuple[Candidates, State, FloatArray]:
        """See :meth:`captioner.engines.Engine.step`."""
        logits, state, weights = self.model.step(torch.from_numpy(tokens).to(self.device), state, grid)
        log_probs = logits.float().log_softmax(dim=-1)
        if count is None:
            candidates = Candidates(to_numpy(log_probs))
        else:
            best = log_probs.topk(min(count, log_probs.shape[1]))
            candidates = Candidates(to_numpy(best.values), np.asarray(best.indices.cpu().numpy()))
        return candidates, state, to_numpy(weights.float())

    @torch.inference_mode()
    def select(self, value: Rows, rows: IntArray) -> Rows:
        """See :meth:`captioner.engines.Engine.select`."""
        index = torch.from_numpy(rows).to(self.device)
        return type(value)(*(part.index_select(0, index) for part in value))


class TorchEngine(TorchDecoder):
    """Runs a :class:`CaptionModel` in evaluation mode, from pixels on.

    Args:
        model: moved to ``device``; it belongs to the engine from then on.
        device: a torch device name; by default CUDA, then MPS, then CPU.
        precision: of the encoder, where the arithmetic is: ``fp32`` (the default) or ``bf16``, which is faster where
            the hardware computes in it, but rounds a MobileNet's features by about a tenth and so costs quality. The
            decoder stays in fp32: beams compare sums of log-probabilities that bf16's eight bits would round.

    Raises:
        OptionError: the device or precision is unknown or not there.
    """

    def __init__(self, model: CaptionModel, *, device: str | None = None, precision: str = "fp32") -> None:
        chosen = pick_device(device)
        if precision not in PRECISIONS:
            raise OptionError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
        super().__init__(model.eval().to(chosen, torch.float32))
        self.name = f"torch {self.device.type} {precision}"
        fold_normalisation(self.model.encoder)
        self.model.eval().requires_grad_(False)  # what was folded is new
        self._encoder_dtype = PRECISIONS[precision]
        self._at_once = BYTES_AT_ONCE // self._encoder_dtype.itemsize if self.device.type == "cpu" else MANY
        self.model.encoder.to(self._encoder_dtype)
        self.model.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it

    @torch.inference_mode()
    def encode(self, pixels: Pixels) -> Grid:
        """See :meth:`captioner.engines.Engine.encode`."""
        features = [
            self._features(stack(pixels[start : start + self._at_once]))
            for start in range(0, len(pixels), self._at_once)
        ]
        return self.model.read(features[0] if len(features) == 1 else torch.cat(features))

    @torch.inference_mode()
    def summary(self, grid: Grid) -> FloatArray:
        """See :meth:`captioner.engines.Engine.summary`."""
        return to_numpy(grid.values.mean(dim=1))

    def lanes(self, _images: int, /) -> Sequence[Engine]:
        """See :meth:`captioner.engines.Engine.lanes`; torch's own threads would get in each other's way."""
        return [self]

    def use_cores(self, number: int) -> None:
        """See :meth:`captioner.engines.Engine.use_cores`; torch keeps that number for each thread."""
        torch.set_num_threads(number)

    def _features(self, pixels: FloatArray) -> Tensor:
        batch = torch.from_numpy(pixels).to(self.device, self._encoder_dtype, memory_format=torch.channels_last)
        features: Tensor = self.model.encoder(batch).float()
        return features


def fold_normalisation(network: nn.Module) -> None:
    """Let each convolution do the work of the batch normalisation right behind it, which is as linear as it is.

    Only where the two stand side by side in a sequence, so that nothing can stand between them.
    """
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            for (name, first), (following, second) in itertools.pairwise(list(module.named_children())):
                if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                    setattr(module, name, fuse_conv_bn_eval(first, second))
                    setattr(module, following, nn.Identity())


def to_numpy(tensor: Tensor) -> FloatArray:
    """A float32 tensor as an array, without a copy on the CPU."""
    return np.asarray(tensor.cpu().numpy())


def pick_device(name: str | None = None) -> torch.device:
    """The device called ``name``, or the best one here.

    Raises:
        OptionError: there is no such device here.
    """
    available = [device for device, there in _devices().items() if there]
    try:
        device = torch.device(available[0] if name is None else name)
    except RuntimeError:  # not even the form of a device's name
        device = None
    if device is None or device.type not in available:
        raise OptionError(f"no device {name!r} here; choose one of {', '.join(available)}")
    return device


def _devices() -> dict[str, bool]:
    """Device types from the fastest to the slowest, and whether each is here."""
    return {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
