"""The speed benchmark: what it counts, and how it tells what it measured."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import find_pictures, make_picture, write_pictures
from speed_parts import floor, ours, processes, tables, timing
from torch.utils.flop_counter import FlopCounterMode

import captioner
from captioner.captioner import Captioner
from captioner.checkpoint import ModelInfo, read_info
from captioner.config import ModelConfig
from captioner.images import open_image
from captioner.model import expand, skeleton

IMAGES, BEAM = 2, 3
SIZES = {"value_size": 12, "attention_size": 6, "embedding_size": 8, "hidden_size": 12, "vocabulary_size": 20}
LUONG: dict[str, Any] = {"attend": "after", "gated_context": False}
FAMILY: dict[str, dict[str, Any]] = {
    "show, attend and tell": {},
    "show and tell": {"attention": "none", "gated_context": False, "image_input": "both"},
    "the image at each step": {"image_input": "steps"},
    "two layers of GRU": {"cell": "gru", "layers": 2},
    "elman": {"cell": "rnn", "hidden_size": 10},
    "luong, general": {**LUONG, "attention": "general", "hidden_size": 10},
    "luong, dot, input feeding": {**LUONG, "attention": "dot", "input_feeding": True},
    "an output of its own": {"output_size": 14, "tied_output": False},
    "a sentinel, additive": {**LUONG, "sentinel": True, "layers": 2},
    "a sentinel, general": {**LUONG, "sentinel": True, "attention": "general"},
    "a sentinel, dot": {**LUONG, "sentinel": True, "attention": "dot", "gated_context": True},
    "a pyramid": {"reader": "pyramid"},
}


@pytest.mark.parametrize("change", FAMILY.values(), ids=FAMILY)
def test_the_formula_of_a_step_is_what_torch_counts(tiny_info: ModelInfo, change: dict[str, Any]) -> None:
    config = tiny_info.model.replace(**{**SIZES, **change})
    counted = count(config)
    assert floor.start_flops(config) * IMAGES == counted["start"]
    assert floor.step_flops(config, BEAM) * IMAGES == counted["step"]


def count(config: ModelConfig) -> dict[str, int]:
    """What torch counts in the start and one step of a network, which is not computed."""
    model = skeleton(config).eval()
    features = torch.empty(IMAGES, config.grid_rows * config.grid_columns, config.grid_features, device="meta")
    with torch.inference_mode():
        grid = model.read(features)
        with FlopCounterMode(display=False) as start:
            state = model.start(grid)
        with FlopCounterMode(display=False) as step:
            model.step(torch.zeros(IMAGES * BEAM, dtype=torch.long, device="meta"), expand(state, BEAM), grid)
    return {"start": start.get_total_flops(), "step": step.get_total_flops()}


def test_an_encoder_costs_what_its_paper_says() -> None:
    info = read_info("words")
    config = info.model
    # Sandler et al. (2018), table 4: MobileNetV2 takes 300 million multiplications, its classifier's 1.28 among them.
    behind = 49 * config.value_size * (config.grid_features + config.attention_size)  # reader and keys
    assert floor.encoder_flops(info) / 2 - behind == pytest.approx(300e6 - 1.28e6, rel=0.02)


def test_a_caption_costs_its_grid_its_start_and_its_steps(tiny_info: ModelInfo) -> None:
    config = tiny_info.model
    once = floor.encoder_flops(tiny_info) + floor.start_flops(config)
    assert floor.caption_flops(tiny_info, 1, 0) == once
    assert floor.caption_flops(tiny_info, 10, 7.5) == once + 7.5 * floor.step_flops(config, 10)
    assert floor.step_flops(config, 10) == 10 * floor.step_flops(config, 1)


def test_matrices_are_multiplied_at_some_rate() -> None:
    rates = floor.matrix_rates(64, repeats=2)
    assert {"fp32", "bf16"} <= set(rates) <= {"fp32", "bf16", "int8"}
    assert all(math.isfinite(rate) and rate > 0 for rate in rates.values())


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [timing.percentile(values, percent) for percent in (0, 50, 95, 100)] == [1, 50, 95, 100]
    assert timing.percentile([2.0, 1.0], 50) == 1
    assert math.isnan(timing.percentile([], 50))


def test_contenders_take_turns_and_what_warms_up_does_not_count() -> None:
    called: list[tuple[str, bytes]] = []
    actions = {name: lambda picture, name=name: called.append((name, picture)) for name in ("A", "B")}
    taken = timing.in_turns(actions, [b"0", b"1", b"2"], rounds=2, seconds=0.0)
    # Two calls a turn, the first of which does not count, and nothing of the first round.
    assert [name for name, _ in called] == [name for _ in range(3) for name in "AABB"]
    assert {name: len(seconds) for name, seconds in taken.items()} == {"A": 2, "B": 2}
    pictures = [[picture for name, picture in called if name == own] for own in "AB"]
    assert pictures[0] == pictures[1]
    assert set(pictures[0]) == {b"0", b"1", b"2"}


def test_a_process_is_weighed_without_the_one_that_starts_it() -> None:
    weight = np.ones(40_000_000)  # 305 MiB here, which the kernel would count as the child's
    run = processes.run_process([sys.executable, "-I", "-S", "-c", "print(len(bytearray(50 << 20)))"])
    assert weight.all()
    assert 50 < run.mebibytes < 150
    assert 0 < run.seconds < 60


def test_a_process_that_fails_ends_the_run(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="failed"):
        processes.run_process([sys.executable, "-I", "-S", "-c", "raise SystemExit('no such thing')"])
    assert "no such thing" in capfd.readouterr().err


def test_made_up_pictures_are_jpegs_that_differ(tmp_path: Path) -> None:
    paths = write_pictures(tmp_path, 3)
    assert [open_image(path).size for path in paths] == [(224, 224)] * 3
    assert len({path.read_bytes() for path in paths}) == 3
    assert paths[1].read_bytes() != make_picture(1)
    (tmp_path / "notes.txt").touch()
    assert find_pictures(tmp_path) == paths
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="no JPEG"):
        find_pictures(tmp_path / "empty")


def test_shares_cover_all_the_time_and_count_steps(tiny_captioner: Captioner, tmp_path: Path) -> None:
    paths = write_pictures(tmp_path, 4)
    found = ours.shares(tiny_captioner, paths, 2, beam_size=1, rank="score")
    lengths = [len(tiny_captioner(path, beam_size=1, rank="score").tokens) for path in paths]
    most = tiny_captioner.info.decoding.max_length
    # A greedy caption takes a step a token, and one more that ends it.
    assert found.steps_taken == np.mean([min(length + 1, most) for length in lengths])
    assert min(found.read, found.grid, found.steps, found.search) > 0
    assert tiny_captioner(paths[0]).text == tiny_captioner(paths[0]).text  # it still has its own engine
    assert not isinstance(tiny_captioner.engine, ours.Stopwatch)


def test_a_picture_that_cannot_be_read_ends_the_run(tiny_captioner: Captioner, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(captioner.errors.ImageError):
        ours.caption_files(tiny_captioner, [tmp_path / "broken.jpg"], batch=1, beam=1)


def test_rounds_get_whole_batches(tiny_captioner: Captioner, tmp_path: Path) -> None:
    paths = write_pictures(tmp_path, 3)
    rates = ours.batch_rates({"tiny": tiny_captioner}, paths, batch=2, beam=1, rounds=2)
    assert len(rates["tiny"]) == 2
    assert ours.take(paths, 2, 3) == [paths[2], paths[0], paths[1]]


@pytest.fixture
def figures() -> dict[str, Any]:
    """Of a run of two engines and one other, all figures easy to reckon with."""
    taken = {"torch fp32": [0.04, 0.02, 0.02], "openvino fp32": [0.01] * 3, "torch bf16": [0.005] * 3}
    run = {"seconds": 2.0, "mebibytes": 100.0}
    return {
        "facts": {"machine": "a machine"},
        "missing": {"openvino bf16": "it is not installed"},
        "others": ["BLIP-base fp32"],
        "one photo": {"beam 3": taken},
        "contenders": taken | {"BLIP-base fp32": [0.9, 1.0, 1.1]},
        "parameters": dict.fromkeys(taken, 9_400_000) | {"BLIP-base fp32": 224_000_000},
        "processes": {name: [run, {"seconds": 1.0, "mebibytes": 200.0}, run] for name in taken}
        | {"BLIP-base fp32": [{"seconds": 9.0, "mebibytes": 1500.0}]},
        "batches": [
            {"name": "torch fp32", "beam": beam, "batch": batch, "rates": [1.0, rate, 999.0]}
            for beam, rates in ((1, (20.0, 80.0)), (3, (10.0, 40.0)))
            for batch, rate in zip((1, 8), rates, strict=True)
        ]
        + [{"name": "openvino fp32", "beam": 3, "batch": batch, "rates": [100.0]} for batch in (1, 8)],
        "shares": [
            {
                **{"name": "torch fp32", "setting": "beam 3, batch 8", "pictures": 4, "steps_taken": 11.25},
                **{"read": 0.1, "grid": 0.2, "steps": 0.6, "search": 0.1},
            }
        ],
        "matrix rates": {"fp32": 200e9, "bf16": 500e9},
        "flops": [{"name": "torch fp32", "beam": 3, "flops": 2e9}],
    }


def rows(text: str) -> dict[str, list[str]]:
    """The rows of a table, by their first cell."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1
    return {name: cells for name, *cells in lines}


def test_others_are_compared_with_our_fastest_of_each_precision(figures: dict[str, Any]) -> None:
    assert tables.references(figures) == ["openvino fp32", "torch bf16"]
    found = rows(tables.beside(figures))
    assert found["one photo, beam 3, ms"] == ["million parameters", "p50", "p95", "× openvino fp32", "× torch bf16"]
    assert found["torch fp32"] == ["9", "20.0", "40.0", "2.00", "4.00"]
    assert found["BLIP-base fp32"] == ["224", "1000.0", "1100.0", "100", "200"]


def test_without_others_their_table_is_left_out(figures: dict[str, Any]) -> None:
    alone = figures | {"contenders": {}, "others": []}
    assert tables.beside(alone) == ""
    assert tables.references(alone) == ["openvino fp32", "torch bf16"]
    assert "BLIP" not in tables.report(alone | {"processes": {}})


def test_a_process_is_told_by_its_median_and_its_peak(figures: dict[str, Any]) -> None:
    found = rows(tables.processes(figures))
    assert found["torch fp32"] == ["2.00", "200", "1.00", "1.00"]
    assert found["BLIP-base fp32"] == ["–", "1500", "7.50", "7.50"]


def test_batches_tell_what_size_gains_and_beams_cost(figures: dict[str, Any]) -> None:
    head, _, *lines = tables.batches(figures).splitlines()
    assert head.endswith("| best × batch 1 | best × beam 1 | best × torch fp32's |")
    assert lines == [
        "| torch fp32 | 1 | 20.0 | 80.0 | 4.00 | 1.00 | 1.00 |",
        "| torch fp32 | 3 | 10.0 | 40.0 | 4.00 | 0.50 | 1.00 |",
        "| openvino fp32 | 3 | 100.0 | 100.0 | 1.00 | – | 2.50 |",
    ]
    del figures["batches"][:4]
    assert tables.batches(figures).endswith("| 1.00 | – | – |")


def test_shares_are_of_one_picture(figures: dict[str, Any]) -> None:
    expected = ["beam 3, batch 8", "250.0", "10 %", "20 %", "60 %", "10 %", "11.2"]
    assert rows(tables.shares(figures))["torch fp32"] == expected


def test_the_floor_is_the_rate_over_the_operations(figures: dict[str, Any]) -> None:
    text = tables.floor(figures)
    assert rows(text)["torch fp32"] == ["3", "2.00", "100", "40.0", "40.0 %"]
    assert "fp32 200, bf16 500" in text
    assert "int8 is left out" in text
    figures["matrix rates"] = {"fp32": 1e9, "int8": 2e9}
    assert "int8 is left out" not in tables.floor(figures)
    figures["matrix rates"] = {}
    assert rows(tables.floor(figures))["torch fp32"][-1] == "–"


def test_a_report_says_what_is_not_here(figures: dict[str, Any]) -> None:
    text = tables.report(figures)
    assert "- machine: a machine\n- openvino bf16: not here: it is not installed\n" in text
    assert text.count("\n| --- |") == 6


def test_ratios_have_two_digits_at_least() -> None:
    assert tables.ratios(10, [20, 3, 1, 0]) == ["0.50", "3.33", "10", "–"]
    assert tables.table(["a|b"], [["c"]]) == "| a&#124;b |\n| --- |\n| c |"


@pytest.mark.parametrize("name", ["BLIP-base", "ViT-GPT2", "GIT-base"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_others_say_twelve_tokens(name: str, precision: str) -> None:
    pytest.importorskip("transformers", reason="requirements-bench.txt brings it")
    from speed_parts.others import NEW_TOKENS, Other

    other = Other(name, precision, layers=1)
    steps: list[int] = []
    # Whatever speaks last has an output for each token.
    speaker = getattr(other.network, "text_decoder", getattr(other.network, "decoder", other.network))
    speaker.register_forward_hook(lambda *_: steps.append(1))
    assert len(other(make_picture(0))) == len(steps) == NEW_TOKENS
    assert {parameter.dtype for parameter in other.network.parameters()} == {other.dtype}
    assert torch.get_default_dtype() == torch.float32
