"""What training minimises, where captions are imitated; :mod:`training.scst` has the other objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from captioner.model import CaptionModel, Grid
from captioner.tokens import Vocabulary
from training.accumulation import in_parts
from training.batching import Batch
from training.recipe import Stage
from training.replicas import mean


class Objective(Protocol):
    """What a stage's batches are measured by.

    Attributes:
        figures: of the last batch, for the curves.
    """

    figures: dict[str, float]

    def __call__(self, grid: Callable[[], Grid], batch: Batch, done: float) -> Tensor:
        """The loss of one batch, or of this process's share of it; see :func:`training.replicas.mean`.

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
        stage: see :func:`caption_loss`.
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
            self._stage,
            label_smoothing=self._label_smoothing,
            done=done,
            soft=self._teachers(batch) if self._teachers else None,
        )


def caption_loss(
    model: CaptionModel,
    grid: Grid,
    tokens: Tensor,
    stage: Stage,
    *,
    label_smoothing: float,
    done: float = 0.0,
    soft: SoftTargets | None = None,
) -> Tensor:
    """Mean cross-entropy a token under teacher forcing, plus the doubly stochastic attention term.

    Args:
        model: in training mode for dropout.
        grid: of B images.
        tokens: (N, 1 + T) from bos on, N a multiple of B; padding counts nowhere.
        stage: its ``attention_penalty`` is the weight of the mean over captions of sum_P (1 - sum_T attention)^2 (Xu et
            al. 2015, equation 14), its ``distillation`` the share of the target that teachers decide (Hinton, Vinyals
            and Dean 2015). Its ``scheduled_sampling`` and ``accumulate`` count, too.
        label_smoothing: share of the target spread over the vocabulary (Szegedy et al. 2016).
        done: share of the stage that is over; as large a share of ``scheduled_sampling`` is the share of the previous
            tokens that the model chooses itself, see :func:`own_tokens`.
        soft: what teachers expect.
    """
    device = grid.values.device

    def measure(values: Tensor, keys: Tensor, tokens: Tensor, *taught: Tensor) -> tuple[Tensor, ...]:
        own, targets = Grid(values, keys), tokens[:, 1:]
        inputs = tokens[:, :-1]
        if stage.scheduled_sampling * done:
            inputs = own_tokens(model, own, inputs, stage.scheduled_sampling * done)
        logits, weights = model(own, inputs)
        log_probs = logits.float().log_softmax(dim=-1)  # (N, T, V)
        real = targets != Vocabulary.pad  # (N, T)
        losses = cross_entropy(log_probs, targets, label_smoothing)
        if taught:
            candidates, probabilities = taught
            expected = -(probabilities * log_probs.gather(-1, candidates)).sum(dim=-1)
            losses = (1 - stage.distillation) * losses + stage.distillation * expected
        if not stage.attention_penalty:
            return (losses[real],)
        looked = (weights * real.unsqueeze(-1)).sum(dim=1)  # (N, P): each position's share of all looking
        looked = looked[real.any(dim=1)]  # a place without a caption looks nowhere, which is no fault of the model
        return losses[real], (1 - looked).square().sum(dim=1)

    expected = () if soft is None else (part.to(device) for part in soft)
    losses, *unevenness = in_parts(stage.accumulate, measure, *grid, tokens.to(device), *expected)
    loss = mean(losses)
    return loss + stage.attention_penalty * mean(unevenness[0]) if unevenness else loss


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
