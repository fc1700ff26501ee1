"""Less than full precision: each engine computes nearly the same, and really in fewer bits."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from captioner import Captioner, load
from captioner.engines import FloatArray
from captioner.engines.graph_engine import GRID
from captioner.engines.onnxruntime_graph import onnxruntime  # noqa: F401  both are needed here
from captioner.engines.openvino_graph import openvino  # here it reports to nobody
from captioner.images import to_array
from captioner.tokens import Vocabulary

BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture(scope="module")
def full(bundled: None) -> Captioner:
    return load("words", engine="openvino", precision="fp32")


def distance(found: FloatArray, expected: FloatArray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("engine", ["mixed", "onnxruntime", "openvino"])
def test_a_decoder_in_8_bits_predicts_nearly_the_same(full: Captioner, picture: Image.Image, engine: str) -> None:
    quantised = load("words", engine=engine, precision="int8").engine
    assert quantised.name.startswith(f"{engine} int8")
    grid = full.engine.encode(to_array(picture, full.info.image)[None])
    state = full.engine.select(full.engine.start(grid), np.array([0, 0]))
    tokens = np.array([Vocabulary.bos, 5])
    expected, next_state, weights = full.engine.step(tokens, state, grid)
    found, next_found, weights_found = quantised.step(tokens, state, grid)
    assert 1e-4 < distance(found.log_probs, expected.log_probs) < 0.02
    assert distance(weights_found, weights) < 0.1
    assert all(distance(next_found[part], next_state[part]) < 0.05 for part in next_state)


@pytest.mark.skipif(not BF16, reason="this CPU has no bf16")
def test_a_network_in_bf16_predicts_nearly_the_same(full: Captioner, picture: Image.Image) -> None:
    quantised = load("words", engine="openvino", precision="bf16").engine
    pixels, tokens = to_array(picture, full.info.image)[None], np.array([Vocabulary.bos, 5])
    steps = []
    for engine in (full.engine, quantised):
        grid = engine.encode(pixels)
        steps.append(engine.step(tokens, engine.select(engine.start(grid), np.array([0, 0])), grid))
    assert {part: array.dtype for part, array in grid.items() if part in GRID} == dict.fromkeys(GRID, np.float16)
    (expected, _, weights), (found, _, weights_found) = steps
    assert 1e-3 < distance(found.log_probs, expected.log_probs) < 0.05
    assert distance(weights_found, weights) < 0.4


@pytest.mark.parametrize(
    ("engine", "precision"), [("openvino", "bf16"), ("openvino", "int8"), ("onnxruntime", "int8"), ("mixed", "int8")]
)
def test_the_same_picture_is_captioned_in_every_precision(
    full: Captioner, picture: Image.Image, engine: str, precision: str
) -> None:
    caption = load("words", engine=engine, precision=precision)(picture)
    assert caption.text
    assert caption.score == pytest.approx(full(picture).score, abs=1)
