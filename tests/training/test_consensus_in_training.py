"""Consensus where figures and recipes are made: its similarity is the metric's, and its option comes through."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import captioner
from captioner.decoding.consensus import similarities
from training.cider import CiderScorer
from training.evaluate import main
from training.recipe import Recipe

SEQUENCES = st.lists(st.integers(4, 9), min_size=1, max_size=9)


@given(one=SEQUENCES, other=SEQUENCES)
def test_its_similarity_is_cider_where_every_ngram_is_in_one_image_alone(one: list[int], other: list[int]) -> None:
    scorer = CiderScorer([[list(map(str, other))], [["elsewhere"]]])  # document frequencies of 1, so one weight for all
    expected = scorer.score_image(0, list(map(str, one))) / 10
    assert similarities([one, other])[0, 1] == pytest.approx(expected, abs=1e-12)


def test_figures_tell_that_captions_were_ranked_by_it(
    learnt_run: Path, learnt_captioner: captioner.Captioner, toy_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "figures.json"
    command = ["--model", str(learnt_run / "model"), "--data", str(toy_data), "--tokenizer", "simple"]
    assert main([*command, "--beam-size", "8", "--rank", "consensus", "--json", str(out)]) == 0
    figures = json.loads(out.read_text())
    assert figures["decoding"]["rank"] == "consensus"
    said = [row["captions"][0] for row in figures["predictions"]]
    pictures = [toy_data / "dev" / row["image"] for row in figures["predictions"]]
    assert said == [learnt_captioner(path, beam_size=8, rank="consensus").to_row() for path in pictures]
    assert said != [learnt_captioner(path, beam_size=8).to_row() for path in pictures]


def test_an_unknown_rank_is_told(learnt_run: Path, toy_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--model", str(learnt_run / "model"), "--data", str(toy_data), "--tokenizer", "simple"]
    assert main([*command, "--rank", "votes"]) == 2
    assert "evaluation: rank must be score, cider or consensus, not 'votes'" in capsys.readouterr().err


def test_a_recipe_may_make_it_the_models_own() -> None:
    values = tomllib.loads('name = "x"\n[decoding]\nbeam_size = 20\nrank = "consensus"\n[[stages]]\nepochs = 1\n')
    assert Recipe.from_dict(values).decoding.rank == "consensus"
