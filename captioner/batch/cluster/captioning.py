"""What the cluster's workers do: they load the models once, and caption what they are given as a run of their own."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass

import captioner
from captioner.batch.cluster.reading import Filled
from captioner.batch.interrupts import Interrupts
from captioner.batch.models import Wanted, digest
from captioner.batch.plan import Plan, Tally
from captioner.batch.record import IN_MEMORY, Record
from captioner.batch.run import Run
from captioner.cores import VARIABLE
from captioner.errors import CaptionerError, ModelError


@dataclass(frozen=True)
class Work:
    """What is to be done by all workers alike.

    Attributes:
        wanted: the models and how they speak.
        digests: of each model, see :func:`captioner.batch.models.digest`.
        batch_size: pictures that the network sees at a time.
        version: of captioner.
    """

    wanted: Wanted
    digests: Sequence[str]
    batch_size: int
    version: str = captioner.__version__


@dataclass(frozen=True)
class Answer:
    """What became of some pictures.

    Attributes:
        part, start, last: as of :class:`captioner.batch.cluster.parts.Group`.
        count: how many pictures.
        lines: rows, as :func:`captioner.batch.rows.to_line` makes them, in the order of the pictures.
        tally: what the worker did.
        failures: the names of those that failed, each with the reason.
    """

    part: int
    start: int
    last: bool
    count: int
    lines: tuple[str, ...]
    tally: Tally
    failures: tuple[tuple[str, str], ...]


class Worker:
    """Models in a process of their own.

    Raises:
        CaptionerError: they cannot be loaded, or are not those of the driver.
    """

    def __init__(self, work: Work) -> None:
        wanted = work.wanted
        machine = platform.node()
        if captioner.__version__ != work.version:
            raise CaptionerError(
                f"captioner is {captioner.__version__} on {machine} and {work.version} where the run was started: "
                "install the same version on all machines"
            )
        for name, expected in zip(wanted.names, work.digests, strict=True):
            if digest(name) != expected:
                raise ModelError(
                    f"model {name} on {machine} is another one than where the run was started: copy it there",
                    code="model_mismatch",
                )
        if wanted.threads is not None:
            os.environ[VARIABLE] = str(wanted.threads)  # for the threads that decode, and for torch
        self._plan = Plan(wanted.load(), wanted.shape, work.batch_size)

    def __call__(self, filled: Filled) -> Answer:
        """Caption some pictures; those that show the same once."""
        failures: list[tuple[str, str]] = []
        with Record(IN_MEMORY) as record:
            run = Run(self._plan, record, failed=lambda name, error: failures.append((name, str(error))))
            run(filled.pictures(), Interrupts())
            lines = tuple(record.lines())
        return Answer(filled.part, filled.start, filled.last, len(filled.names), lines, run.tally, tuple(failures))
