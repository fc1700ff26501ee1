"""How weights move: the optimiser of a stage, its learning rates, the moving average that becomes the model."""

from __future__ import annotations

import math

from torch import Tensor
from torch.optim import AdamW

from captioner.model import CaptionModel
from training.recipe import Stage


def make_optimizer(model: CaptionModel, stage: Stage, *, weight_decay: float) -> AdamW:
    """AdamW over what the stage trains: matrices decay, biases and norms do not.

    Freezes or thaws the encoder on the way. Rates start at zero; each group's ``peak`` is what :func:`schedule` scales.
    """
    model.encoder.requires_grad_(stage.train_encoder)
    encoder = {id(parameter) for parameter in model.encoder.parameters()}
    groups = []
    for of_encoder, rate in ((False, stage.decoder_rate), (True, stage.encoder_rate)):
        for matrix in (True, False):
            parameters = [
                parameter
                for parameter in model.parameters()
                if parameter.requires_grad
                and (id(parameter) in encoder) == of_encoder
                and (parameter.dim() > 1) == matrix
            ]
            if parameters:
                groups.append({"params": parameters, "peak": rate, "weight_decay": weight_decay if matrix else 0.0})
    return AdamW(groups, lr=0.0, betas=(0.9, stage.second_moment_decay), fused=True)


def schedule(done: float, warmup: float) -> float:
    """Factor of the learning rate when a share ``done`` of the stage is over: a linear rise, then a cosine to zero."""
    if done < warmup:
        return done / warmup
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


def moving_average(decay: float, average: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
    """Exponential moving average; young averages forget faster, so that the first weights do not linger."""
    return average.lerp(current, 1 - min(decay, (1 + int(updates)) / (10 + int(updates))))
