"""What a study compares, read from TOML, and which runs that takes.

::

    title = "Levers"
    seeds = [1, 2, 3]
    columns = ["CIDEr", "difference"]     # see training.studies.table

    [base]                                # a recipe, or base = "words" for one by name
    …

    [[variants]]                          # the first is what the others are compared with
    name = "base"
    what = "nothing changed"

    [[variants]]
    name = "no-smoothing"
    what = "no label smoothing"
    overrides = ["label_smoothing=0"]
"""

from __future__ import annotations

import copy
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioner.config import Config, is_whole, require
from captioner.errors import ModelError, OptionError
from training.recipe import Recipe, load_recipe, set_field
from training.start import tell

STUDIES = Path(__file__).parent
RESULTS = STUDIES / "results"  # of the shipped studies, a folder each
TEACHERS = 2


@dataclass(frozen=True)
class Variant(Config):
    """The base with something changed: a row of the table.

    Attributes:
        name: of its runs, behind which their seeds stand.
        what: what is changed, in a few words.
        overrides: ``field=value``, as :func:`training.recipe.load_recipe` takes them.
        stages: in place of the base's, each the base's first stage with these fields changed.
        seeds: in place of the study's.
        against: the variant with which this one is compared; empty for the first.
        teachers: the variant whose runs teach this one's, those of the first two of the study's seeds that are not the
            run's own.
        decode_only: caption with the first variant's models; then ``overrides`` may change decoding alone.
    """

    name: str
    what: str
    overrides: tuple[str, ...] = ()
    stages: tuple[Mapping[str, Any], ...] = ()
    seeds: tuple[int, ...] = ()
    against: str = ""
    teachers: str = ""
    decode_only: bool = False

    def __post_init__(self) -> None:
        require(bool(re.fullmatch(r"[a-z0-9.-]+", self.name)), f"{self.name!r} is no name for files: use a-z, 0-9, -")
        for override in self.overrides:
            require(isinstance(override, str), f"overrides are texts that read field=value, not {override!r}")
        require(all(isinstance(stage, Mapping) for stage in self.stages), "stages must be tables")


@dataclass(frozen=True)
class Run:
    """One training, or where its variant is ``decode_only``, one captioning.

    Attributes:
        recipe: its teachers are the names of their runs.
        needs: the names of the runs whose models this one reads.
    """

    variant: Variant
    seed: int
    recipe: Recipe
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The run's name, by which its folder and its figures are called."""
        return f"{self.variant.name}-{self.seed}"

    @property
    def told(self) -> dict[str, Any]:
        """The recipe as plain JSON values, with weights named as on a model's card: without paths of this machine."""
        weights = {name: tell(getattr(self.recipe, name)) for name in ("encoder_weights", "start")}
        values: dict[str, Any] = json.loads(json.dumps(self.recipe.replace(**weights).to_dict()))
        return values


class Study:
    """A base recipe and its variants.

    Args:
        name: of the file, without its suffix.
        values: its content.
        settings: overrides of the base.

    Raises:
        OptionError: a field is missing, unknown or impossible.
        ModelError: a variant or the base has an unknown field.
    """

    def __init__(self, name: str, values: Mapping[str, Any], settings: Sequence[str] = ()) -> None:
        required, optional = {"title", "base", "variants", "columns"}, {"seeds"}
        missing, unknown = sorted(required - set(values)), sorted(set(values) - required - optional)
        require(not missing, f"a study needs {', '.join(missing)}")
        require(not unknown, f"a study has no field {', '.join(unknown)}")
        self.name, self.title = name, str(values["title"])
        self.seeds = check_seeds(values.get("seeds", [1]))
        self.columns = tuple(values["columns"])
        base, variants = values["base"], values["variants"]
        require(isinstance(base, str | Mapping), "base must be a recipe's name or a table")
        require(
            isinstance(variants, list) and bool(variants) and all(isinstance(one, Mapping) for one in variants),
            "a study needs at least one [[variants]] table",
        )
        # A recipe's own values are tuples, which no override could change in place.
        self._base = json.loads(json.dumps(load_recipe(base).to_dict() if isinstance(base, str) else base))
        for setting in settings:
            set_field(self._base, setting)
        Recipe.from_dict(self._base)  # refused here, it is not a variant that is blamed
        self.variants = tuple(Variant.from_dict(variant) for variant in variants)
        self._by_name = {variant.name: variant for variant in self.variants}
        require(len(self._by_name) == len(self.variants), "two variants have one name")
        self.first = self.variants[0]
        require(
            not self.first.decode_only, f"{self.first.name}, the first variant, cannot be decode_only: it is decoded"
        )
        for variant in self.variants:
            for other in filter(None, (variant.against, variant.teachers)):
                self.variant(other)
            for seed in self.seeds_of(variant):
                self.run(variant, seed)

    def variant(self, name: str) -> Variant:
        """The variant of that name.

        Raises:
            OptionError: there is none.
        """
        require(
            name in self._by_name, f"the study {self.name} has no variant {name!r}; it has {', '.join(self._by_name)}"
        )
        return self._by_name[name]

    def seeds_of(self, variant: Variant) -> tuple[int, ...]:
        """The variant's own seeds, or the study's."""
        return check_seeds(variant.seeds) if variant.seeds else self.seeds

    def run(self, variant: Variant, seed: int) -> Run:
        """What a variant is with a seed.

        Raises:
            OptionError, ModelError: its recipe is none.
        """
        try:
            return self._run(variant, seed)
        except (OptionError, ModelError) as error:
            raise OptionError(f"variant {variant.name}: {error}") from error

    def _run(self, variant: Variant, seed: int) -> Run:
        values = copy.deepcopy(self._base) | {"name": variant.name, "seed": seed}
        if variant.stages:
            stage = values["stages"][0]
            values["stages"] = [stage | dict(changes) for changes in variant.stages]
        for override in variant.overrides:
            set_field(values, override)
        if variant.decode_only:
            recipe, first = Recipe.from_dict(values), self._run(self.first, seed)
            same = recipe.replace(decoding=first.recipe.decoding, name=first.recipe.name) == first.recipe
            require(same, "decode_only changes nothing but the decoding of the first variant")
            return Run(variant, seed, recipe, (first.name,))
        if not variant.teachers:
            return Run(variant, seed, Recipe.from_dict(values))
        teacher = self.variant(variant.teachers)
        require(teacher is not variant and not teacher.decode_only, f"{teacher.name} cannot be its teacher")
        teachers = tuple(f"{teacher.name}-{other}" for other in self.seeds if other != seed)[:TEACHERS]
        return Run(variant, seed, Recipe.from_dict(values | {"teachers": teachers}), teachers)

    def plan(self, only: Sequence[str] = (), seeds: Sequence[int] = ()) -> list[Run]:
        """The runs of some variants (all) with some seeds (their own), seed by seed, each behind those that it needs.

        Raises:
            OptionError: there is no such variant, a seed is impossible, or runs need each other.
        """
        chosen = [self.variant(name) for name in only] or list(self.variants)
        by_seed: dict[int, list[Variant]] = {}
        for variant in chosen:
            for seed in check_seeds(seeds) if seeds else self.seeds_of(variant):
                by_seed.setdefault(seed, []).append(variant)
        runs: dict[str, Run] = {}
        for seed in sorted(by_seed):
            for variant in by_seed[seed]:
                runs |= {run.name: run for run in self._with_needs(self.run(variant, seed)) if run.name not in runs}
        return list(runs.values())

    def _with_needs(self, run: Run, waiting: tuple[str, ...] = ()) -> Iterator[Run]:
        require(run.name not in waiting, f"the runs {', '.join(waiting)} need each other")
        for name in run.needs:
            variant, _, seed = name.rpartition("-")
            yield from self._with_needs(self.run(self.variant(variant), int(seed)), (*waiting, run.name))
        yield run


def load_study(name_or_file: str, settings: Sequence[str] = ()) -> Study:
    """Read a study, a shipped one by name or a TOML file.

    Args:
        name_or_file: such as ``levers`` or ``mine.toml``.
        settings: overrides of the base, as :func:`training.recipe.load_recipe` takes them.

    Raises:
        OptionError: there is no such study, or something in it is impossible.
    """
    path = Path(name_or_file)
    if not path.is_file():
        path = STUDIES / f"{name_or_file}.toml"
    if not path.is_file():
        shipped = ", ".join(sorted(study.stem for study in STUDIES.glob("*.toml")))
        raise OptionError(f"no study {name_or_file!r}: give a TOML file or one of {shipped}")
    try:
        return Study(path.stem, tomllib.loads(path.read_text(encoding="utf-8")), settings)
    except (ModelError, ValueError) as error:  # what is no TOML, no UTF-8 and no option is each a ValueError
        raise OptionError(f"study {path}: {error}") from error


def check_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """The seeds, if they are some: whole, not below 0, and none twice.

    Raises:
        OptionError: they are not.
    """
    good = isinstance(seeds, list | tuple) and all(is_whole(seed) and seed >= 0 for seed in seeds)
    require(good and 0 < len(seeds) == len(set(seeds)), f"seeds must be different whole numbers, not {seeds!r}")
    return tuple(seeds)
