"""A torchvision backbone, cut where it still has a spatial grid: images → (B, P, D) features.

Shapes: B images, P = rows x columns positions, D features a position.
"""

from __future__ import annotations

import itertools
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
        encoder = GridEncoder(name, node).eval()
        pixels = torch.empty(1, 3, height, width)
        finest = encoder.begin(pixels, min(encoder.node.split("+"), key=encoder.place))
        features = encoder(pixels).shape[-1]
    return GridShape(rows=finest.shape[2], columns=finest.shape[3], features=features)


class GridEncoder(nn.Module):
    """A convolutional backbone whose output is a grid of features.

    Args:
        name: a key of :data:`BACKBONES`.
        node: the module to read, by torchvision's naming: a stage or one of its blocks; empty for the backbone's
            default. Several, joined by ``+``, make one grid: the finest one's positions, with the features of all.
            What is coarser is enlarged without smoothing; features stand in the order in which they are computed.

    Raises:
        OptionError: the backbone or its node does not exist, or two names mean one module.
    """

    def __init__(self, name: str = "mobilenet_v2", node: str = "") -> None:
        super().__init__()
        from torchvision.models import get_model

        if name not in BACKBONES:
            raise OptionError(f"unknown encoder {name!r}; choose one of {', '.join(BACKBONES)}")
        self.name, self.node = name, node or BACKBONES[name]
        backbone = get_model(name, weights=None)
        self._places = _places(backbone)
        nodes = sorted(self.node.split("+"), key=self.place)
        self._read = [self.place(node) for node in nodes]
        if len(set(self._read)) < len(nodes):
            raise OptionError(f"the grid {self.node} of {self.name} names a module twice: name each once")
        self.last = nodes[-1]
        self.backbone = _cut_after(backbone, self.last)
        self.train(self.training)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) normalised pixels → (B, P, D), positions row by row."""
        return self.finish(pixels)

    def begin(self, pixels: Tensor, node: str) -> Tensor:
        """(B, 3, H, W) normalised pixels → (B, C, H', W') behind ``node``, for :meth:`finish`.

        Raises:
            OptionError: there is no such node, or a part of the grid lies before it.
        """
        self._next(node)
        for _, module in self.modules_through(node):
            pixels = module(pixels)
        return pixels

    def finish(self, values: Tensor, node: str = "") -> Tensor:
        """What :meth:`begin` gave for ``node``, or without one the pixels, → (B, P, D).

        Raises:
            OptionError: there is no such node, or a part of the grid lies before it.
        """
        start = self._next(node) if node else 0
        grids = [values] if start > self._read[0] else []
        kept = {start, *(place + 1 for place in self._read)}  # what these modules are given is not theirs to change
        for place, (_, module) in enumerate(_chain(self.backbone)):
            if place >= start:
                values = module(values.clone() if place in kept and getattr(module, "inplace", False) else values)
                if place in self._read:
                    grids.append(values)
        finest = grids[0].shape[2:]
        grids = [grid if grid.shape[2:] == finest else nn.functional.interpolate(grid, finest) for grid in grids]
        return torch.cat(grids, dim=1).flatten(2).transpose(1, 2)

    def modules_through(self, node: str) -> Iterator[tuple[tuple[str, ...], nn.Module]]:
        """The modules from the pixels to ``node``, that one included, each after the nodes that end with it.

        Raises:
            OptionError: there is no such node, or the whole grid lies before it.
        """
        place = self.place(node)
        if place > self._read[-1]:
            raise OptionError(f"the grid {self.node} of {self.name} ends before {node}: choose an earlier module")
        return itertools.islice(_chain(self.backbone), place + 1)

    def _next(self, node: str) -> int:
        """The number of the module behind ``node``, from where the grid can be finished."""
        place = self.place(node)
        if place > self._read[0]:
            raise OptionError(f"the grid {self.node} of {self.name} is read before {node}: choose an earlier module")
        return place + 1

    def place(self, node: str) -> int:
        """The number of the module with which a node ends.

        Raises:
            OptionError: there is no such node.
        """
        if node not in self._places:
            raise OptionError(f"{self.name} has no node {node!r}; it has {', '.join(self._places)}")
        return self._places[node]

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


def _chain(model: nn.Module, prefix: str = "") -> Iterator[tuple[tuple[str, ...], nn.Module]]:
    """The modules that a backbone runs one after the other, each after the names of the nodes that end with it."""
    for name, child in model.named_children():
        if prefix + name in HEADS:
            continue
        if isinstance(child, nn.Sequential):
            *others, (nodes, last) = _chain(child, f"{prefix}{name}.")
            yield from others
            yield (*nodes, prefix + name), last
        else:
            yield (prefix + name,), child


def _places(backbone: nn.Module) -> dict[str, int]:
    """By node: the number of the module with which it ends.

    A convolution in front of its batch normalisation is no node: for captioning the two are made one.
    """
    chain = list(_chain(backbone))
    following = [module for _, module in chain[1:]] + [None]
    return {
        node: place
        for place, ((nodes, module), after) in enumerate(zip(chain, following, strict=True))
        if not (isinstance(module, nn.Conv2d) and isinstance(after, nn.BatchNorm2d))
        for node in nodes
    }


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
