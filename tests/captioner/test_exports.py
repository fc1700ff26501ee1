"""Exported networks under each runtime: every member of the family computes what it does under torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from family import MEMBERS, sized, spell
from installed import EACH_RUNTIME, MISSING
from untrained import opinionated_model

from captioner.checkpoint import ModelInfo
from captioner.decoding import DecodingOptions, Hypothesis, decode
from captioner.engines import Engine, FloatArray
from captioner.engines.graph_engine import DECODER, ENCODER, GRID, Graph, GraphEngine
from captioner.engines.torch_engine import TorchEngine
from captioner.export import export
from captioner.graphs import check, graph_name
from captioner.rewriting import quantisation
from captioner.tokens import Vocabulary


def open_onnxruntime(path: Path) -> Graph:
    from captioner.engines.onnxruntime_graph import OnnxRuntimeGraph

    return OnnxRuntimeGraph(path, threads=1)


def open_openvino(path: Path, precision: str = "fp32") -> Graph:
    from captioner.engines.openvino_graph import ARITHMETIC, OpenVinoGraph

    ports = frozenset(GRID) if precision == "bf16" else frozenset[str]()
    return OpenVinoGraph(path, arithmetic=ARITHMETIC[precision], threads=1, bf16_ports=ports)


def has_bf16() -> bool:
    from captioner.engines.openvino_graph import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


OPEN = {"onnxruntime": open_onnxruntime, "openvino": open_openvino}


@pytest.fixture(scope="module", params=MEMBERS, ids=spell)
def exported(
    request: pytest.FixtureRequest, tiny_info: ModelInfo, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Engine, ModelInfo, Path]:
    """A member under torch, and the directory of its graphs."""
    info = replace(tiny_info, model=tiny_info.model.replace(**sized(request.param)))
    model = opinionated_model(info, seed=5, scale=2, embedding=4)
    directory = tmp_path_factory.mktemp("graphs")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(quantisation, "LEAST", 1)  # these matrices are small
        export(model, info.image, directory)
    assert not model.training
    return TorchEngine(model, device="cpu"), info, directory


# Also with a number of candidates that differs from step to step, and with all of them.
OPTIONS = (
    DecodingOptions(beam_size=4, n_best=2, max_length=6),
    DecodingOptions(beam_size=3, max_length=8, no_repeat_ngram=1),
    DecodingOptions(method="sample", n_best=3, max_length=6, seed=1),
)


def decoded(engine: Engine, pixels: FloatArray) -> list[list[Hypothesis]]:
    grid = engine.encode(pixels)
    return [found for options in OPTIONS for found in decode(engine, grid, len(pixels), options)]


def opened(runtime: str, directory: Path, **settings: Any) -> GraphEngine:
    graphs = [OPEN[runtime](directory / graph_name(part), **settings) for part in (ENCODER, DECODER)]
    return GraphEngine(*graphs, name="graphs", at_once=2)


@pytest.mark.parametrize("runtime", EACH_RUNTIME)
def test_each_member_says_what_it_says_under_torch(exported: tuple[Engine, ModelInfo, Path], runtime: str) -> None:
    reference, info, directory = exported
    engine = opened(runtime, directory)
    check(engine, info.image, directory, tolerance=1e-4)
    pixels = np.random.default_rng(3).standard_normal((5, 3, 32, 64), dtype=np.float32)
    for images in (1, 5):  # five are encoded in three parts, and some leave the batch before others
        summary = engine.summary(engine.encode(pixels[:images]))
        np.testing.assert_allclose(summary, reference.summary(reference.encode(pixels[:images])), atol=1e-4)
        for found, expected in zip(decoded(engine, pixels[:images]), decoded(reference, pixels[:images]), strict=True):
            assert [one.tokens for one in found] == [one.tokens for one in expected]
            for mine, theirs in zip(found, expected, strict=True):
                np.testing.assert_allclose(mine.log_probability, theirs.log_probability, atol=1e-3)
                np.testing.assert_allclose(mine.weights, theirs.weights, atol=1e-3)


def second_step(engine: Engine, pixels: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Log-probabilities and weights of two rows an image, after two steps; the likeliest must be those of all."""
    grid = engine.encode(pixels)
    state = engine.select(engine.start(grid), np.arange(len(pixels)).repeat(2))
    _, state, _ = engine.step(np.full(2 * len(pixels), Vocabulary.bos), state, grid)
    tokens = np.arange(2 * len(pixels)) % 3 + Vocabulary.unk
    (log_probs, _), _, weights = engine.step(tokens, state, grid)
    (told, best), _, _ = engine.step(tokens, state, grid, 3)
    assert best is not None
    np.testing.assert_allclose(told, np.take_along_axis(log_probs, best, axis=1), atol=1e-4)
    np.testing.assert_allclose(told, -np.sort(-log_probs, axis=1)[:, :3], atol=1e-4)
    return log_probs, weights


@pytest.mark.skipif("onnxruntime" in MISSING, reason="onnxruntime is not installed")
def test_each_member_says_much_the_same_in_8_bits(exported: tuple[Engine, ModelInfo, Path]) -> None:
    reference, _, directory = exported
    encoder, decoder = graph_name(ENCODER), graph_name(DECODER, quantised=True)
    graphs = [open_onnxruntime(directory / name) for name in (encoder, decoder)]
    pixels = np.random.default_rng(3).standard_normal((3, 3, 32, 64), dtype=np.float32)
    found = second_step(GraphEngine(*graphs, name="quantised", at_once=2), pixels)
    for mine, theirs in zip(found, second_step(reference, pixels), strict=True):
        assert np.linalg.norm(mine - theirs) < 0.1 * np.linalg.norm(theirs)
    assert not np.array_equal(found[0], second_step(reference, pixels)[0])


@pytest.mark.skipif("openvino" in MISSING, reason="openvino is not installed")
def test_each_member_says_much_the_same_in_bf16(exported: tuple[Engine, ModelInfo, Path]) -> None:
    if not has_bf16():
        pytest.skip("this CPU has no bf16")
    reference, _, directory = exported
    engine = opened("openvino", directory, precision="bf16")
    pixels = np.random.default_rng(3).standard_normal((3, 3, 32, 64), dtype=np.float32)
    assert {array.dtype for part, array in engine.encode(pixels).items() if part in GRID} == {np.dtype(np.float16)}
    for mine, theirs in zip(second_step(engine, pixels), second_step(reference, pixels), strict=True):
        assert np.linalg.norm(mine - theirs) < 0.3 * np.linalg.norm(theirs)
