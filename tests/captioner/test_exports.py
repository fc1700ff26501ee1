"""Exported networks under each runtime: every member of the family computes what it does under torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from family import MEMBERS, sized, spell
from installed import EACH_RUNTIME
from untrained import opinionated_model

from captioner.checkpoint import ModelInfo
from captioner.decoding import DecodingOptions, Hypothesis, decode
from captioner.engines import Engine, FloatArray
from captioner.engines.graph_engine import DECODER, ENCODER, Graph, GraphEngine
from captioner.engines.torch_engine import TorchEngine
from captioner.export import export
from captioner.graphs import check, graph_name


def open_onnxruntime(path: Path) -> Graph:
    from captioner.engines.onnxruntime_graph import OnnxRuntimeGraph

    return OnnxRuntimeGraph(path, threads=1)


def open_openvino(path: Path) -> Graph:
    from captioner.engines.openvino_graph import Arithmetic, OpenVinoGraph

    return OpenVinoGraph(path, arithmetic=Arithmetic("f32"), threads=1, cache=None)


OPEN = {"onnxruntime": open_onnxruntime, "openvino": open_openvino}


@pytest.fixture(scope="module", params=MEMBERS, ids=spell)
def exported(
    request: pytest.FixtureRequest, tiny_info: ModelInfo, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Engine, ModelInfo, Path]:
    """A member under torch, and the directory of its graphs."""
    info = replace(tiny_info, model=tiny_info.model.replace(**sized(request.param)))
    model = opinionated_model(info, seed=5, scale=2, embedding=4)
    directory = tmp_path_factory.mktemp("graphs")
    export(model, info.image, directory)
    assert not model.training
    return TorchEngine(model, device="cpu"), info, directory


def decoded(engine: Engine, pixels: FloatArray) -> list[list[Hypothesis]]:
    options = DecodingOptions(beam_size=4, n_best=2, max_length=6)
    return decode(engine, engine.encode(pixels), len(pixels), options)


@pytest.mark.parametrize("runtime", EACH_RUNTIME)
def test_each_member_says_what_it_says_under_torch(exported: tuple[Engine, ModelInfo, Path], runtime: str) -> None:
    reference, info, directory = exported
    graphs = [OPEN[runtime](directory / graph_name(part)) for part in (ENCODER, DECODER)]
    engine = GraphEngine(*graphs, name="graphs", at_once=2)
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
