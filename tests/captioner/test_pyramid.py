"""The recurrent readers and input feeding, against plain loops over their equations and through every room."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from equations import Weights, lstm_cell, softmax
from PIL import Image
from safetensors.torch import load_file
from untrained import opinionated_model

import captioner
from captioner import Captioner
from captioner.checkpoint import ModelInfo, load_model, read_info, save_model
from captioner.engines.torch_engine import TorchEngine
from captioner.images import load_pixels
from captioner.model import CaptionModel, RecurrentReader
from captioner.tokens import Vocabulary


@pytest.fixture(scope="module")
def info(tiny_info: ModelInfo) -> ModelInfo:
    """The tiny model with a pyramid over its 2 x 4 positions and input feeding."""
    architecture = tiny_info.model.replace(
        reader="pyramid",
        attend="after",
        input_feeding=True,
        output_size=9,
        tied_output=False,
        gated_context=False,
    )
    return replace(tiny_info, model=architecture)


@pytest.fixture(scope="module")
def model(info: ModelInfo) -> CaptionModel:
    return opinionated_model(info, seed=1, scale=3, embedding=3)


@pytest.fixture(scope="module")
def directory(model: CaptionModel, info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pyramid")
    save_model(path, model, info)
    return path


@pytest.fixture(scope="module")
def loaded(directory: Path) -> Captioner:
    return captioner.load(directory, engine="torch")


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    noise = np.random.default_rng(2).integers(0, 256, (4, 32, 64, 3), dtype=np.uint8)
    return [Image.fromarray(picture) for picture in noise]


@pytest.mark.parametrize("layers", [1, 3], ids=["bilstm", "pyramid"])
def test_a_reader_is_a_plain_loop_over_positions_and_then_pairs(layers: int) -> None:
    torch.manual_seed(0)
    reader = RecurrentReader(features=3, values=4, dropout=0.5, layers=layers).eval()
    reader.norm.running_mean.normal_()
    reader.norm.running_var.uniform_(0.5, 2)
    features = torch.randn(2, 12, 3)
    found = reader(features)
    assert found.shape == (2, 12 // 2 ** (layers - 1), 4)

    weight = Weights(reader)
    scale = weight["norm.weight"] / np.sqrt(weight["norm.running_var"] + reader.norm.eps)
    for image in range(2):
        below = list((features[image].numpy() - weight["norm.running_mean"]) * scale + weight["norm.bias"])
        for layer in range(layers):
            if layer > 0:
                below = [np.concatenate(below[at : at + 2]) for at in range(0, len(below), 2)]
            directions = []
            for suffix, order in (("_l0", 1), ("_l0_reverse", -1)):
                hidden, memory, states = np.zeros(2), np.zeros(2), []
                for read in below[::order]:
                    hidden, memory = lstm_cell(weight, f"layers.{layer}", read, hidden, memory, suffix)
                    states.append(hidden)
                directions.append(states[::order])
            below = [np.concatenate(both) for both in zip(*directions, strict=True)]
        np.testing.assert_allclose(found[image].detach(), below, rtol=1e-4, atol=1e-6)


def test_two_steps_of_input_feeding_by_their_equations(model: CaptionModel) -> None:
    grid = model.encode(torch.randn(1, 3, 32, 64))
    state = model.start(grid)
    assert state.said.tolist() == [[0.0] * 9]
    weight = Weights(model)
    linear = weight.linear
    f = grid.values[0].detach().numpy().astype(np.float64)  # (Q, F)
    hidden, cell = np.split(np.tanh(linear("initial", f.mean(axis=0))), 2)
    said = np.zeros(9)
    for token in (4, 7):
        logits, state, weights = model.step(torch.tensor([token]), state, grid)
        read = np.concatenate((weight["embedding.weight"][token], said))
        hidden, cell = lstm_cell(weight, "cells.0", read, hidden, cell)
        scores = linear("attention.score", np.tanh(linear("attention.key", f) + linear("attention.query", hidden)))
        alpha = softmax(scores[:, 0])
        said = np.tanh(linear("output_hidden", hidden) + linear("output_context", alpha @ f))
        np.testing.assert_allclose(weights[0].detach(), np.repeat(alpha / 4, 4), rtol=1e-3, atol=1e-5)
        for found, expected in zip(state, (hidden, cell, said), strict=True):
            np.testing.assert_allclose(found[0].detach().reshape(-1), expected, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(logits[0].detach(), linear("output", said), rtol=1e-3, atol=1e-4)


def test_the_weights_are_those_of_the_grid(model: CaptionModel) -> None:
    grid = model.encode(torch.randn(2, 3, 32, 64))
    assert grid.values.shape == (2, 2, 10)
    _, weights = model(grid, torch.randint(len(model.embedding.weight), (6, 5)))
    assert weights.shape == (6, 5, 8)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(6, 5))
    groups = weights.unflatten(-1, (2, 4))
    assert torch.equal(groups, groups[..., :1].expand_as(groups))
    assert not torch.allclose(groups[..., 0, 0], groups[..., 1, 0])


@pytest.mark.parametrize("layers", [1, 3], ids=["bilstm", "pyramid"])
def test_dropout_and_the_batchs_statistics_act_in_training_alone(layers: int) -> None:
    reader, features = RecurrentReader(3, 4, dropout=0.5, layers=layers), torch.randn(3, 8, 3)
    reader.train()
    reader(features)
    assert not torch.equal(reader(features), reader(features))
    assert (reader(features) == 0).any(), "the last layer drops nothing"
    reader.eval()
    together = reader(features)
    assert torch.equal(together, reader(features))
    for image in range(3):
        torch.testing.assert_close(reader(features[image : image + 1])[0], together[image])


def test_it_comes_back_from_a_directory(model: CaptionModel, info: ModelInfo, directory: Path, tmp_path: Path) -> None:
    back, told = load_model(directory)
    assert told == info
    pixels, tokens = torch.randn(2, 3, 32, 64), torch.tensor([[1, 5, 6], [1, 7, 4]])
    for found, expected in zip(back(back.encode(pixels), tokens), model(model.encode(pixels), tokens), strict=True):
        assert torch.equal(found, expected)
    save_model(tmp_path, back, told, dtype=torch.float16)
    stored = load_file(tmp_path / "model.safetensors")
    assert stored["reader.layers.2.weight_hh_l0_reverse"].dtype == torch.float16
    assert {name for name in stored if not name.startswith("encoder.")} >= {"output.weight", "cells.0.weight_ih"}


def test_a_model_older_than_these_fields_has_their_defaults(tiny_model_dir: Path, tmp_path: Path) -> None:
    values = json.loads((tiny_model_dir / "config.json").read_text())
    oldest = {"vocabulary_size", "encoder", "gated_context", "tied_output", "dropout"}
    values["model"] = {
        name: value
        for name, value in values["model"].items()
        if name in oldest or name.startswith("grid_") or (name.endswith("_size") and name != "output_size")
    }
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert read_info(tmp_path) == read_info(tiny_model_dir)
    model = read_info(tmp_path).model
    assert (model.reader, model.input_feeding, model.output_size) == ("none", False, 0)
    assert (model.cell, model.layers, model.attention, model.attend) == ("lstm", 1, "additive", "before")
    assert (model.sentinel, model.image_input) == (False, "start")


def test_a_selected_image_goes_on_as_if_it_were_alone(model: CaptionModel, pictures: list[Image.Image]) -> None:
    engine = TorchEngine(model, device="cpu")
    pixels = torch.randn(2, 3, 32, 64).numpy()
    first = np.array([1, 1, 5, 5])  # two rows an image
    both = engine.encode(pixels)
    _, state, _ = engine.step(first, engine.select(engine.start(both), np.array([0, 0, 1, 1])), both)
    alone = engine.encode(pixels[1:])
    _, expected, _ = engine.step(first[2:], engine.select(engine.start(alone), np.array([0, 0])), alone)
    second = engine.select(state, np.array([3, 2]))
    for found, part in zip(second, expected, strict=True):
        np.testing.assert_allclose(found, part, atol=1e-5)
    assert second.said.shape == (2, 9)


def test_a_beams_caption_is_as_likely_as_teacher_forcing_says(loaded: Captioner, pictures: list[Image.Image]) -> None:
    network, vocabulary = loaded.engine.model, loaded.info.vocabulary
    results = [result.captions[0] for result in loaded.batch(pictures, beam_size=4)]
    assert len({caption.text for caption in results if len(caption.tokens) > 1}) > 1
    for picture, caption in zip(pictures, results, strict=True):
        assert caption.attention.shape == (len(caption.tokens), 2, 4)
        np.testing.assert_allclose(caption.attention.sum(axis=(1, 2)), 1, atol=1e-5)
        tokens = vocabulary.encode(caption.tokens)
        with torch.no_grad():
            pixels = torch.from_numpy(load_pixels(picture, loaded.info.image))[None]
            logits, weights = network(network.encode(pixels), torch.tensor([[Vocabulary.bos, *tokens[:-1]]]))
        expected = logits.log_softmax(dim=-1)[0, range(len(tokens)), tokens]
        np.testing.assert_allclose(caption.token_scores, expected, atol=1e-4)
        np.testing.assert_allclose(caption.attention.reshape(-1, 8), weights[0], atol=1e-5)
