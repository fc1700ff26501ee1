"""A study's runs: each leaves its figures, none is done twice."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from toy_study import NAMES, TOY_STUDY, figures_of, refuse, write_study

import captioner
from captioner.checkpoint import load_model
from training import compare
from training import train as train_module
from training.compare import Workshop, claim, run_all
from training.evaluate import evaluate
from training.studies.measuring import describe_environment, pick_tokenizer, seconds_per_epoch
from training.studies.study import Run, Study, load_study


def test_every_run_leaves_its_figures(whole: Workshop, study: Study) -> None:
    assert sorted(path.stem for path in (whole.output / "results").iterdir()) == sorted(NAMES)
    for run in study.plan():
        figures = figures_of(whole, run.name)
        assert (figures["study"], figures["variant"], figures["seed"]) == ("toys", run.variant.name, run.seed)
        assert (figures["what"], figures["overrides"]) == (run.variant.what, list(run.variant.overrides))
        assert figures["recipe"] == run.told
        assert figures["environment"] == describe_environment()
        timed = figures["milliseconds"]
        assert (timed["pictures"], timed["threads"]) == (12, 1)
        assert 0 < timed["decoding"] < timed["captioning"]
        history = whole.output / run.name / "history.jsonl"
        lines = history.read_text().splitlines() if history.exists() else []
        assert figures["history"] == [json.loads(line) for line in lines]
        assert len(lines) == (0 if run.variant.decode_only else sum(stage.epochs for stage in run.recipe.stages))


@pytest.mark.parametrize(("run", "made_by"), [("gru-2", "gru-2"), ("greedy-1", "base-1")])
def test_figures_are_those_of_the_model(whole: Workshop, toy_data: Path, run: str, made_by: str) -> None:
    figures = figures_of(whole, run)
    model = captioner.load(whole.model(made_by), device="cpu")
    measured = evaluate(model, toy_data, "dev", "simple", beam_size=1 if run == "greedy-1" else 2)
    assert figures["scores"]["CIDEr"] > 0.1, "it says something"
    for name in ("split", "images", "tokenizer", "decoding", "scores", "diction"):
        assert figures[name] == json.loads(json.dumps(measured[name])), name
    network, _ = load_model(whole.model(made_by))
    encoder = sum(parameter.numel() for parameter in network.encoder.parameters())
    total = sum(parameter.numel() for parameter in network.parameters())
    assert figures["parameters"] == {"decoder": total - encoder, "all": total}


def test_figures_tell_no_path_of_this_machine(whole: Workshop, toy_weights: Path, toy_data: Path) -> None:
    for run in NAMES:
        text = whole.results(run).read_text()
        for path in (toy_weights.parent, toy_data, whole.output, Path.home(), whole.cache):
            assert str(path) not in text
        assert json.loads(text)["recipe"]["encoder_weights"] == toy_weights.name


def test_a_pupil_learns_from_the_runs_of_other_seeds(whole: Workshop) -> None:
    assert figures_of(whole, "taught-1")["recipe"]["teachers"] == ["base-2"]
    learnt, _ = (captioner.load(whole.model(name), device="cpu").info for name in ("taught-1", "base-2"))
    assert learnt.provenance["recipe"]["teachers"] == ["base"], "told by its name, not by its path"


def test_what_is_done_is_not_done_again(
    whole: Workshop, study: Study, settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "train", refuse)
    before = {path: path.stat().st_mtime_ns for path in whole.output.rglob("*") if path.suffix != ".lock"}
    assert run_all(whole, study.plan()) == []
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_an_interrupted_run_goes_on_and_ends_the_same(
    whole: Workshop, shop: Workshop, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(9))
    real = train_module.predict

    def interrupted(*arguments: Any, **named: Any) -> Any:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "predict", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_all(shop, study.plan(["base"], [1]))
    assert not shop.results("base-1").exists()
    assert len((shop.output / "base-1" / "history.jsonl").read_text().splitlines()) == 1
    assert run_all(shop, study.plan(["base"], [1])) == []
    ours, theirs = (figures_of(place, "base-1") for place in (shop, whole))
    assert ours["scores"] == theirs["scores"]
    assert [epoch["loss"] for epoch in ours["history"]] == [epoch["loss"] for epoch in theirs["history"]]

    shop.results("base-1").unlink()  # measured anew, but trained no further
    weights = (shop.output / "base-1" / "last.pt").read_bytes()
    assert run_all(shop, study.plan(["base"], [1])) == []
    assert figures_of(shop, "base-1")["history"] == ours["history"]
    assert (shop.output / "base-1" / "last.pt").read_bytes() == weights


def test_figures_of_another_recipe_are_not_taken_for_these(
    whole: Workshop, tmp_path: Path, settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    changed = load_study(write_study(tmp_path), [*settings, "dropout=0.2"])
    (complaint,) = run_all(whole, changed.plan(["gru"], [1]))
    assert re.match(r"gru-1: .*gru-1\.json was made with another recipe \(dropout\): remove it", complaint)
    other = load_study(write_study(tmp_path), [*settings, "encoder_weights="])
    (complaint,) = run_all(whole, other.plan(["gru"], [1]))
    assert "another recipe (encoder_weights)" in complaint
    assert complaint in capsys.readouterr().err


def test_a_run_that_fails_keeps_no_other_from_being_done(
    shop: Workshop, settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exploding = [*settings, "stages.0.epochs=1", "stages.0.warmup=0.0", "stages.0.images_per_batch=2"]
    text = TOY_STUDY.replace('"cell=gru"', '"cell=gru", "stages.0.decoder_rate=1e-2"')
    text = text.replace("decoder_rate = 3e-2", "decoder_rate = 1e30")
    complaints = run_all(shop, load_study(write_study(tmp_path, text), exploding).plan(["greedy", "gru"], [1]))
    assert [complaint.split(":")[0] for complaint in complaints] == ["base-1", "greedy-1"]
    assert "lower the recipe's learning rates" in complaints[0]
    assert complaints[1] == "greedy-1: it needs base-1"
    assert shop.results("gru-1").is_file()
    assert all(complaint in capsys.readouterr().err for complaint in complaints[:1])


def test_runs_that_another_command_is_at_are_left_to_it(
    shop: Workshop, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    second = threading.Event()

    def pretend(shop: Workshop, run: Run) -> None:
        done.append(run.name)
        shop.results(run.name).touch()
        if run.name == "gru-1":
            second.set()

    monkeypatch.setattr(compare, "PAUSE", 0.01)
    monkeypatch.setattr(compare, "complete", pretend)
    shop.output.mkdir()
    working = threading.Thread(target=run_all, args=(shop, study.plan(seeds=[1])))
    with claim(shop.output / "base-1.lock") as free:
        assert free
        with claim(shop.output / "base-1.lock") as again:
            assert not again
        working.start()
        assert second.wait(60)
        assert set(done) <= {"gru-1", "base-2", "taught-1"}, "and what needs them waits"
    working.join(60)
    assert sorted(done) == sorted(["base-1", "gru-1", "greedy-1", "base-2", "taught-1"])


def test_an_epochs_parts_are_added_up_before_the_median() -> None:
    history = [{"stage": 0, "epoch": 0, "part": part, "seconds": 5.0} for part in (0, 1)]
    history += [{"stage": 0, "epoch": 1, "seconds": 30.0}, {"stage": 1, "epoch": 0, "seconds": 20.0}]
    assert seconds_per_epoch(history) == 20


def test_the_standard_tokenizer_is_taken_where_there_is_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert pick_tokenizer() == "simple"
    (tmp_path / "java").touch(mode=0o755)
    assert pick_tokenizer() == "ptb"
