"""The table of a study."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from toy_study import copy_results, figures_of, rows, write_study

from captioner.errors import DataError
from training.compare import Workshop
from training.studies.study import Study, load_study
from training.studies.table import make_table, read_results, spread


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
