"""A torchvision backbone, cut where it still has a spatial grid: images → (B, P, D) features.

Shapes: B images, P = rows x columns positions, D features a position.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from captioner import torchvision_compat  # noqa: F401  must precede torchvision
from captioner.errors import OptionError, WeightsError

# torchvision's default grid for each backbone: the last layer before pooling and classification.
BACKBONES = {
    "vgg16": "features.29",  # conv5_3 with its ReLU: 14 x 14 x 512
    "vgg19": "features.35",  # conv5_4 with its ReLU: 14 x 14 x 512
    "resnet18": "layer4",  # 7 x 7 x 512
    "resnet34": "layer4",
    "resnet50": "layer4",  # 7 x 7 x 2048
    "resnet101": "layer4",
    "resnet152": "layer4",
    "resnext50_32x4d": "layer4",
    "wide_resnet50_2": "layer4",
    "densenet121": "features",  # 7 x 7 x 1024
    "mobilenet_v2": "features",  # 7 x 7 x 1280
    "mobilenet_v3_large": "features",  # 7 x 7 x 960
    "efficientnet_b0": "features",  # 7 x 7 x 1280
    "convnext_tiny": "features",  # 7 x 7 x 768
}
HEADS = ("classifier", "fc")  # what torchvision calls the layers behind the grid


class GridShape(NamedTuple):
    """The grid that one input size gives."""

    rows: int
    columns: int
    features: int


def grid_shape(name: str, node: str, height: int, width: int) -> GridShape:
    """The grid of an encoder for pictures of ``height`` x ``width`` pixels, found without arithmetic or memory.

    Raises:
        OptionError: the backbone or node does not exist.
    """
    with torch.device("meta"):
        grid = GridEncoder(name, node).eval().backbone(torch.empty(1, 3, height, width))
    return GridShape(rows=grid.shape[2], columns=grid.shape[3], features=grid.shape[1])


class GridEncoder(nn.Module):
    """A convolutional backbone whose output is a grid of features.

    Args:
        name: a key of :data:`BACKBONES`.
        node: the module to read, by torchvision's naming: a stage or one of its blocks; empty for the backbone's
            default.

    Raises:
        OptionError: the backbone or its node does not exist.
    """

    def __init__(self, name: str = "mobilenet_v2", node: str = "") -> None:
        super().__init__()
        from torchvision.models import get_model

        if name not in BACKBONES:
            raise OptionError(f"unknown encoder {name!r}; choose one of {', '.join(BACKBONES)}")
        self.name, self.node = name, node or BACKBONES[name]
        backbone = get_model(name, weights=None)
        nodes = list(_nodes(backbone))
        if self.node not in nodes:
            raise OptionError(f"{name} has no node {self.node!r}; it has {', '.join(nodes)}")
        self.backbone = _cut_after(backbone, self.node)
        self.train(self.training)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) normalised pixels → (B, P, D), positions row by row."""
        grid: Tensor = self.backbone(pixels)
        return grid.flatten(2).transpose(1, 2)

    def train(self, mode: bool = True) -> Self:
        """Switch mode, but keep batch normalisation on its stored statistics.

        Captioning batches are small and far from ImageNet's; re-estimated statistics hurt fine-tuning. The
        affine parameters still learn.
        """
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def load_weights(self, source: str | Path) -> None:
        """Load pretrained weights.

        Args:
            source: ``"imagenet"`` for torchvision's official weights (downloaded once, then cached), or a local
                ``.safetensors`` or ``.pth`` file holding a state dict of the whole torchvision model.

        Raises:
            WeightsError: the file or download is missing, or does not fit this backbone.
        """
        state = _official_weights(self.name) if str(source) == "imagenet" else _local_weights(Path(source))
        mine = self.backbone.state_dict()
        # A classifier that the grid does not need may come along, and files written by an old torch lack the counters
        # of batch normalisation, which only training reads; anything else missing or misshapen may not.
        missing = sorted(key for key in set(mine) - set(state) if not key.endswith("num_batches_tracked"))
        misshapen = sorted(key for key in set(mine) & set(state) if mine[key].shape != state[key].shape)
        if missing or misshapen:
            wrong = f"lacks {missing[0]!r}" if missing else f"has another shape for {misshapen[0]!r}"
            raise WeightsError(f"the weights {source} are not those of {self.name}: the file {wrong}")
        self.backbone.load_state_dict({key: state[key] for key in mine if key in state})


def _nodes(model: nn.Module, prefix: str = "") -> Iterator[str]:
    """The modules that a backbone runs one after the other, and those of which these are chains themselves."""
    for name, child in model.named_children():
        if name not in HEADS:
            yield prefix + name
            if isinstance(child, nn.Sequential):
                yield from _nodes(child, f"{prefix}{name}.")


def _cut_after(model: nn.Module, node: str) -> nn.Sequential:
    """The modules up to a node, under their own names.

    torchvision's feature extraction could cut anywhere, but it traces the model, and as long as torch traces, no other
    thread can run a network.
    """
    first, _, rest = node.partition(".")
    names = [name for name, _ in model.named_children()]
    kept = [(name, model.get_submodule(name)) for name in names[: names.index(first) + 1]]
    if rest:
        kept[-1] = (first, _cut_after(kept[-1][1], rest))
    return nn.Sequential(OrderedDict(kept))


def _local_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(
            f"no encoder weights at {path}: give a .safetensors or .pth state dict of the torchvision model, "
            "or 'imagenet' to download the official ones"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format has its own exceptions; to the caller they are one
        raise WeightsError(f"cannot read the encoder weights {path}: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} holds no state dict of the torchvision model: save one there")
    return _modern_names(state)


def _official_weights(name: str) -> dict[str, Tensor]:
    from torchvision.models import get_model_weights

    weights = get_model_weights(name).DEFAULT
    place = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    try:
        state = weights.get_state_dict(progress=True, check_hash=True, map_location="cpu", weights_only=True)
    except Exception as error:  # no network, no room, a broken file from before: the same remedy helps
        raise WeightsError(
            f"cannot get the {name} weights ({error}): fetch {weights.url} by other means and put it at {place}, "
            "or name a local file"
        ) from error
    return _modern_names(state)


def _modern_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's DenseNet files still carry the names of its first version, ``denselayer1.norm.1.weight``."""
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d\.)", r"\1\2", name): value for name, value in state.items()}
