"""Parts of a batch that are computed side by side: they come to what they come to together."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from installed import EACH_RUNTIME, needs_both_runtimes, needs_torch

from captioner import Caption, Captioner, ModelError, loading
from captioner.engines import Engine, FloatArray
from captioner.engines.graph_engine import GraphEngine, Parts
from captioner.loading import load


def pictures(count: int, shape: tuple[int, int]) -> list[FloatArray]:
    return list(np.random.default_rng(4).standard_normal((count, 3, *shape), dtype=np.float32))


def texts(captions: Sequence[Sequence[Caption]]) -> list[list[str]]:
    return [[one.text for one in found] for found in captions]


@pytest.mark.parametrize("engine", EACH_RUNTIME)
def test_parts_of_a_batch_say_what_the_whole_says(
    tiny_model_dir: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(tiny_model_dir, engine=engine, threads=3)
    pixels = pictures(7, (model.info.image.height, model.info.image.width))
    # Each picture with options of its own: parts must not exchange them, nor the order.
    options = [model.options(beam_size=3, n_best=1 + number % 3, max_length=4 + number) for number in range(7)]
    asked: list[Engine] = []
    real = Captioner._caption_together

    def noted(self: Captioner, engine: Engine, *arguments: Any) -> list[list[Caption]]:
        asked.append(engine)
        return real(self, engine, *arguments)

    monkeypatch.setattr(Captioner, "_caption_together", noted)
    together = model.caption_pixels(pixels, options)
    assert [len(found) for found in together] == [1, 2, 3, 1, 2, 3, 1]
    assert asked == [model.engine]
    assert len(model.engine.lanes) == 3
    assert model.engine not in model.engine.lanes
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
    assert len(model.engine.lanes) == 2
    for (mine,), (other,) in zip(found, together, strict=True):
        assert mine.score == pytest.approx(other.score, abs=0.05)


@pytest.mark.parametrize("engine", EACH_RUNTIME)
def test_there_are_only_so_many_lanes(tiny_model_dir: Path, engine: str) -> None:
    assert len(load(tiny_model_dir, engine=engine, threads=9).engine.lanes) == loading.MOST_LANES


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
    assert len(model.engine.lanes) == 2


@pytest.mark.parametrize("engine", EACH_RUNTIME)
def test_one_thread_has_one_lane(tiny_model_dir: Path, engine: str) -> None:
    model = load(tiny_model_dir, engine=engine, threads=1)
    assert list(model.engine.lanes) == [model.engine]


@needs_torch
def test_torch_computes_a_batch_as_a_whole(tiny_model_dir: Path) -> None:
    engine = load(tiny_model_dir, engine="torch").engine
    assert list(engine.lanes) == [engine]


@pytest.mark.parametrize("engine", EACH_RUNTIME)
def test_where_lanes_cannot_be_had_the_whole_is_computed(
    tiny_model_dir: Path, engine: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = load(tiny_model_dir, engine=engine, threads=2)

    def fail(*_arguments: object, **_settings: object) -> Engine:
        raise MemoryError("no room")

    monkeypatch.setattr(loading, "_engine_of", fail)
    pixels = pictures(4, (model.info.image.height, model.info.image.width))
    with caplog.at_level(logging.WARNING):
        found = model.caption_pixels(pixels, model.options(), spread=True)
    assert len(found) == 4
    assert list(model.engine.lanes) == [model.engine]
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
