"""A batch in parts, one after the other: the gradient of the whole, with the memory of a part.

The usual way, a backward pass for each part, would change what is learnt: the decoder's batch normalisation takes its
statistics over a batch, and a part's are others than the whole's. So the parts belong to one pass. Nothing of what a
part computes on its way is kept; it is computed once more when the gradient comes to it, and the gradients of all parts
add up in the weights (Chen et al. 2016, "Training deep nets with sublinear memory cost", with a part of the batch in
place of a part of the network). That costs a second forward pass; several processes still exchange gradients once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Several = tuple[Tensor, ...]


def in_parts(parts: int, compute: Callable[..., Several], *whole: Tensor) -> Several:
    """What ``compute`` makes of a batch, computed in ``parts`` that are as large as each other, or one image larger.

    Args:
        parts: there are no more than images.
        compute: what it makes of an image must not depend on the others. It may draw at random.
        *whole: of B images: (B, …), or (B·K, …), image-major.

    Returns:
        What the parts gave, joined along the first axis.
    """
    images = len(whole[0])
    parts = min(parts, images)
    if parts <= 1:
        return compute(*whole)
    edges = [images * part // parts for part in range(parts + 1)]
    sizes = [last - first for first, last in itertools.pairwise(edges)]
    split = [tensor.split([size * (len(tensor) // images) for size in sizes]) for tensor in whole]
    computed = [_compute(compute, *own) for own in zip(*split, strict=True)]
    return tuple(torch.cat(each) for each in zip(*computed, strict=True))


def _compute(compute: Callable[..., Several], *part: Tensor) -> Several:
    if not torch.is_grad_enabled():
        return compute(*part)
    computed: Several = checkpoint(compute, *part, use_reentrant=False)
    return computed
