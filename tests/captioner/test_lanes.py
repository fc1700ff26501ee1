"""Parts of a batch that are computed side by side: they come to what they come to together."""

from __future__ import annotations

import gc
import logging
import shutil
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from installed import EACH_RUNTIME, INSTALLED, needs_both_runtimes, needs_torch
from PIL import Image

from captioner import Caption, Captioner, ModelError, runtimes
from captioner.engines import Engine, FloatArray, graph_engine
from captioner.engines.graph_engine import GraphEngine, Parts
from captioner.loading import load

MANY = 1000


@pytest.fixture(autouse=True)
def _two_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_engine, "IMAGES_A_LANE", 2)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Engine]:
    """The engines that parts of batches were given to, one after the other."""
    engines: list[Engine] = []
    real = Captioner._caption_together

    def noted(self: Captioner, engine: Engine, *arguments: Any) -> list[list[Caption]]:
        engines.append(engine)
        return real(self, engine, *arguments)

    monkeypatch.setattr(Captioner, "_caption_together", noted)
    return engines


def pictures(count: int, shape: tuple[int, int]) -> list[FloatArray]:
    return list(np.random.default_rng(4).standard_normal((count, 3, *shape), dtype=np.float32))


def texts(captions: Sequence[Sequence[Caption]]) -> list[list[str]]:
    return [[one.text for one in found] for found in captions]


@pytest.mark.parametrize("engine", EACH_RUNTIME)
def test_parts_of_a_batch_say_what_the_whole_says(tiny_model_dir: Path, engine: str, asked: list[Engine]) -> None:
    model = load(tiny_model_dir, engine=engine, threads=3)
    pixels = pictures(7, (model.info.image.height, model.info.image.width))
    # Each picture with options of its own: parts must not exchange them, nor the order.
    options = [model.options(beam_size=3, n_best=1 + number % 3, max_length=4 + number) for number in range(7)]
    together = model.caption_pixels(pixels, options)
    assert [len(found) for found in together] == [1, 2, 3, 1, 2, 3, 1]
    assert asked == [model.engine]
    assert len(model.engine.lanes(MANY)) == 3
    assert model.engine not in model.engine.lanes(MANY)
    for count, lanes in ((1, 1), (5, 1), (6, 3), (7, 3)):  # too few for three, as many as they need, more
        asked.clear()
        found = model.caption_pixels(pixels[:count], options[:count], spread=True)
        assert len(asked) == lanes
        assert texts(found) == texts(together[:count])
        for mine, other in zip(found, together, strict=False):
            np.testing.assert_allclose([one.score for one in mine], [one.score for one in other], atol=1e-4)


@needs_both_runtimes
@pytest.mark.parametrize("engine", ["mixed", "openvino", "onnxruntime"])
def test_parts_in_8_bits_say_much_the_same(tiny_model_dir: Path, engine: str) -> None:
    model = load(tiny_model_dir, engine=engine, precision="int8", threads=2)
    pixels = pictures(5, (model.info.image.height, model.info.image.width))
    options = model.options(beam_size=2)
    together, found = (model.caption_pixels(pixels, options, spread=spread) for spread in (False, True))
    assert len(model.engine.lanes(MANY)) == 2
    for (mine,), (other,) in zip(found, together, strict=True):
        assert mine.score == pytest.approx(other.score, abs=0.05)


@pytest.mark.parametrize("engine", EACH_RUNTIME)
def test_there_are_only_so_many_lanes(tiny_model_dir: Path, engine: str) -> None:
    assert len(load(tiny_model_dir, engine=engine, threads=9).engine.lanes(MANY)) == runtimes.MOST_LANES


@pytest.mark.parametrize("engine", EACH_RUNTIME)
def test_a_stream_is_spread_from_the_second_batch_on(
    tiny_model_dir: Path, picture: Image.Image, engine: str, asked: list[Engine]
) -> None:
    model = load(tiny_model_dir, engine=engine, threads=2)
    assert all(result.captions for result in model.batch([picture] * 14, batch_size=6))
    lane = model.engine.lanes(MANY)[0]
    assert asked == [model.engine, lane, lane, model.engine]  # the last batch has two pictures
    asked.clear()
    assert len(list(model.batch([picture] * 4))) == 4
    assert asked == [lane, lane]


@pytest.mark.skipif("onnxruntime" not in INSTALLED, reason="onnxruntime is not installed")
@pytest.mark.parametrize(("threads", "together"), [(2, 1), (3, 1), (6, 3), (16, 13)])
def test_lanes_of_onnxruntime_may_use_all_cores(
    tiny_model_dir: Path, threads: int, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from captioner.engines import onnxruntime_graph

    real, opened = onnxruntime_graph.OnnxRuntimeGraph, []

    def noted(path: Path, *, threads: int, **settings: Any) -> onnxruntime_graph.OnnxRuntimeGraph:
        opened.append(threads)
        return real(path, threads=1, **settings)

    monkeypatch.setattr(onnxruntime_graph, "OnnxRuntimeGraph", noted)
    model = load(tiny_model_dir, engine="onnxruntime", threads=threads)
    assert opened == [threads] * 2
    # A session's pool serves all calls, each of which brings a thread of its own: one less for each but the first.
    model.engine.lanes(MANY)
    assert opened[2:] == [together] * 2


@pytest.mark.parametrize("engine", EACH_RUNTIME)
def test_a_model_that_is_dropped_takes_its_graphs_with_it(tiny_model_dir: Path, engine: str) -> None:
    model = load(tiny_model_dir, engine=engine, threads=2)
    kept = [weakref.ref(each) for each in (model.engine, model.engine.lanes(MANY)[0])]
    gc.disable()  # which knows nothing of what graphs take
    try:
        del model
        assert [each() for each in kept] == [None, None]
    finally:
        gc.enable()


@pytest.mark.parametrize("engine", EACH_RUNTIME)
def test_a_model_that_changes_keeps_the_graphs_it_was_loaded_with(
    tmp_path: Path, tiny_model_dir: Path, engine: str
) -> None:
    own = Path(shutil.copytree(tiny_model_dir, tmp_path / "own"))
    model = load(own, engine=engine, threads=2)
    pixels = pictures(4, (model.info.image.height, model.info.image.width))
    expected = texts(model.caption_pixels(pixels, model.options()))
    shutil.rmtree(own)
    assert texts(model.caption_pixels(pixels, model.options(), spread=True)) == expected
    assert len(model.engine.lanes(MANY)) == 2


@pytest.mark.parametrize("engine", EACH_RUNTIME)
def test_one_thread_has_one_lane(tiny_model_dir: Path, engine: str) -> None:
    model = load(tiny_model_dir, engine=engine, threads=1)
    assert list(model.engine.lanes(MANY)) == [model.engine]


@needs_torch
def test_torch_computes_a_batch_as_a_whole(tiny_model_dir: Path) -> None:
    engine = load(tiny_model_dir, engine="torch").engine
    assert list(engine.lanes(MANY)) == [engine]


@pytest.mark.parametrize("engine", EACH_RUNTIME)
def test_where_lanes_cannot_be_had_the_whole_is_computed(
    tiny_model_dir: Path, engine: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = load(tiny_model_dir, engine=engine, threads=2)

    def fail(*_arguments: object, **_settings: object) -> Engine:
        raise MemoryError("no room")

    monkeypatch.setattr(runtimes, "open_engine", fail)
    pixels = pictures(4, (model.info.image.height, model.info.image.width))
    with caplog.at_level(logging.WARNING):
        found = model.caption_pixels(pixels, model.options(), spread=True)
    assert len(found) == 4
    assert list(model.engine.lanes(MANY)) == [model.engine]
    assert "side by side: no room" in caplog.text


@pytest.mark.parametrize("engine", EACH_RUNTIME)
def test_an_error_in_a_lane_is_the_callers(tiny_model_dir: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(tiny_model_dir, engine=engine, threads=2)
    pixels = pictures(4, (model.info.image.height, model.info.image.width))
    pixels[3][:] = np.nan
    encode = GraphEngine.encode

    def careful(engine: GraphEngine, pixels: FloatArray) -> Parts:
        if np.isnan(pixels).any():
            raise ModelError("these are no numbers")
        return encode(engine, pixels)

    monkeypatch.setattr(GraphEngine, "encode", careful)
    with pytest.raises(ModelError, match="these are no numbers"):
        model.caption_pixels(pixels, model.options(), spread=True)
