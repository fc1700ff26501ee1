"""Less than full precision under OpenVINO: it computes nearly the same, and really in fewer bits."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from captioner import Captioner, load
from captioner.engines import FloatArray
from captioner.engines.openvino_graph import openvino  # here it reports to nobody
from captioner.images import to_array
from captioner.tokens import Vocabulary

BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture(scope="module")
def full(bundled: None) -> Captioner:
    return load("words", engine="openvino", precision="fp32")


def distance(found: FloatArray, expected: FloatArray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize(
    "precision", [pytest.param("bf16", marks=pytest.mark.skipif(not BF16, reason="this CPU has no bf16")), "int8"]
)
def test_a_decoder_in_fewer_bits_predicts_nearly_the_same(
    full: Captioner, picture: Image.Image, precision: str
) -> None:
    rounded = load("words", engine="openvino", precision=precision).engine
    assert precision in rounded.name
    grid = full.engine.encode(to_array(picture, full.info.image)[None])
    state = full.engine.select(full.engine.start(grid), np.array([0, 0]))
    tokens = np.array([Vocabulary.bos, 5])
    expected, next_state, weights = full.engine.step(tokens, state, grid)
    found, next_found, weights_found = rounded.step(tokens, state, grid)
    assert 1e-4 < distance(found, expected) < 0.02
    assert distance(weights_found, weights) < 0.1
    assert all(distance(next_found[part], next_state[part]) < 0.05 for part in next_state)


def test_the_same_picture_is_captioned_in_every_precision(full: Captioner, picture: Image.Image) -> None:
    for precision in ("bf16", "int8"):
        caption = load("words", engine="openvino", precision=precision)(picture)
        assert caption.text
        assert caption.score == pytest.approx(full(picture).score, abs=1)
