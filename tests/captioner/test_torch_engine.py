"""The torch engine: the model's own numbers, as arrays, in either precision."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from captioner.engines import FloatArray
from captioner.engines.torch_engine import TorchEngine, fold_normalisation, pick_device
from captioner.errors import OptionError
from captioner.model import CaptionModel

IMAGES = 2
TOKENS = np.array([1, 5, 7, 4])  # two rows an image
ROWS = np.array([0, 0, 1, 1])


def engine_of(model: CaptionModel, precision: str) -> TorchEngine:
    return TorchEngine(copy.deepcopy(model), device="cpu", precision=precision)


@pytest.fixture(scope="module")
def pixels() -> FloatArray:
    return np.random.default_rng(0).standard_normal((IMAGES, 3, 32, 64), dtype=np.float32)


@pytest.fixture(scope="module")
def steps(tiny_model: CaptionModel, pixels: FloatArray) -> list[tuple[FloatArray, FloatArray]]:
    """The model's own log-probabilities and weights, two steps of them, with torch alone."""
    taken = []
    with torch.no_grad():
        grid = tiny_model.encode(torch.from_numpy(pixels))
        state = tiny_model.start(grid)
        state = type(state)(*(part[ROWS] for part in state))
        for tokens in (TOKENS, TOKENS[::-1].copy()):
            logits, state, weights = tiny_model.step(torch.from_numpy(tokens), state, grid)
            taken.append((torch.log_softmax(logits, dim=-1).numpy(), weights.numpy()))
    return taken


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 0.3)])
def test_steps_are_the_models(
    tiny_model: CaptionModel,
    pixels: FloatArray,
    steps: list[tuple[FloatArray, FloatArray]],
    precision: str,
    tolerance: float,
) -> None:
    engine = engine_of(tiny_model, precision)
    grid = engine.encode(pixels)
    state = engine.select(engine.start(grid), ROWS)
    for tokens, (log_probs, weights) in zip((TOKENS, TOKENS[::-1].copy()), steps, strict=True):
        some, _, _ = engine.step(tokens, state, grid, 3)
        candidates, state, found_weights = engine.step(tokens, state, grid)
        found_log_probs = candidates.log_probs
        assert candidates.tokens is None
        assert some.tokens is not None
        np.testing.assert_array_equal(some.tokens, (-found_log_probs).argsort(axis=1)[:, :3])
        np.testing.assert_array_equal(some.log_probs, np.take_along_axis(found_log_probs, some.tokens, axis=1))
        for found, expected in ((found_log_probs, log_probs), (found_weights, weights)):
            assert found.dtype == np.float32
            assert found.shape == expected.shape
        np.testing.assert_allclose(found_log_probs, log_probs, atol=tolerance)
        np.testing.assert_allclose(found_weights, weights, atol=tolerance / 4)
        # In full precision whatever the network's: beams add up many of these.
        np.testing.assert_allclose(np.exp(found_log_probs).sum(axis=1), 1, atol=1e-5)


def test_half_precision_is_for_the_encoder_alone(tiny_model: CaptionModel, pixels: FloatArray) -> None:
    engine = engine_of(tiny_model, "bf16")
    kinds = {name.startswith("encoder."): set() for name, _ in engine.model.named_parameters()}
    for name, parameter in engine.model.named_parameters():
        kinds[name.startswith("encoder.")].add(parameter.dtype)
    assert kinds == {True: {torch.bfloat16}, False: {torch.float32}}
    grid = engine.encode(pixels)
    assert {part.dtype for part in (*grid, *engine.start(grid))} == {torch.float32}


def test_select_takes_rows_of_grids_and_states(tiny_model: CaptionModel, pixels: FloatArray) -> None:
    engine = engine_of(tiny_model, "fp32")
    grid = engine.encode(pixels)
    for value in (grid, engine.start(grid)):
        rows = np.array([1, 0, 1])
        chosen = engine.select(value, rows)
        assert type(chosen) is type(value)
        for part, whole in zip(chosen, value, strict=True):
            assert torch.equal(part, whole[[1, 0, 1]])
            assert whole[0].numel() == 0 or not torch.equal(whole[0], whole[1])  # this model feeds nothing back
        assert all(part.shape[0] == 0 for part in engine.select(value, rows[:0]))


def test_a_selected_image_goes_on_as_if_it_were_alone(tiny_model: CaptionModel, pixels: FloatArray) -> None:
    engine = engine_of(tiny_model, "fp32")
    both, alone = engine.encode(pixels), engine.encode(pixels[1:])
    second = engine.select(both, np.array([1]))
    tokens = np.array([1, 6])
    found, expected = (
        engine.step(tokens, engine.select(engine.start(grid), np.array([0, 0])), grid)[0].log_probs
        for grid in (second, alone)
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_normalisation_is_folded_into_the_convolutions(tiny_model: CaptionModel, pixels: FloatArray) -> None:
    def count(model: CaptionModel) -> int:
        return sum(isinstance(module, nn.BatchNorm2d) for module in model.encoder.modules())

    assert count(tiny_model) > 10
    engine = engine_of(tiny_model, "fp32")
    assert count(engine.model) == 0
    features = engine.model.encoder(torch.from_numpy(pixels))
    np.testing.assert_allclose(features.numpy(), tiny_model.encoder(torch.from_numpy(pixels)).detach(), atol=1e-4)


def test_what_does_not_stand_side_by_side_is_left_alone() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
    ).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = network(images)
        fold_normalisation(network)
        torch.testing.assert_close(network(images), expected)
    assert isinstance(network[2], nn.BatchNorm2d)
    assert isinstance(network[4], nn.Identity)


def test_many_images_are_encoded_as_each_alone(tiny_model: CaptionModel) -> None:
    engine = engine_of(tiny_model, "fp32")
    images = np.random.default_rng(1).standard_normal((11, 3, 32, 64), dtype=np.float32)
    together = engine.encode(images)
    for number in range(11):
        alone = engine.encode(images[number : number + 1])
        for found, expected in zip(engine.select(together, np.array([number])), alone, strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_model_is_for_captioning_only(tiny_model: CaptionModel, pixels: FloatArray) -> None:
    model = copy.deepcopy(tiny_model).train()
    engine = TorchEngine(model, device="cpu", precision="fp32")
    assert not any(module.training for module in engine.model.modules())
    assert not any(parameter.requires_grad for parameter in engine.model.parameters())
    assert not any(part.requires_grad for part in engine.encode(pixels))


def test_unknown_precisions_are_refused_and_the_known_ones_named(tiny_model: CaptionModel) -> None:
    with pytest.raises(OptionError, match="'int3'; choose one of fp32, bf16"):
        engine_of(tiny_model, "int3")


@pytest.mark.parametrize("name", ["tpu", "meta", "cpu:x", "", "hip", "a device"])
def test_unknown_devices_are_refused_and_those_here_named(tiny_model: CaptionModel, name: str) -> None:
    with pytest.raises(OptionError, match=r"no device .* here; choose one of .*cpu"):
        TorchEngine(tiny_model, device=name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="it is here")
def test_a_device_that_is_not_here_is_refused(tiny_model: CaptionModel) -> None:
    for name in ("cuda", "cuda:1"):
        with pytest.raises(OptionError, match=f"no device '{name}' here"):
            TorchEngine(tiny_model, device=name)


def test_the_defaults_suit_the_machine(tiny_model: CaptionModel) -> None:
    device = pick_device()
    assert device.type == ("cuda" if torch.cuda.is_available() else "mps" if torch.mps.is_available() else "cpu")
    assert pick_device("cpu") == torch.device("cpu")
    engine = TorchEngine(copy.deepcopy(tiny_model))
    assert engine.name == f"torch {device.type} fp32"
