"""Grids of several nodes, and encoders that are run in two parts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from untrained import await_statistics

from captioner.encoder import GridEncoder, grid_shape
from captioner.engines.torch_engine import fold_normalisation
from captioner.errors import OptionError

BOTH = "features.13+features.18"
GRIDS = [
    ("mobilenet_v2", BOTH),
    ("mobilenet_v2", "features.0.1+features.6+features"),  # an activation would change the first in its place
    ("resnet18", "bn1+layer3.0+layer4"),  # and so here
    ("vgg16", "features.22+features.28+features.29"),  # and the one before the last here
    ("densenet121", "features.transition3.norm+features"),
]


def make_encoder(name: str, node: str) -> GridEncoder:
    """Random weights, and statistics of batch normalisation that keep the features from vanishing."""
    torch.manual_seed(5)
    encoder = GridEncoder(name, node).requires_grad_(False)
    await_statistics(encoder)
    encoder(noise(4, 64, 64))
    return encoder.eval()


def noise(*size: int) -> Tensor:
    images, height, width = size
    return torch.randn(images, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_their_shape_is_the_finest_ones_with_the_features_of_all() -> None:
    assert grid_shape("mobilenet_v2", BOTH, 224, 224) == (14, 14, 96 + 1280)
    assert grid_shape("mobilenet_v2", "features.18+features.13", 224, 224) == (14, 14, 96 + 1280)
    assert grid_shape("resnet18", "layer4+layer2+layer3", 224, 160) == (28, 20, 512 + 128 + 256)
    assert grid_shape("vgg16", "features.29+features.22", 224, 224) == (28, 28, 512 + 512)


@pytest.mark.parametrize(("name", "node"), GRIDS)
def test_their_parts_are_the_single_nodes_grids(name: str, node: str) -> None:
    encoder = make_encoder(name, node)
    height, width = 48, 80  # no power of two: the coarse grids do not fit the fine one evenly
    pixels = noise(2, height, width)
    together = encoder(pixels)
    rows, columns, features = grid_shape(name, node, height, width)
    assert together.shape == (2, rows * columns, features)
    together = together.view(2, rows, columns, features)
    for part in node.split("+"):
        single = GridEncoder(name, part).eval().requires_grad_(False)
        state = encoder.state_dict()
        single.load_state_dict({key: state[key] for key in single.state_dict()})
        own = grid_shape(name, part, height, width)
        values = single(pixels).view(2, *own)
        assert values.std() > 0.05
        row, column = torch.arange(rows) * own.rows // rows, torch.arange(columns) * own.columns // columns
        mine, together = together[..., : own.features], together[..., own.features :]
        torch.testing.assert_close(mine, values[:, row][:, :, column])
    assert together.shape[-1] == 0


def test_the_order_of_the_names_does_not_matter() -> None:
    encoder, pixels = make_encoder("mobilenet_v2", BOTH), noise(1, 64, 64)
    other = GridEncoder("mobilenet_v2", "features.18+features.13").eval()
    other.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(other(pixels), encoder(pixels))


@pytest.mark.parametrize(
    ("name", "node", "starts"),
    [
        ("mobilenet_v2", BOTH, ["features.0.1", "features.0", "features.5", "features.13"]),
        ("mobilenet_v2", "", ["features.13", "features.18.1", "features.18", "features"]),
        ("mobilenet_v3_large", "", ["features.0.1", "features.12"]),  # its activation is another when done twice
        ("resnet18", "layer2+layer3+layer4", ["bn1", "layer1.0", "layer2.1", "layer2"]),
        ("vgg16", "features.22+features.29", ["features.0", "features.16", "features.22"]),
    ],
)
def test_two_parts_are_the_whole(name: str, node: str, starts: list[str]) -> None:
    encoder, pixels = make_encoder(name, node), noise(2, 64, 96)
    expected = encoder(pixels)
    assert expected.std() > 0.1
    torch.testing.assert_close(encoder.finish(pixels), expected)
    for start in starts:
        half = encoder.begin(pixels, start)
        kept = half.clone()
        for _ in range(2):  # what was begun can be finished as often as one likes
            torch.testing.assert_close(encoder.finish(half, start), expected)
        assert torch.equal(half, kept), start


@pytest.mark.parametrize(
    ("name", "node"), [("mobilenet_v2", BOTH), ("mobilenet_v2", "features.0.1+features.18"), ("resnet18", "bn1+layer4")]
)
def test_folding_the_normalisation_changes_nothing(name: str, node: str) -> None:
    encoder, pixels = make_encoder(name, node), noise(2, 64, 64)
    start = node.split("+", maxsplit=1)[0]
    expected = encoder(pixels)
    before = sum(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())
    fold_normalisation(encoder)
    encoder.eval().requires_grad_(False)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in encoder.modules()) < before
    torch.testing.assert_close(encoder(pixels), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(encoder.finish(encoder.begin(pixels, start), start), expected, rtol=1e-3, atol=1e-3)


def test_the_modules_through_a_node_are_those_up_to_it() -> None:
    with torch.device("meta"):
        encoder = GridEncoder("mobilenet_v2", "features.6")
    names = [" ".join(names) for names, _ in encoder.modules_through("features.2")]
    assert names == ["features.0.0", "features.0.1", "features.0.2 features.0", "features.1", "features.2"]
    assert [module for _, module in encoder.modules_through("features.0.1")] == list(encoder.backbone[0][0])[:2]


def test_a_node_behind_a_part_of_the_grid_is_refused() -> None:
    with torch.device("meta"):
        encoder = GridEncoder("mobilenet_v2", BOTH).eval()
        pixels = torch.empty(1, 3, 64, 64)
        for node in ("features.14", "features.18", "features"):
            complaint = f"{BOTH} of mobilenet_v2 is read before {node}: choose an earlier module".replace("+", r"\+")
            with pytest.raises(OptionError, match=complaint):
                encoder.begin(pixels, node)
            with pytest.raises(OptionError, match=complaint):
                encoder.finish(torch.empty(1, 96, 4, 4), node)
        assert encoder.finish(encoder.begin(pixels, "features.13"), "features.13").shape == (1, 16, 96 + 1280)
        short = GridEncoder("mobilenet_v2", "features.5")
        with pytest.raises(OptionError, match=r"grid features\.5 of mobilenet_v2 ends before features\.6"):
            short.modules_through("features.6")


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("features.13+features.99", r"no node 'features\.99'; it has .*features\.13, "),
        ("features.13+classifier", "no node 'classifier'"),
        ("features.13+", "no node ''"),
        ("features.13 + features.18", "no node 'features.13 '"),
        ("features.13+features.0.0", r"no node 'features\.0\.0'"),
        ("features.13+features.13", r"features\.13\+features\.13 of mobilenet_v2 names a module twice: name each once"),
        ("features+features.18", "names a module twice"),
    ],
)
def test_what_names_no_module_or_one_twice_is_refused(node: str, message: str) -> None:
    with torch.device("meta"), pytest.raises(OptionError, match=message):
        GridEncoder("mobilenet_v2", node)


def test_unknown_nodes_have_no_modules() -> None:
    with torch.device("meta"):
        encoder = GridEncoder("mobilenet_v2", BOTH)
        pixels = torch.empty(1, 3, 32, 32)
        for use in (encoder.modules_through, lambda node: encoder.begin(pixels, node)):
            with pytest.raises(OptionError, match="mobilenet_v2 has no node 'layer1'"):
                use("layer1")
