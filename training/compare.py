"""Run a study and print its table: ``python -m training.compare --study levers --data DIR --output DIR``.

A study (:mod:`training.studies.study`) trains a base recipe and its variants, each with several seeds, measures every
model on the dev split and writes the figures of a run to ``OUTPUT/results/NAME-SEED.json``. What is there already is
not run again, what was interrupted goes on where it was. Commands that share an output folder share the work: each
takes a run that no other is at.

``--table`` trains nothing and prints the table of the figures in ``OUTPUT/results``, or without ``--output``, of those
in ``training/studies/results/STUDY``.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioner.checkpoint import read_info
from captioner.errors import CaptionerError, OptionError
from training.datasets import read_dataset
from training.expectation import add_expectation
from training.features import default_cache
from training.metrics import require_scoring
from training.studies.measuring import measure, pick_tokenizer, seconds_per_epoch
from training.studies.study import RESULTS, Run, load_study
from training.studies.table import check_recipe, make_table, read_results
from training.train import train

PAUSE = 5.0  # seconds until it is looked again whether another command has finished a run


@dataclass(frozen=True)
class Workshop:
    """Where a study is run.

    Attributes:
        study: its name.
        data: a dataset with a train and a dev split.
        output: the folder of all its runs.
        cache: where encoder features are kept.
        tokenizer: of the word metrics.
    """

    study: str
    data: Path
    output: Path
    cache: Path
    tokenizer: str

    def model(self, run: str) -> Path:
        """The model that a run of that name trains."""
        return self.output / run / "model"

    def results(self, run: str) -> Path:
        """The file of a run's figures."""
        return self.output / "results" / f"{run}.json"


def run_all(shop: Workshop, runs: Sequence[Run]) -> list[str]:
    """Do what is left to do of ``runs``; what fails does not keep the others from being done.

    Args:
        shop: where.
        runs: each behind those that it needs.

    Returns:
        Complaints, one for each run that failed.
    """
    shop.results("any").parent.mkdir(parents=True, exist_ok=True)
    waiting, failed = list(runs), dict[str, str]()
    while waiting:
        before = len(waiting)
        for run in list(waiting):
            broken = [need for need in run.needs if need in failed]
            if not broken and not all(shop.results(need).is_file() for need in run.needs):
                continue  # another command is at it
            with claim(shop.output / f"{run.name}.lock") as free:
                if not free:
                    continue
                waiting.remove(run)
                try:
                    if broken:
                        raise OptionError(f"it needs {', '.join(broken)}")
                    complete(shop, run)
                except (CaptionerError, OSError) as error:
                    failed[run.name] = f"{run.name}: {error}"
                    print(f"comparison: {failed[run.name]}", file=sys.stderr)
        if len(waiting) == before:
            time.sleep(PAUSE)
    return list(failed.values())


def complete(shop: Workshop, run: Run) -> None:
    """Train and measure, as far as that has not been done.

    Raises:
        DataError: the figures that are there were made with another recipe.
    """
    path = shop.results(run.name)
    if path.is_file():
        check_recipe(run.told, json.loads(path.read_text(encoding="utf-8")), path, weights=True)
        return
    print(f"{run.name}: {run.variant.what}", flush=True)
    history: list[dict[str, Any]] = []
    if not run.variant.decode_only:
        teachers = tuple(str(shop.model(name).resolve()) for name in run.recipe.teachers)
        recipe = run.recipe.replace(teachers=teachers)
        history = train(recipe, shop.data, shop.output / run.name, cache=shop.cache, resume=True).history
    model = shop.model(run.needs[0] if run.variant.decode_only else run.name)
    if run.variant.decode_only and run.recipe.decoding.rank == "cider":
        model = teach(model, shop.model(run.name), shop.data)
    figures = {
        "study": shop.study,
        "variant": run.variant.name,
        "what": run.variant.what,
        "overrides": list(run.variant.overrides),
        "stages": [dict(stage) for stage in run.variant.stages],
        "decode_only": run.variant.decode_only,
        "seed": run.seed,
        **measure(model, shop.data, run.recipe.decoding, shop.tokenizer),
        "seconds_per_epoch": seconds_per_epoch(history) if history else None,
        "history": history,
        "recipe": run.told,
    }
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(figures, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def teach(model: Path, copy: Path, data: Path) -> Path:
    """A model that has learnt what CIDEr to expect: a copy, as the model itself is that of other runs too.

    One that has learnt it already comes back as it is.
    """
    if read_info(model).decoding.rank == "cider":
        return model
    shutil.copytree(model, copy, dirs_exist_ok=True)
    add_expectation(copy, read_dataset(data, required=("train",))["train"])
    return copy


@contextmanager
def claim(path: Path) -> Iterator[bool]:
    """Whether no other process is at ``path``; until this ends, or the process, however it does, none will be."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.compare", description="Run a study, or print its table.")
    parser.add_argument("--study", required=True, help="levers, family or a TOML file")
    parser.add_argument("--data", type=Path, help="dataset: Flickr8k in any layout, or JSONL")
    parser.add_argument("--output", type=Path, help="folder of all runs and their figures")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these variants, and what they need")
    parser.add_argument("--seeds", nargs="+", type=int, default=[], metavar="N", help="in place of the study's")
    parser.add_argument(
        "--table", action="store_true", help="run nothing, print the table of the figures that are there"
    )
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where encoder features are kept")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="override a field of the base; dots lead inside",
    )
    arguments = parser.parse_args(argv)
    if not arguments.table and not (arguments.data and arguments.output):
        parser.error("--data and --output are needed, unless --table is given")
    if arguments.table and (arguments.only or arguments.seeds):
        parser.error("--table shows all figures that are there: leave --only and --seeds out")
    try:
        study = load_study(arguments.study, arguments.set)
        if arguments.table:
            folder = arguments.output / "results" if arguments.output else RESULTS / study.name
            shown = "results" if arguments.output else f"studies/results/{study.name}"
            print(make_table(study, read_results(study, folder), shown), end="")
            return 0
        tokenizer = pick_tokenizer()
        require_scoring(tokenizer)
        shop = Workshop(study.name, arguments.data, arguments.output, arguments.cache, tokenizer)
        runs = study.plan(arguments.only, arguments.seeds)
        print(f"{study.title}: {len(runs)} runs", flush=True)
        failed = run_all(shop, runs)
    except (CaptionerError, OSError) as error:
        print(f"comparison: {error}", file=sys.stderr)
        return 2 if isinstance(error, OptionError) else 1
    except KeyboardInterrupt:
        print("comparison: stopped; the same command goes on after the last finished epoch", file=sys.stderr)
        return 1
    print(f"{len(failed)} runs failed" if failed else f"the figures are in {arguments.output / 'results'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
