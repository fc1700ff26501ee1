"""How weights move: the optimiser of a stage, its learning rates, the moving average that becomes the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel

from captioner.model import CaptionModel
from training.recipe import Recipe, Stage
from training.replicas import synchronised


class Learner:
    """A model under one stage's optimiser, and the moving average of its weights that is evaluated and kept.

    Args:
        model: its encoder is frozen or thawed as the stage says.
        recipe: its ``weight_decay``, ``gradient_clip`` and ``average_decay`` count.
        stage: its rates and schedule count.
    """

    def __init__(self, model: CaptionModel, recipe: Recipe, stage: Stage) -> None:
        self.model = model
        self._clip, self._warmup = recipe.gradient_clip, stage.warmup
        self._optimizer = make_optimizer(model, stage, weight_decay=recipe.weight_decay)
        self._average = AveragedModel(model, avg_fn=partial(moving_average, recipe.average_decay))
        self._measure = synchronised(model)

    @property
    def average(self) -> CaptionModel:
        """The moving average."""
        return cast(CaptionModel, self._average.module)

    @property
    def rate(self) -> float:
        """The learning rate of the last step, of the first group of weights."""
        return float(self._optimizer.param_groups[0]["lr"])

    def measure(self, compute: Callable[[], Tensor]) -> Tensor:
        """The loss that ``compute`` returns, ready for :meth:`learn`; called by all processes."""
        return self._measure(compute)

    def learn(self, loss: Tensor, done: float) -> None:
        """One step down the gradient of ``loss`` when a share ``done`` of the stage is over.

        With several processes, down that of the mean of all their losses, which :meth:`measure` must have computed.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * schedule(done, self._warmup)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)
        self._optimizer.step()
        self._average.update_parameters(self.model)

    def states(self) -> dict[str, Mapping[str, Any]]:
        """All that :meth:`restore` needs."""
        return {
            "model": self.model.state_dict(),
            "average": self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def restore(self, states: Mapping[str, Any]) -> None:
        """Go on where :meth:`states` were taken."""
        self.model.load_state_dict(states["model"])
        self._average.load_state_dict(states["average"])
        self._optimizer.load_state_dict(states["optimizer"])


def make_optimizer(model: CaptionModel, stage: Stage, *, weight_decay: float) -> AdamW:
    """AdamW over what the stage trains: matrices decay, biases and norms do not.

    Freezes or thaws the encoder on the way. Rates start at zero; each group's ``peak`` is what :func:`schedule` scales.
    """
    model.encoder.requires_grad_(stage.train_encoder)
    if stage.frozen:
        for _, module in model.encoder.modules_through(stage.frozen):
            module.requires_grad_(False)
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
