"""Every member of the family of decoders: what holds of them all, and which pairs of their parts there are not."""

from __future__ import annotations

import copy
import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family import CORE, HIDDEN, MEMBERS, REST, possible, products, sized, spell
from torch import Tensor, nn
from untrained import opinionated_model

from captioner.checkpoint import ModelInfo, load_model, save_model
from captioner.config import READERS, ModelConfig
from captioner.decoding import DecodingOptions, decode
from captioner.engines.torch_engine import TorchEngine
from captioner.errors import OptionError
from captioner.model import CaptionModel, expand
from captioner.tokens import Vocabulary


@pytest.fixture(scope="module", params=MEMBERS, ids=spell)
def info(request: pytest.FixtureRequest, tiny_info: ModelInfo) -> ModelInfo:
    return replace(tiny_info, model=tiny_info.model.replace(**sized(request.param)))


@pytest.fixture(scope="module")
def model(info: ModelInfo) -> CaptionModel:
    return opinionated_model(info, seed=5, scale=2, embedding=4)


@pytest.fixture(scope="module")
def directory(model: CaptionModel, info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("member")
    save_model(path, model, info)
    return path


@pytest.fixture
def pixels() -> Tensor:
    return torch.randn(3, 3, 32, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def tokens() -> Tensor:
    """Two sequences for each of three images."""
    return torch.randint(14, (6, 5), generator=torch.Generator().manual_seed(2))


def test_the_members_have_every_pair_of_choices_that_there_is() -> None:
    assert 25 <= len(MEMBERS) <= 40
    there_are = [choices for choices in products(CORE | REST) if possible(choices)]
    for name, values in (CORE | REST).items():
        assert {choices[name] for choices in there_are} == set(values)
    pairs = {pair for choices in there_are for pair in itertools.combinations(choices.items(), 2)}
    assert not pairs - {pair for member in MEMBERS for pair in itertools.combinations(member.items(), 2)}


def test_a_gradient_reaches_every_parameter(model: CaptionModel, pixels: Tensor, tokens: Tensor) -> None:
    """Each row and each column of the decoder's matrices, so that no part of what one reads or writes is idle."""
    model = copy.deepcopy(model).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0  # what is dropped gets none
    logits, _ = model(model.encode(pixels), tokens)
    (logits * torch.randn(logits.shape)).sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    for name, parameter in model.named_parameters():
        if name.startswith("encoder."):
            continue
        size = parameter.grad.abs()
        assert size.max() > 1e-4, name
        if name.startswith(("cells.", "initial.", "seen.", "attention.", "sentinel_gate.", "output")):
            lines = [size] if size.dim() == 1 else [size.amax(dim=0), size.amax(dim=1)]
            assert all((line > 0).all() for line in lines), name


@torch.no_grad()
def test_teacher_forcing_is_the_loop_over_step(model: CaptionModel, pixels: Tensor, tokens: Tensor) -> None:
    grid = model.encode(pixels)
    logits, weights = model(grid, tokens)
    assert logits.shape == (6, 5, 14)
    assert weights.shape == (6, 5, 8)
    state = expand(model.start(grid), 2)
    assert state.hidden.shape == (6, model.config.layers, HIDDEN)
    for position in range(5):
        step_logits, state, step_weights = model.step(tokens[:, position], state, grid)
        torch.testing.assert_close(logits[:, position], step_logits)
        torch.testing.assert_close(weights[:, position], step_weights)
    for row in range(1, 6):
        assert not torch.allclose(logits[row, -1], logits[0, -1], atol=1e-3), "all rows say the same"


@torch.no_grad()
def test_a_batch_says_what_single_images_say(model: CaptionModel, pixels: Tensor, tokens: Tensor) -> None:
    features = model.encoder(pixels)
    together = model(model.read(features), tokens)
    for image in range(3):
        rows = slice(2 * image, 2 * image + 2)
        alone = model(model.read(features[image : image + 1]), tokens[rows])
        for found, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(found[rows], expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_weights_are_shares_of_the_grid(model: CaptionModel, pixels: Tensor, tokens: Tensor) -> None:
    config = model.config
    _, weights = model(model.encode(pixels), tokens)
    total = weights.sum(dim=-1)
    assert (weights > 0).all()
    assert ((total < 1 - 1e-4) if config.sentinel else (total - 1).abs() < 1e-5).all()
    groups = weights.unflatten(-1, (-1, READERS[config.reader]))
    assert torch.equal(groups, groups[..., :1].expand_as(groups))
    assert torch.allclose(weights, weights[..., :1], atol=1e-4) == (config.attention == "none")


@torch.no_grad()
def test_it_comes_back_from_a_directory(
    model: CaptionModel, info: ModelInfo, directory: Path, pixels: Tensor, tokens: Tensor
) -> None:
    back, told = load_model(directory)
    assert told == info
    assert (back.output.weight is back.embedding.weight) == info.model.tied_output
    for found, expected in zip(back(back.encode(pixels), tokens), model(model.encode(pixels), tokens), strict=True):
        assert torch.equal(found, expected)


@torch.no_grad()
def test_a_beams_captions_are_as_likely_as_teacher_forcing_says(directory: Path, pixels: Tensor) -> None:
    engine = TorchEngine(load_model(directory)[0], device="cpu")
    grid = engine.encode(pixels.numpy())
    found = decode(engine, grid, len(pixels), DecodingOptions(beam_size=3, n_best=3, max_length=6))
    assert max(len(one.tokens) for image in found for one in image) > 1
    for image, hypotheses in enumerate(found):
        assert len(hypotheses) == 3
        alone = type(grid)(*(part[image : image + 1] for part in grid))
        for one in hypotheses:
            said = [*one.tokens, Vocabulary.eos] if one.ended else [*one.tokens]
            logits, weights = engine.model(alone, torch.tensor([[Vocabulary.bos, *said[:-1]]]))
            each = logits[0].log_softmax(dim=-1)[range(len(said)), said]
            np.testing.assert_allclose(one.log_probability, each.sum(), atol=1e-4)
            np.testing.assert_allclose(one.token_log_probabilities, each[: len(one.tokens)], atol=1e-4)
            np.testing.assert_allclose(one.weights, weights[0, : len(one.tokens)], atol=1e-5)


def test_no_member_needs_torchs_compiler_to_load_and_caption(tiny_info: ModelInfo, tmp_path: Path) -> None:
    """Its import takes longer than all the rest."""
    members = [sized(member) for member in MEMBERS[::5]]
    for name in ("cell", "attention", "reader", "layers", "image_input"):
        assert {member[name] for member in members} == set((CORE | REST)[name])
    several = {"grid_node": "features.6+features.7", "grid_rows": 4, "grid_columns": 8, "grid_features": 32 + 64}
    for number, member in enumerate([*members, several]):
        info = replace(tiny_info, model=tiny_info.model.replace(**member))
        save_model(tmp_path / str(number), CaptionModel(info.model), info)
    program = """
import sys
from pathlib import Path
import captioner
from PIL import Image
for directory in Path(sys.argv[1]).iterdir():
    caption = captioner.load(directory, device="cpu")(Image.new("RGB", (64, 32)))
    print(caption.attention.shape[1:])
assert not [name for name in sys.modules if name.startswith(("torch._dynamo", "torch._inductor"))]
"""
    command = [sys.executable, "-W", "error", "-c", program, str(tmp_path)]
    shapes = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert sorted(shapes) == ["(2, 4)"] * len(members) + ["(4, 8)"]


# Pairs that there are not

NEEDS_AFTER = r'needs attend = "after"'
NO_MEANING = "has a meaning only with an attention"
REFUSED = [
    ({"attention": "none"}, rf"gated_context {NO_MEANING}: set it to false or choose an attention"),
    ({"attention": "none", "input_feeding": True}, rf"input_feeding {NO_MEANING}: set it to false"),
    ({"attention": "none", "sentinel": True}, rf"sentinel {NO_MEANING}: set it to false"),
    ({"attention": "none", "attend": "after"}, rf'attend {NO_MEANING}: leave it "before" or choose'),
    ({"input_feeding": True}, f"input_feeding {NEEDS_AFTER}"),
    ({"sentinel": True}, f"sentinel {NEEDS_AFTER}"),
    ({"attention": "dot", "value_size": 8}, r"value_size is 8 and hidden_size 512: make them equal or .*\"general\""),
    ({"attend": "after", "sentinel": True, "cell": "gru"}, r'sentinel .* needs cell = "lstm" and value_size equal'),
    ({"attend": "after", "sentinel": True, "cell": "rnn"}, r'sentinel .* needs cell = "lstm"'),
    ({"attend": "after", "sentinel": True, "value_size": 8}, r"sentinel .* value_size equal to hidden_size"),
    ({"reader": "pyramid"}, r"a pyramid makes 4 positions one, and a grid of 7 x 7 .*: choose another grid_node"),
    ({"reader": "pyramid", "grid_rows": 8, "value_size": 9}, r"value_size must be even for a pyramid"),
    ({"reader": "bilstm", "value_size": 9}, r"value_size must be even for a bilstm"),
    ({"output_size": 9}, r"tied output layer .*: set tied_output to false or output_size to 0"),
    ({"cell": "transformer"}, r"cell must be one of lstm, gru, rnn, not 'transformer'"),
    ({"attention": "concat"}, r"attention must be one of additive, dot, general, none, not 'concat'"),
    ({"attend": "during"}, r"attend must be one of before, after"),
    ({"image_input": "end"}, r"image_input must be one of start, steps, both"),
    ({"reader": "projection"}, r"reader must be one of none, bilstm, pyramid"),
    ({"layers": 0}, r"layers must be a positive whole number"),
    ({"sentinel": "yes", "attend": "after"}, r"sentinel must be true or false"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_does_not_go_together_is_refused_and_the_remedy_told(changes: dict[str, Any], message: str) -> None:
    quiet = {"gated_context": False} if len(changes) > 1 and changes.get("attention") == "none" else {}
    with pytest.raises(OptionError, match=message):
        ModelConfig(vocabulary_size=9, **quiet, **changes)
