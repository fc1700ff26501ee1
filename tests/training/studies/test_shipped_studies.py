"""The studies that are shipped can be run, and their tables are those of the committed figures."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import pytest
from toy_study import figures_of, rows, write_study

from captioner.encoder import GridEncoder
from captioner.model import skeleton
from captioner.tokens import Vocabulary
from training import compare, start
from training.compare import Workshop, run_all
from training.start import describe
from training.studies.study import RESULTS, STUDIES, load_study
from training.studies.table import make_table, read_results

README = Path(compare.__file__).parent / "README.md"
SHIPPED = sorted(path.stem for path in STUDIES.glob("*.toml"))


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


@pytest.mark.slow
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
