"""Studies on toys: what is run, what is written, what the table makes of it; and that the shipped ones can be run."""

from __future__ import annotations

import copy
import json
import re
import threading
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import captioner
from captioner.checkpoint import load_model
from captioner.encoder import GridEncoder
from captioner.errors import DataError, OptionError
from captioner.model import skeleton
from captioner.tokens import Vocabulary
from training import compare, start
from training import train as train_module
from training.compare import Workshop, claim, main, run_all
from training.evaluate import evaluate
from training.recipe import Recipe
from training.start import describe
from training.studies.measuring import describe_environment, pick_tokenizer, seconds_per_epoch
from training.studies.study import RESULTS, STUDIES, Run, Study, load_study
from training.studies.table import make_table, read_results, spread

README = Path(compare.__file__).parent / "README.md"
SHIPPED = sorted(path.stem for path in STUDIES.glob("*.toml"))

# As small as the recipe of the toys.
TOY_SETTINGS = [
    *("image.height=32", "image.width=32", "value_size=24", "attention_size=8", "embedding_size=16"),
    *("hidden_size=24", "min_count=1", "decoding.max_length=8", "decoding.beam_size=2"),
]
TOY_STUDY = """
title = "Toys"
seeds = [1, 2]
columns = ["CIDEr", "difference", "METEOR", "dangling", "length", "parameters", "seconds", "decoding"]

[base]
name = "toys"
grid_node = "features.4"
dropout = 0.1
average_decay = 0.8
patience = 30

[[base.stages]]
epochs = 5
images_per_batch = 4
decoder_rate = 3e-2

[[variants]]
name = "base"
what = "as it is"

[[variants]]
name = "gru"
what = "another cell"
overrides = ["cell=gru"]

[[variants]]
name = "greedy"
what = "beam 1"
overrides = ["decoding.beam_size=1"]
decode_only = true

[[variants]]
name = "taught"
what = "two stages, taught by others"
stages = [{ epochs = 1 }, { epochs = 1, decoder_rate = 5e-3, distillation = 0.5 }]
teachers = "base"
against = "gru"
seeds = [1]
"""
NAMES = ["base-1", "gru-1", "greedy-1", "base-2", "taught-1", "gru-2", "greedy-2"]


def write_study(folder: Path, text: str = TOY_STUDY) -> str:
    path = folder / "toys.toml"
    path.write_text(text)
    return str(path)


@pytest.fixture(scope="module")
def settings(toy_weights: Path) -> list[str]:
    return [*TOY_SETTINGS, f"encoder_weights={toy_weights}"]


@pytest.fixture
def study(tmp_path: Path, settings: list[str]) -> Study:
    return load_study(write_study(tmp_path), settings)


@pytest.fixture(scope="module")
def whole(toy_data: Path, toy_cache: Path, settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A shop in which the study of the toys is done. Read it only."""
    folder = tmp_path_factory.mktemp("study")
    shop = Workshop("toys", toy_data, folder, toy_cache, "simple")
    assert run_all(shop, load_study(write_study(folder), settings).plan()) == []
    return shop


@pytest.fixture
def shop(toy_data: Path, toy_cache: Path, tmp_path: Path) -> Workshop:
    """An empty one."""
    return Workshop("toys", toy_data, tmp_path / "runs", toy_cache, "simple")


def figures_of(shop: Workshop, run: str) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads(shop.results(run).read_text())
    return figures


def refuse(*_: object, **__: object) -> None:
    pytest.fail("trained again")


# What is to be run


def test_runs_are_planned_seed_by_seed_each_behind_those_that_it_needs(study: Study) -> None:
    assert [run.name for run in study.plan()] == [
        "base-1",
        "gru-1",
        "greedy-1",
        "base-2",
        "taught-1",
        "gru-2",
        "greedy-2",
    ]
    assert [run.name for run in study.plan(["taught"])] == ["base-2", "taught-1"]
    assert [run.name for run in study.plan(["greedy"], [7])] == ["base-7", "greedy-7"]
    assert [run.name for run in study.plan(["taught"], [3])] == ["base-1", "base-2", "taught-3"]


def test_a_variant_is_the_base_with_its_changes(study: Study, toy_weights: Path) -> None:
    base, gru, taught = (study.run(study.variant(name), 2).recipe for name in ("base", "gru", "taught"))
    assert (base.value_size, base.image.width, base.decoding.beam_size) == (24, 32, 2), "the settings are the base's"
    assert base.encoder_weights == str(toy_weights)
    assert gru == base.replace(name="gru", cell="gru")
    assert [(stage.epochs, stage.images_per_batch, stage.decoder_rate) for stage in taught.stages] == [
        (1, 4, 3e-2),
        (1, 4, 5e-3),
    ]
    assert taught.teachers == ("base-1",)


def test_the_base_may_be_a_recipe_of_its_own_file(toy_recipe: Recipe, toy_weights: Path, tmp_path: Path) -> None:
    text = f'base = "{toy_weights.parent / "toy.toml"}"\ntitle = "x"\ncolumns = ["CIDEr"]\n'
    text += '[[variants]]\nname = "a"\nwhat = "x"\noverrides = ["stages.1.epochs=7"]\n'
    recipe = load_study(write_study(tmp_path, text), [f"encoder_weights={toy_weights}"]).plan()[0].recipe
    stages = (toy_recipe.stages[0], toy_recipe.stages[1].replace(epochs=7))
    assert recipe == toy_recipe.replace(name="a", seed=1, stages=stages)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "Toys"', "", "a study needs title"),
        ('title = "Toys"', 'title = "Toys"\nsubtitle = "x"', "a study has no field subtitle"),
        ("seeds = [1, 2]", "seeds = [1, 1]", r"seeds must be different whole numbers, not \[1, 1\]"),
        ("seeds = [1, 2]", "seeds = [1.5]", r"seeds must be different whole numbers, not \[1.5\]"),
        ("seeds = [1]\n", "seeds = 1\n", "seeds must be different whole numbers, not 1"),
        ("dropout = 0.1", "drop_out = 0.1", "Recipe has no field 'drop_out'"),
        ("cell=gru", "cel=gru", "variant gru: Recipe has no field 'cel'"),
        ("cell=gru", "cell", "variant gru: an override reads field=value, not 'cell'"),
        ('["cell=gru"]', "[1]", "overrides are texts that read field=value, not 1"),
        ('overrides = ["cell=gru"]', "stages = [1]", "stages must be tables"),
        ('name = "gru"', 'name = "base"', "two variants have one name"),
        ('name = "gru"', 'name = "g/ru"', "'g/ru' is no name for files"),
        ('what = "another cell"', "", "Variant is incomplete.*what"),
        ('what = "another cell"', 'what = "another cell"\nwhy = ""', "Variant has no field 'why'"),
        ('against = "gru"', 'against = "lstm"', "no variant 'lstm'; it has base, gru, greedy, taught"),
        ('teachers = "base"', 'teachers = "lstm"', "no variant 'lstm'"),
        ('teachers = "base"', 'teachers = "greedy"', "variant taught: greedy cannot be its teacher"),
        ('teachers = "base"', "", "variant taught: a stage with distillation needs teachers"),
        ("decoding.beam_size=1", "dropout=0", "variant greedy: decode_only changes nothing but the decoding"),
        (
            'what = "as it is"',
            'what = "as it is"\ndecode_only = true',
            "base, the first variant, cannot be decode_only",
        ),
    ],
)
def test_impossible_studies_are_refused_with_the_files_name(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert TOY_STUDY.count(old) == 1 or old.startswith(("seeds", "name"))
    with pytest.raises(OptionError, match=rf"study \S*toys\.toml: .*{message}"):
        load_study(write_study(tmp_path, TOY_STUDY.replace(old, new, 1)))


@pytest.mark.parametrize("values", [{"base": 3}, {"variants": []}, {"variants": [3]}, {"variants": {}}], ids=str)
def test_malformed_studies_are_refused(values: dict[str, Any]) -> None:
    good = {"title": "x", "columns": ["CIDEr"], "base": "phones", "variants": [{"name": "a", "what": "x"}]}
    assert len(Study("good", good).plan()) == 1
    with pytest.raises(OptionError, match=f"{next(iter(values))} must|at least one"):
        Study("bad", good | values)


def test_runs_that_teach_each_other_are_refused(tmp_path: Path) -> None:
    taught = '[[variants]]\nname = "{0}"\nwhat = "x"\nteachers = "{1}"\noverrides = ["stages.0.distillation=0.5"]\n'
    text = TOY_STUDY + taught.format("egg", "hen") + taught.format("hen", "egg")
    with pytest.raises(OptionError, match="need each other"):
        load_study(write_study(tmp_path, text)).plan()


# Running


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


# The table


@pytest.fixture
def found(whole: Workshop) -> Callable[..., dict[str, dict[int, dict[str, Any]]]]:
    """Real figures with a CIDEr that is easy to reckon with."""

    def with_cider(**cider: Sequence[float]) -> dict[str, dict[int, dict[str, Any]]]:
        made: dict[str, dict[int, dict[str, Any]]] = {}
        for name, values in cider.items():
            for seed, value in enumerate(values, start=1):
                figures = copy.deepcopy(figures_of(whole, f"{name}-{seed}"))
                figures["scores"]["CIDEr"] = value
                made.setdefault(name, {})[seed] = figures
        return made

    return with_cider


def rows(table: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    assert len({len(row) for row in cells}) == 1
    return {row[0]: row for row in cells}


def test_the_table_has_means_spreads_and_differences_of_the_same_seeds(study: Study, found: Any) -> None:
    results = found(base=[0.5, 0.6], gru=[0.52, 0.66], greedy=[0.4, 0.5], taught=[0.5])
    table = rows(make_table(study, results, "there"))
    assert list(table) == ["run", "---", "`base`", "`gru`", "`greedy`", "`taught`"]
    assert table["run"][2:5] == ["CIDEr", "CIDEr difference", "METEOR"]
    assert table["`base`"][1:5] == ["as it is", "0.550 ± 0.050", "–", "–"], "without Java there is no METEOR"
    assert table["`gru`"][2:4] == ["0.590 ± 0.070", "+0.040 ± 0.020"]
    assert table["`greedy`"][2:4] == ["0.450 ± 0.050", "-0.100"], "always the same"
    assert table["`taught`"][2:4] == ["0.500", "-0.020 to `gru`"], "that of the one seed that both have"
    assert table["`greedy`"][8] == "–", "what is only decoded has no epochs"
    assert table["`gru`"][-1] == "[1](there/gru-1.json) [2](there/gru-2.json)"
    sizes = {row: table[row][7] for row in ("`base`", "`gru`")}
    assert sizes == {f"`{name}`": f"{results[name][1]['parameters']['decoder'] / 1e6:.2f}" for name in ("base", "gru")}


def test_rows_without_figures_are_left_out_and_differences_to_them(study: Study, found: Any) -> None:
    table = rows(make_table(study, found(taught=[0.5], greedy=[0.5]), "there"))
    assert list(table)[2:] == ["`greedy`", "`taught`"]
    assert [table[row][3] for row in ("`greedy`", "`taught`")] == ["–", "–"]


def test_the_table_says_what_it_rests_on(study: Study, found: Any, toy_weights: Path) -> None:
    results = found(base=[0.5, 0.6])
    notes = make_table(study, results, "there").splitlines()[-1]
    assert f"12 pictures of the dev split, encoder weights {toy_weights.name}." in notes
    assert "simple tokeniser: not comparable" in notes
    assert "medians over 12 pictures, one at a time, threads: 1." in notes
    environment = results["base"][1]["environment"]
    assert f"torch {environment['torch']} on cpu ({environment['processor']})" in notes
    for figures in results["base"].values():
        figures["tokenizer"] = "ptb"
    results["base"][2]["environment"]["processor"] = "Abacus"
    notes = make_table(study, results, "there").splitlines()[-1]
    assert "simple" not in notes
    assert "(Abacus)" in notes
    assert f"({environment['processor']})" in notes


@pytest.mark.parametrize(
    ("values", "decimals", "signed", "cell"),
    [
        ([0.1234], 3, False, "0.123"),
        ([1, 2, 6], 0, False, "3 ± 2"),
        ([0.2, 0.2], 1, True, "+0.2"),
        ([-0.1, 0.3], 2, True, "+0.10 ± 0.20"),
        ([None, 0.3], 2, False, "–"),
    ],
)
def test_cells(values: list[float | None], decimals: int, signed: bool, cell: str) -> None:
    assert spread(values, decimals, signed=signed) == cell


def copy_results(whole: Workshop, folder: Path, **changes: Any) -> Path:
    """The figures of the toys, with fields of ``gru-1`` changed."""
    folder.mkdir()
    for run in NAMES:
        (folder / f"{run}.json").write_text(json.dumps(figures_of(whole, run) | (changes if run == "gru-1" else {})))
    return folder


def test_results_are_read_back(whole: Workshop, study: Study, settings: list[str], tmp_path: Path) -> None:
    found = read_results(study, copy_results(whole, tmp_path / "results"))
    assert {name: sorted(runs) for name, runs in found.items()} == {
        "base": [1, 2], "gru": [1, 2], "greedy": [1, 2], "taught": [1],
    }  # fmt: skip
    elsewhere = load_study(write_study(tmp_path), settings[:-1])
    assert read_results(elsewhere, tmp_path / "results") == found, "which weights a table has, its notes tell"


def test_figures_of_an_older_version_are_read(whole: Workshop, study: Study, tmp_path: Path) -> None:
    recipe = figures_of(whole, "gru-1")["recipe"]
    del recipe["start"], recipe["decoding"]["n_best"]
    assert "gru" in read_results(study, copy_results(whole, tmp_path / "results", recipe=recipe))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variant": "lstm"}, r"gru-1\.json is of no variant of the study toys: remove it"),
        ({"seed": 2}, r"gru-1\.json was made with another recipe \(seed\)"),
        ({"variant": "base"}, r"gru-1\.json was made with another recipe \(name, cell\)"),
        ({"tokenizer": "ptb"}, r"gru-1\.json does not compare with the rest: its tokenizer is ptb, not simple"),
        ({"images": 11}, "its images is 11, not 12"),
    ],
)
def test_results_that_do_not_belong_together_are_refused(
    whole: Workshop, study: Study, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_results(study, copy_results(whole, tmp_path / "results", **changes))


def test_unknown_columns_and_empty_tables_are_refused(study: Study, found: Any) -> None:
    with pytest.raises(DataError, match="no figures of the study toys yet"):
        make_table(study, {}, "there")
    study.columns = ("CIDEr", "SPICE")
    with pytest.raises(DataError, match=r"no column SPICE; there are difference, CIDEr, .*captioning"):
        make_table(study, found(base=[0.5]), "there")


# The command


def command(study: str, settings: Sequence[str], *arguments: str) -> list[str]:
    return ["--study", study, *(part for setting in settings for part in ("--set", setting)), *arguments]


def test_command_runs_and_prints_the_table(
    whole: Workshop,
    settings: list[str],
    toy_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # there is no Java there, and METEOR takes seconds to start
    path, output = write_study(tmp_path), tmp_path / "out"
    places = ["--data", str(toy_data), "--output", str(output), "--cache", str(whole.cache)]
    assert main(command(path, settings, *places, "--only", "greedy", "--seeds", "1")) == 0
    shown = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith(("Toys", "base", "greedy", "the"))
    ]
    assert shown[:-1] == ["Toys: 2 runs", "base-1: as it is", "greedy-1: beam 1"]
    assert shown[-1] == f"the figures are in {output / 'results'}"
    assert sorted(path.name for path in (output / "results").iterdir()) == ["base-1.json", "greedy-1.json"]
    figures, theirs = (
        json.loads((place / "results" / "greedy-1.json").read_text()) for place in (output, whole.output)
    )
    assert figures["scores"] == theirs["scores"]

    assert main(command(path, settings, "--output", str(output), "--table")) == 0
    study = load_study(path, settings)
    assert capsys.readouterr().out == make_table(study, read_results(study, output / "results"), "results")


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"--study": "levrs"}, 2, "no study 'levrs': give a TOML file or one of family, levers"),
        ({"--only": "lstm"}, 2, "has no variant 'lstm'"),
        ({"--seeds": "-1"}, 2, "seeds must be different whole numbers"),
        ({"--set": "sede=1"}, 2, "Recipe has no field 'sede'"),
        ({"--data": "nowhere"}, 1, "base-1: nowhere does not exist"),
    ],
)
def test_command_fails_with_a_sentence(
    toy_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    code: int,
    message: str,
) -> None:
    options = {"--study": write_study(tmp_path), "--data": str(toy_data), "--output": str(tmp_path / "out")}
    options |= {"--only": "base", "--seeds": "1"} | changes
    assert main([f"{name}={value}" for name, value in options.items()]) == code
    error = capsys.readouterr().err
    assert error.startswith("comparison: ")
    assert message in error


def test_command_refuses_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--study", "levers"], ["--study", "levers", "--data", str(tmp_path)]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        assert "usage: python -m training.compare" in capsys.readouterr().err


# The shipped studies


@pytest.mark.parametrize("name", SHIPPED)
def test_every_variant_of_a_shipped_study_is_a_model(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "grid_shape", cache(start.grid_shape))  # most variants have the same grid
    study = load_study(name)
    vocabulary = Vocabulary.build([["dog"]])
    encoders: dict[str, GridEncoder] = {}
    for run in study.plan(seeds=[1]):
        info = describe(run.recipe, vocabulary, {})
        encoder = encoders.setdefault(info.model.grid_node, skeleton(info.model).encoder)
        for stage in run.recipe.stages:
            if stage.frozen:
                assert list(encoder.modules_through(stage.frozen))
    assert len({variant.what for variant in study.variants}) == len(study.variants)
    assert len({json.dumps(run.told | {"name": ""}) for run in study.plan(seeds=[1])}) == len(study.plan(seeds=[1]))


def test_the_shipped_studies_are_large_enough_and_share_their_base() -> None:
    levers, family = load_study("levers"), load_study("family")
    assert len(levers.variants) >= 9
    assert len(family.variants) >= 12
    base, other = (study.run(study.first, 1).recipe for study in (levers, family))
    assert base == other.replace(name=base.name, description=base.description)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_variant_of_a_shipped_study_trains(
    name: str, shop: Workshop, settings: list[str], tmp_path: Path
) -> None:
    """On toys: narrow, and with the grid read where a small picture still has one."""
    early = {"10": "2", "13": "3", "16": "3", "18": "4"}
    text = re.sub(r"features\.(\d+)", lambda node: f"features.{early[node[1]]}", (STUDIES / f"{name}.toml").read_text())
    study = load_study(write_study(tmp_path, text), [*settings, "grid_node=features.4"])
    plan = study.plan(seeds=[1])
    assert run_all(shop, plan) == []
    for run in plan:
        figures = figures_of(shop, run.name)
        assert figures["images"] == 12
        assert bool(figures["history"]) != run.variant.decode_only
    table = rows(make_table(study, read_results(study, shop.output / "results"), "results"))
    assert len(table) == 2 + len(study.variants)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_readmes_table_is_that_of_the_committed_figures(name: str) -> None:
    shown = re.findall(rf"<!-- study: {name} -->\n(.*?)<!-- end -->", README.read_text(encoding="utf-8"), re.DOTALL)
    study = load_study(name)
    found = read_results(study, RESULTS / name)
    if not found:
        assert shown == [], "a table needs the figures that it shows"
        return
    assert [table.strip() for table in shown] == [make_table(study, found, f"studies/results/{name}").strip()]
    for path in (RESULTS / name).iterdir():
        assert path.suffix == ".json"
        assert not re.search(r'"/|"[A-Z]:', path.read_text(encoding="utf-8")), f"{path} tells a path"
