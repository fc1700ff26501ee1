"""Studies: what is to be run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toy_study import TOY_STUDY, write_study

from captioner.errors import OptionError
from training.recipe import Recipe
from training.studies.study import Study, load_study


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
