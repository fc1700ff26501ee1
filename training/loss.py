"""What training minimises, where captions are imitated; :mod:`training.scst` has the other objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from captioner.model import CaptionModel, Grid
from captioner.tokens import Vocabulary
from training.batching import Batch
from training.recipe import Stage


class Objective(Protocol):
    """What a stage's batches are measured by.

    Attributes:
        figures: of the last batch, for the curves.
    """

    figures: dict[str, float]

    def __call__(self, grid: Callable[[], Grid], batch: Batch, done: float) -> Tensor:
        """The loss of one batch.

        Args:
            grid: what the decoder attends to, computed anew at each call, in the model's mode of that moment.
            batch: its images and captions.
            done: share of the stage that is over.
        """
        ...


class SoftTargets(NamedTuple):
    """What teachers expect at each of T steps of N captions: their C likeliest tokens."""

    tokens: Tensor  # (N, T, C)
    probabilities: Tensor  # (N, T, C), of sum one


class Likelihood:
    """The objective: the training captions' likelihood, softened as ``stage`` and the recipe say.

    Args:
        model: what is trained.
        stage: its ``attention_penalty``, ``scheduled_sampling`` and ``distillation`` count.
        label_smoothing: see :func:`caption_loss`.
        teachers: what they expect of a batch; there with ``distillation``, and only then.
    """

    def __init__(
        self,
        model: CaptionModel,
        stage: Stage,
        *,
        label_smoothing: float,
        teachers: Callable[[Batch], SoftTargets] | None = None,
    ) -> None:
        assert (teachers is not None) == (stage.distillation > 0)
        self._model, self._stage, self._label_smoothing, self._teachers = model, stage, label_smoothing, teachers
        self.figures: dict[str, float] = {}

    def __call__(self, grid: Callable[[], Grid], batch: Batch, done: float) -> Tensor:
        """See :class:`Objective`."""
        return caption_loss(
            self._model,
            grid(),
            batch.tokens,
            label_smoothing=self._label_smoothing,
            attention_penalty=self._stage.attention_penalty,
            scheduled_sampling=self._stage.scheduled_sampling * done,
            soft=self._teachers(batch) if self._teachers else None,
            distillation=self._stage.distillation,
        )


def caption_loss(
    model: CaptionModel,
    grid: Grid,
    tokens: Tensor,
    *,
    label_smoothing: float,
    attention_penalty: float = 0.0,
    scheduled_sampling: float = 0.0,
    soft: SoftTargets | None = None,
    distillation: float = 0.0,
) -> Tensor:
    """Mean cross-entropy a token under teacher forcing, plus the doubly stochastic attention term.

    Args:
        model: in training mode for dropout.
        grid: of B images.
        tokens: (N, 1 + T) from bos on, N a multiple of B; padding counts nowhere.
        label_smoothing: share of the target spread over the vocabulary (Szegedy et al. 2016).
        attention_penalty: weight of the mean over captions of sum_P (1 - sum_T attention)^2 (Xu et al. 2015,
            equation 14).
        scheduled_sampling: share of the previous tokens that the model chooses itself, see :func:`own_tokens`.
        soft: what teachers expect.
        distillation: share of the target that they decide (Hinton, Vinyals and Dean 2015).
    """
    tokens = tokens.to(grid.values.device)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    if scheduled_sampling:
        inputs = own_tokens(model, grid, inputs, scheduled_sampling)
    logits, weights = model(grid, inputs)
    log_probs = logits.float().log_softmax(dim=-1)  # (N, T, V)
    real = targets != Vocabulary.pad  # (N, T)
    loss = cross_entropy(log_probs, targets, label_smoothing)
    if soft is not None:
        expected = log_probs.gather(-1, soft.tokens.to(log_probs.device))  # (N, T, C)
        taught = -(soft.probabilities.to(log_probs.device) * expected).sum(dim=-1)
        loss = (1 - distillation) * loss + distillation * taught
    loss = loss[real].mean()
    if attention_penalty:
        looked = (weights * real.unsqueeze(-1)).sum(dim=1)  # (N, P): each position's share of all looking
        looked = looked[real.any(dim=1)]  # a place without a caption looks nowhere, which is no fault of the model
        loss = loss + attention_penalty * (1 - looked).square().sum(dim=1).mean()
    return loss


def cross_entropy(log_probs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """(N, T, V) log-probabilities, (N, T) targets → (N, T): − log-probability, some of it of all tokens evenly."""
    likelihood = log_probs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    if not label_smoothing:
        return -likelihood
    return -((1 - label_smoothing) * likelihood + label_smoothing * log_probs.mean(dim=-1))


@torch.no_grad()
def own_tokens(model: CaptionModel, grid: Grid, tokens: Tensor, share: float) -> Tensor:
    """Previous tokens, some of which the model chose: scheduled sampling (Bengio et al. 2015), all steps at once.

    The model's choice at each place is drawn from what it predicts under teacher forcing, so that one more pass takes
    the place of a loop (Duckworth et al. 2019, "Parallel scheduled sampling", with one pass).

    Args:
        model: as :func:`caption_loss` has it.
        grid: of B images.
        tokens: (N, T) from bos on; bos and padding stay.
        share: of the others that are replaced, at random.
    """
    logits, _ = model(grid, tokens[:, :-1])
    logits = logits.float()
    logits[..., [Vocabulary.pad, Vocabulary.bos, Vocabulary.eos]] = -torch.inf  # after an end, nothing is to be learnt
    drawn = torch.distributions.Categorical(logits=logits).sample()  # (N, T - 1)
    later = tokens[:, 1:]
    replaced = (torch.rand(later.shape, device=tokens.device) < share) & (later != Vocabulary.pad)
    return torch.cat((tokens[:, :1], torch.where(replaced, drawn, later)), dim=1)
