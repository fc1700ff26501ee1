"""The table of a study, from the figures of its runs alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioner.errors import DataError
from training.recipe import Recipe
from training.studies.study import Study, Variant

Figures = Mapping[str, Any]  # of one run, see training.compare
Found = Mapping[str, Mapping[int, Figures]]  # by variant and seed
NOTHING = "–"
DIFFERENCE = "difference"
COMMON = ("split", "images", "tokenizer")  # where these differ, figures do not compare


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        head: its title.
        read: the figure of a run; None where there is none.
        decimals: how many are printed.
    """

    head: str
    read: Callable[[Figures], float | None]
    decimals: int = 0


def _score(name: str) -> Column:
    return Column(name, lambda figures: figures["scores"].get(name), 3)


def _wording(head: str, name: str, decimals: int = 0) -> Column:
    return Column(head, lambda figures: figures["diction"]["captions"][name], decimals)


CIDER = _score("CIDEr")
COLUMNS = {
    "CIDEr": CIDER,
    **{name: _score(name) for name in ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L")},
    "dangling": _wording("end dangling", "dangling"),
    "length": _wording("words a caption", "length", 1),
    "words": _wording("different words", "words"),
    "different": _wording("different captions", "different"),
    "bigrams": _wording("repeat a bigram", "repeated_bigrams"),
    "trigrams": _wording("repeat a trigram", "repeated_trigrams"),
    "doubled": _wording("words doubled", "doubled_words"),
    "parameters": Column("decoder parameters, millions", lambda figures: figures["parameters"]["decoder"] / 1e6, 2),
    "seconds": Column("s an epoch", lambda figures: figures["seconds_per_epoch"]),
    "decoding": Column("ms decoding", lambda figures: figures["milliseconds"]["decoding"], 1),
    "captioning": Column("ms a picture", lambda figures: figures["milliseconds"]["captioning"], 1),
}


def read_results(study: Study, folder: Path) -> dict[str, dict[int, Figures]]:
    """The figures of a study's runs by variant and seed, as far as they are in ``folder``.

    Raises:
        DataError: a file there is of no run of this study, was made by another recipe than the study has now, or does
            not compare with the others.
    """
    found: dict[str, dict[int, Figures]] = {}
    common: dict[str, Any] = {}
    for path in sorted(folder.glob("*.json")):
        figures: Figures = json.loads(path.read_text(encoding="utf-8"))
        name, seed = figures["variant"], figures["seed"]
        if name not in {variant.name for variant in study.variants}:
            raise DataError(f"{path} is of no variant of the study {study.name}: remove it")
        check_recipe(study.run(study.variant(name), seed).told, figures, path)
        own = {each: figures[each] for each in COMMON} | {"encoder_weights": figures["recipe"]["encoder_weights"]}
        common = common or own
        for each, value in own.items():
            if value != common[each]:
                raise DataError(f"{path} does not compare with the rest: its {each} is {value}, not {common[each]}")
        found.setdefault(name, {})[seed] = figures
    return found


def check_recipe(told: Mapping[str, Any], figures: Figures, path: Path, *, weights: bool = False) -> None:
    """Raise where the figures are not those of a recipe.

    Args:
        told: the recipe, as :attr:`training.studies.study.Run.told` has it.
        figures: of a run.
        path: where they were read.
        weights: whether the encoder's weights must be the same, too.

    Raises:
        DataError: the recipe was another one.
    """
    made = Recipe.from_dict(figures["recipe"])  # by an older version, it may lack fields
    now = Recipe.from_dict(told)
    ignored = set() if weights else {"encoder_weights"}
    names = [each.name for each in dataclasses.fields(Recipe) if each.name not in ignored]
    different = [name for name in names if getattr(now, name) != getattr(made, name)]
    if different:
        raise DataError(
            f"{path} was made with another recipe ({', '.join(different)}): remove it, or undo what was changed"
        )


def make_table(study: Study, found: Found, folder: str) -> str:
    """The study's table in Markdown: a row a variant, in the study's order, and what the figures rest on.

    Args:
        study: its columns and variants.
        found: see :func:`read_results`.
        folder: where the figures of the runs are, seen from the page on which the table stands.

    Raises:
        DataError: there are no figures, or no such column.
    """
    unknown = [name for name in study.columns if name not in COLUMNS and name != DIFFERENCE]
    if unknown:
        raise DataError(f"there is no column {', '.join(unknown)}; there are {DIFFERENCE}, {', '.join(COLUMNS)}")
    if not found:
        raise DataError(f"there are no figures of the study {study.name} yet: run it first")
    heads = [f"{CIDER.head} difference" if name == DIFFERENCE else COLUMNS[name].head for name in study.columns]
    lines = [f"| run | what | {' | '.join(heads)} | figures of seed |", "|---" * (len(heads) + 3) + "|"]
    for variant in study.variants:
        if runs := found.get(variant.name):
            cells = [_cell(study, variant, name, found) for name in study.columns]
            links = " ".join(f"[{seed}]({folder}/{variant.name}-{seed}.json)" for seed in sorted(runs))
            lines.append(f"| `{variant.name}` | {variant.what} | {' | '.join(cells)} | {links} |")
    return "\n".join([*lines, "", _notes(study, found), ""])


def _cell(study: Study, variant: Variant, name: str, found: Found) -> str:
    if name != DIFFERENCE:
        return spread([COLUMNS[name].read(figures) for figures in found[variant.name].values()], COLUMNS[name].decimals)
    other = study.variant(variant.against) if variant.against else study.first
    mine, theirs = found[variant.name], found.get(other.name, {})
    seeds = set(mine) & set(theirs)
    if variant is other or not seeds:
        return NOTHING
    differences = [mine[seed]["scores"]["CIDEr"] - theirs[seed]["scores"]["CIDEr"] for seed in sorted(seeds)]
    cell = spread(differences, CIDER.decimals, signed=True)
    return cell if other is study.first else f"{cell} to `{other.name}`"


def spread(values: Sequence[float | None], decimals: int, *, signed: bool = False) -> str:
    """Mean ± half of the range, the latter where the values differ; a dash where one is missing."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return NOTHING
    sign = "+" if signed else ""
    mean = f"{sum(known) / len(known):{sign}.{decimals}f}"
    if min(known) == max(known):
        return mean
    return f"{mean} ± {(max(known) - min(known)) / 2:.{decimals}f}"


def _notes(study: Study, found: Found) -> str:
    """What must be known to read the figures."""
    every = [figures for runs in found.values() for figures in runs.values()]
    first = every[0]
    weights = first["recipe"]["encoder_weights"] or "random"
    notes = [
        f"{first['images']} pictures of the {first['split']} split, encoder weights {weights}.",
        "Mean over the seeds ± half of their range.",
    ]
    if DIFFERENCE in study.columns:
        notes.append(
            f"Differences are means over the seeds that both have, to `{study.first.name}` or the row that is named."
        )
    if first["tokenizer"] != "ptb":
        notes.append("Scored with the simple tokeniser: not comparable with the standard.")
    if {"seconds", "decoding", "captioning"} & set(study.columns):
        timed = first["milliseconds"]
        notes.append(
            "An epoch's seconds include captioning the split; milliseconds are medians over "
            f"{timed['pictures']} pictures, one at a time, threads: {timed['threads']}."
        )
    places = sorted({_place(figures["environment"]) for figures in every})
    return " ".join([*notes, f"Obtained with {'; '.join(places)}."])


def _place(environment: Mapping[str, Any]) -> str:
    return (
        f"captioner {environment['captioner']}, Python {environment['python']}, torch {environment['torch']} on "
        f"{environment['device']} ({environment['processor']}), threads: {environment['threads']}"
    )
