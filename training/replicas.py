"""One model in several processes: each has a share of every batch, and all take the step of the whole batch.

Three things make that step the one that a single process would take. The gradients of all are averaged, by torch's
DistributedDataParallel. What is a mean over a batch is a mean over all of it, however many tokens each share has
(:func:`mean`). And the decoder's batch normalisation sees the statistics of all of it (:class:`SharedNorm`).

In one process all of this is what it would be anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as exchange
from torch.nn.parallel import DistributedDataParallel

from captioner.model import CaptionModel
from training.distributed import processes, total

Measure = Callable[[Callable[[], Tensor]], Tensor]


def replicate(model: CaptionModel) -> None:
    """Give all processes the weights and statistics of the first, and share the statistics to come."""
    if processes() > 1:
        for tensor in model.state_dict().values():
            exchange.broadcast(tensor, src=0)
        _share_norms(model.reader)


def synchronised(model: CaptionModel) -> Measure:
    """What computes a loss of ``model`` so that its gradient becomes the mean over all processes.

    Args:
        model: what learns of it, and what does not, is settled already.

    Returns:
        A function that takes the computation of a loss, and returns the loss.
    """
    if processes() == 1:
        return lambda compute: compute()
    # All that learns takes part in every loss, so that nothing need be searched for what does not.
    return DistributedDataParallel(_Computation(model), forward_sync_buffers=False)


def mean(values: Tensor) -> Tensor:
    """The mean over the values of all processes, as far as this one's go: their mean is the mean of all values.

    A process with fewer values counts less, which a mean of means would forget. Called by all.

    Args:
        values: (n,) this process's own, perhaps none.
    """
    if processes() == 1:
        return values.mean()
    return values.sum() * (processes() / total(len(values)))


class SharedNorm(nn.BatchNorm1d):
    """Batch normalisation by the statistics of all processes' rows, and therefore with the gradient through them.

    torch has one for GPUs (``SyncBatchNorm``); this one is for CPUs as well. Parameters and statistics have the names
    that they have in ``BatchNorm1d``; in evaluation mode it is that.
    """

    def forward(self, values: Tensor) -> Tensor:
        """(rows, D) → (rows, D)."""
        if not self.training:
            return super().forward(values)
        own = values.float()
        count = total(len(own))
        average = _sum(own.sum(dim=0)) / count
        centred = own - average
        variance = _sum(centred.square().sum(dim=0)) / count  # of what is centred: no large numbers cancel
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(average, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        normal: Tensor = centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias
        return normal.to(values.dtype)


class _Computation(nn.Module):
    """Any computation with a model, as the forward pass that DistributedDataParallel wants to see."""

    def __init__(self, model: CaptionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, compute: Callable[[], Tensor]) -> Tensor:
        return compute()


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes. All make something of it, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        return _summed(values)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _sum(values: Tensor) -> Tensor:
    summed: Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]  # torch's stub has no types
    return summed


def _summed(values: Tensor) -> Tensor:
    summed = values.contiguous().clone()
    exchange.all_reduce(summed)
    return summed


def _share_norms(network: nn.Module) -> None:
    for module in list(network.modules()):
        for name, norm in list(module.named_children()):
            if isinstance(norm, nn.BatchNorm1d):
                shared = SharedNorm(norm.num_features, eps=norm.eps, momentum=norm.momentum)
                shared.load_state_dict(norm.state_dict())
                setattr(module, name, shared)
