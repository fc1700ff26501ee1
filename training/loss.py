"""What training minimises."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from captioner.model import CaptionModel, Grid
from captioner.tokens import Vocabulary


def caption_loss(
    model: CaptionModel, grid: Grid, tokens: Tensor, *, label_smoothing: float, attention_penalty: float
) -> Tensor:
    """Mean cross-entropy a token under teacher forcing, plus the doubly stochastic attention term.

    Args:
        model: in training mode for dropout.
        grid: of B images.
        tokens: (N, 1 + T) from bos on, N a multiple of B; padding counts nowhere.
        label_smoothing: share of the target spread over the vocabulary (Szegedy et al. 2016).
        attention_penalty: weight of the mean over captions of sum_P (1 - sum_T attention)^2 (Xu et al. 2015,
            equation 14).
    """
    tokens = tokens.to(grid.values.device)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    logits, weights = model(grid, inputs)
    loss = F.cross_entropy(
        logits.float().flatten(0, 1),
        targets.flatten(),
        ignore_index=Vocabulary.pad,
        label_smoothing=label_smoothing,
    )
    if attention_penalty:
        real = targets != Vocabulary.pad  # (N, T)
        looked = (weights * real.unsqueeze(-1)).sum(dim=1)  # (N, P): each position's share of all looking
        looked = looked[real.any(dim=1)]  # a place without a caption looks nowhere, which is no fault of the model
        loss = loss + attention_penalty * (1 - looked).square().sum(dim=1).mean()
    return loss
