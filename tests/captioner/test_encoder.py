"""The encoder: which grids there are, and which weights get in."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from threading import Thread

import captioner.torchvision_compat  # noqa: F401  must precede torchvision

# isort: split
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights
from untrained import await_statistics

from captioner.encoder import BACKBONES, GridEncoder, grid_shape
from captioner.errors import OptionError, WeightsError

BACKBONE = "mobilenet_v2"

# Published sizes of the last grid for 224 x 224 pixels; VGG's is the one of Show, Attend and Tell.
GRIDS = {
    "vgg16": (14, 14, 512),
    "vgg19": (14, 14, 512),
    "resnet18": (7, 7, 512),
    "resnet34": (7, 7, 512),
    "resnet50": (7, 7, 2048),
    "resnet101": (7, 7, 2048),
    "resnet152": (7, 7, 2048),
    "resnext50_32x4d": (7, 7, 2048),
    "wide_resnet50_2": (7, 7, 2048),
    "densenet121": (7, 7, 1024),
    "mobilenet_v2": (7, 7, 1280),
    "mobilenet_v3_large": (7, 7, 960),
    "efficientnet_b0": (7, 7, 1280),
    "convnext_tiny": (7, 7, 768),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_each_backbone_has_its_published_grid(name: str) -> None:
    assert grid_shape(name, "", 224, 224) == GRIDS[name]


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_vgg_is_read_behind_its_activation(name: str) -> None:
    with torch.device("meta"):
        assert isinstance(get_model(name, weights=None).get_submodule(BACKBONES[name]), nn.ReLU)


def test_the_grid_follows_the_size_and_the_node() -> None:
    assert grid_shape("mobilenet_v2", "", 64, 96) == (2, 3, 1280)
    assert grid_shape("mobilenet_v2", "features.6", 64, 96) == (8, 12, 32)


def test_unknown_names_are_refused_and_the_known_ones_named() -> None:
    with pytest.raises(OptionError, match="'lenet'") as caught:
        GridEncoder("lenet")
    for name in BACKBONES:
        assert name in str(caught.value)
    with torch.device("meta"), pytest.raises(OptionError, match=r"no node 'layer9'.*layer4") as caught:
        GridEncoder("resnet18", "layer9")
    assert "layer4.1" in str(caught.value)


@pytest.mark.parametrize("node", ["classifier", "classifier.1", "features.2.conv", "features.19", "features.0.0"])
def test_what_is_no_stage_or_block_is_refused(node: str) -> None:
    known = r"features\.0\.1, features\.0\.2, features\.0, features\.1, .*features\.18, features$"
    with pytest.raises(OptionError, match=rf"no node '{node}'; it has {known}"):
        grid_shape("mobilenet_v2", node, 64, 64)


def test_a_convolution_is_a_node_unless_its_normalisation_follows() -> None:
    """Captioning makes the two one, and then there is nothing to read between them."""
    assert grid_shape("vgg16", "features.28", 64, 64) == (4, 4, 512)
    assert grid_shape("convnext_tiny", "features.2", 64, 64) == (8, 8, 192)  # its last module is a convolution
    for name, node in (("resnet18", "conv1"), ("densenet121", "features.conv0"), ("efficientnet_b0", "features.8.0")):
        with pytest.raises(OptionError, match=f"{name} has no node '{node}'"):
            grid_shape(name, node, 64, 64)


@pytest.mark.parametrize(("name", "node"), [("resnet18", "layer3.0"), ("densenet121", "features.transition1.norm")])
def test_a_node_is_what_the_whole_model_computes_there(name: str, node: str) -> None:
    torch.manual_seed(5)
    encoder = GridEncoder(name, node).eval()
    torch.manual_seed(5)
    whole = get_model(name, weights=None).eval()
    seen: list[Tensor] = []
    whole.get_submodule(node).register_forward_hook(lambda module, given, result: seen.append(result.clone()))
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        whole(pixels)
        found = encoder(pixels)
    torch.testing.assert_close(found, seen[0].flatten(2).transpose(1, 2))
    assert set(encoder.backbone.state_dict()) <= set(whole.state_dict())


@pytest.fixture(scope="module")
def whole() -> nn.Module:
    """A complete torchvision model, classifier included, with random weights that do not make its features vanish."""
    torch.manual_seed(5)
    model = get_model(BACKBONE, weights=None).train()
    await_statistics(model)
    with torch.no_grad():
        model(torch.randn(16, 3, 64, 64))
    return model.eval()


@pytest.fixture(scope="module")
def state(whole: nn.Module) -> dict[str, Tensor]:
    return whole.state_dict()


@pytest.fixture
def encoder() -> GridEncoder:
    return GridEncoder(BACKBONE).eval()


def assert_same_grid(encoder: GridEncoder, whole: nn.Module) -> None:
    pixels = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = whole.features(pixels)  # (B, D, rows, columns)
        found = encoder(pixels)
    assert found.shape == (2, 2 * 3, 1280)
    assert expected.std() > 0.1
    # Two rows of three columns: position 4 is row 1, column 1.
    torch.testing.assert_close(found[:, 4], expected[:, :, 1, 1])
    torch.testing.assert_close(found, expected.flatten(2).transpose(1, 2))


def test_a_network_runs_while_others_are_built(encoder: GridEncoder) -> None:
    """A service answers with its first model while it loads the next one."""
    builder = Thread(target=lambda: [GridEncoder(BACKBONE) for _ in range(3)])
    builder.start()
    runs = 0
    with torch.no_grad():
        while builder.is_alive():
            encoder(torch.zeros(1, 3, 32, 32))
            runs += 1
    builder.join()
    assert runs


def test_batch_normalisation_keeps_its_statistics_while_the_rest_trains(encoder: GridEncoder) -> None:
    parent = nn.ModuleDict({"encoder": encoder}).train()
    norms = [module for module in parent.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 52
    assert encoder.training
    assert not any(module.training for module in norms)
    before = [module.running_mean.clone() for module in norms if module.running_mean is not None]
    encoder(torch.randn(2, 3, 32, 32)).sum().backward()
    for module, mean in zip(norms, before, strict=True):
        torch.testing.assert_close(module.running_mean, mean, rtol=0, atol=0)
        assert module.weight.grad is not None
    assert not parent.eval()["encoder"].training


# Weights from files


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("classifier", [True, False], ids=["with classifier", "without"])
def test_weights_come_from_a_file(
    encoder: GridEncoder, whole: nn.Module, state: dict[str, Tensor], tmp_path: Path, suffix: str, classifier: bool
) -> None:
    kept = {name: tensor for name, tensor in state.items() if classifier or not name.startswith("classifier")}
    path = tmp_path / f"weights{suffix}"
    torch.save(kept, path) if suffix == ".pth" else save_file(kept, path)
    encoder.load_weights(path)
    assert_same_grid(encoder, whole)


def test_a_file_of_an_old_torch_needs_no_counters(
    encoder: GridEncoder, whole: nn.Module, state: dict[str, Tensor], tmp_path: Path
) -> None:
    kept = {name: tensor for name, tensor in state.items() if "num_batches_tracked" not in name}
    assert len(kept) < len(state)
    torch.save(kept, tmp_path / "old.pth")
    encoder.load_weights(str(tmp_path / "old.pth"))
    assert_same_grid(encoder, whole)


def test_the_official_densenet_has_names_of_its_first_version(tmp_path: Path) -> None:
    whole = get_model("densenet121", weights=None).eval()
    # How torchvision's own file spells them: a dot before the number, and no counters.
    old = {
        name.replace(".norm1.", ".norm.1.")
        .replace(".norm2.", ".norm.2.")
        .replace(".conv1.", ".conv.1.")
        .replace(".conv2.", ".conv.2."): tensor
        for name, tensor in whole.state_dict().items()
        if "num_batches_tracked" not in name
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "densenet.pth")
    encoder = GridEncoder("densenet121").eval()
    encoder.load_weights(tmp_path / "densenet.pth")
    pixels = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = whole.features(pixels).flatten(2).transpose(1, 2)
        assert expected.std() > 0.1
        torch.testing.assert_close(encoder(pixels), expected)


def test_weights_that_do_not_fit_are_refused_and_change_nothing(
    encoder: GridEncoder, state: dict[str, Tensor], tmp_path: Path
) -> None:
    first = "features.0.0.weight"
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    files = {
        f"lacks '{first}'": {name: tensor for name, tensor in state.items() if name != first},
        f"another shape for '{first}'": state | {first: torch.zeros(1, 3, 3, 3)},
        "lacks 'features": {},
    }
    for number, (complaint, content) in enumerate(files.items()):
        path = tmp_path / f"{number}.pth"
        torch.save(content, path)
        with pytest.raises(WeightsError, match=f"are not those of {BACKBONE}: the file .*{complaint}") as caught:
            encoder.load_weights(path)
        assert str(path) in str(caught.value)
        assert caught.value.code == "weights_unavailable"
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_weights_of_another_backbone_are_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "mobile.safetensors")
    with torch.device("meta"):
        encoder = GridEncoder("resnet18")
    with pytest.raises(WeightsError, match="not those of resnet18"):
        encoder.load_weights(tmp_path / "mobile.safetensors")


@pytest.mark.parametrize("name", ["garbage.pth", "garbage.safetensors", "empty.pth", "list.pth", "nested.pth"])
def test_a_file_that_holds_no_weights_is_refused(encoder: GridEncoder, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"" if name == "empty.pth" else b"no weights at all")
    if name == "list.pth":
        torch.save([torch.zeros(3)], path)
    if name == "nested.pth":
        torch.save({"epoch": 3, "state_dict": {}}, path)
    with pytest.raises(WeightsError, match=name):
        encoder.load_weights(path)


class Dangerous:
    """Its pickle would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_file_that_would_run_code_is_refused(encoder: GridEncoder, tmp_path: Path) -> None:
    torch.save({"features.0.0.weight": Dangerous(tmp_path / "touched")}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match=r"evil\.pth"):
        encoder.load_weights(tmp_path / "evil.pth")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("name", ["missing.pth", "missing.safetensors", "."])
def test_a_missing_file_is_named_and_the_choices_are_told(encoder: GridEncoder, tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError, match=r"\.safetensors or \.pth .* 'imagenet'") as caught:
        encoder.load_weights(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


# The official weights, without a network


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch.hub would keep the official file. Nothing answers at the proxy, so every download fails at once."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    # The opener that urllib makes at first use and keeps for all has the proxies of that moment: these in here alone.
    monkeypatch.setattr(urllib.request, "_opener", None)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder / Path(get_model_weights(BACKBONE).DEFAULT.url).name


def test_without_a_network_the_url_and_the_place_are_told(encoder: GridEncoder, cached: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        encoder.load_weights("imagenet")
    assert get_model_weights(BACKBONE).DEFAULT.url in str(caught.value)
    assert str(cached) in str(caught.value)
    assert not list(cached.parent.iterdir())


def test_the_official_file_that_is_there_needs_no_network(
    encoder: GridEncoder, whole: nn.Module, state: dict[str, Tensor], cached: Path
) -> None:
    torch.save(state, cached)  # torch.hub checks the hash of what it downloads, and trusts what it finds
    encoder.load_weights("imagenet")
    assert_same_grid(encoder, whole)


def test_an_official_file_that_is_broken_or_would_run_code_is_refused(
    encoder: GridEncoder, cached: Path, tmp_path: Path
) -> None:
    cached.write_bytes(b"half a file")
    with pytest.raises(WeightsError) as caught:
        encoder.load_weights("imagenet")
    assert str(cached) in str(caught.value)
    torch.save({"features.0.0.weight": Dangerous(tmp_path / "touched")}, cached)
    with pytest.raises(WeightsError):
        encoder.load_weights("imagenet")
    assert not (tmp_path / "touched").exists()
