"""A run on a cluster from its beginning to its end: what is missing is asked for, and written as it comes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TypeVar

from captioner.batch.cluster.captioning import Answer, Work
from captioner.batch.cluster.folder import Facts, Folder
from captioner.batch.cluster.gathering import Gathering
from captioner.batch.cluster.options import Cluster, Output
from captioner.batch.cluster.parts import Group, Part, parts, sources, waves
from captioner.batch.cluster.pipeline import LostError, answers, room
from captioner.batch.cluster.sessions import require_ray, session
from captioner.batch.dealing import Collection
from captioner.batch.interrupts import Interrupts, Stopped
from captioner.batch.models import Wanted, digest
from captioner.batch.plan import Tally
from captioner.checkpoint import CONFIG_NAME
from captioner.config import require
from captioner.errors import CaptionerError, OptionError
from captioner.loading import AUTO, TORCH

BATCHES = 8  # of a group
FRUITLESS = 3  # times that workers are lost with nothing done in between, until the run gives up

T = TypeVar("T")


@dataclass
class Summary:
    """What became of a run.

    Attributes:
        tally: what it has done; ``busy`` is the mean of its workers.
        parts: how many the output has.
        failures: pictures of the output that have no captions, in this run or before.
        ended: whether all is done, or the run was told to stop.
    """

    tally: Tally = field(default_factory=Tally)
    parts: int = 0
    failures: int = 0
    ended: bool = False


def caption_on_cluster(
    collection: Collection,
    output: Output,
    *,
    cluster: Cluster = Cluster(),  # noqa: B008 - it is frozen
    wanted: Wanted = Wanted(),  # noqa: B008
    batch_size: int = 32,
    interrupts: Interrupts | None = None,
    failed: Callable[[str, str], None] = lambda *_: None,
    progress: Callable[[Tally], None] = lambda _: None,
) -> Summary:
    """Caption a collection on the workers of a cluster, going on where an earlier run ended.

    Args:
        collection: of pictures; files must be where all machines see them.
        output: a folder of Parquet files, which only this machine writes.
        cluster: where, and on how many workers.
        wanted: models, which must be on all machines, and how they speak; ``threads`` are the workers' cores.
        batch_size: pictures that the network sees at a time.
        interrupts: tell when to stop.
        failed: told of every picture that fails, by name and reason.
        progress: told after every group.

    Raises:
        CaptionerError: it cannot be done, or not go on; the parts that are done stay.
    """
    require_ray()
    require(batch_size >= 1, "--batch-size must be at least 1")
    wanted = _of_workers(wanted, cluster)
    found = sources(collection)  # raises for what does not exist, before models are loaded
    settings = wanted.settings(wanted.load()) | {
        "INPUT": list(collection.inputs),
        "--list": list(collection.lists),
        "--recursive": collection.recursive,
        "--part-size": output.part_size,
    }
    work = Work(wanted, [digest(name) for name in wanted.names], batch_size)
    folder = Folder(output.place)
    done = folder.begin(settings, afresh=output.afresh)
    run = _Run(folder, output, done, cluster, work, interrupts or Interrupts(), failed, progress)
    return run(parts(found, output.part_size))


def _of_workers(wanted: Wanted, cluster: Cluster) -> Wanted:
    """Models as each worker is to load them, whatever its machine has besides."""
    wanted = replace(wanted, names=[*map(_seen_by_all, wanted.names)], threads=cluster.cpus)
    if not cluster.gpus:  # without these of its own a worker sees all that there are
        return replace(wanted, device=wanted.device or "cpu")
    return replace(wanted, engine=TORCH) if wanted.engine == AUTO else wanted


def _seen_by_all(model: str) -> str:
    """A model's directory by a path that means the same to all processes; a bundled model by its name."""
    return str(Path(model).absolute()) if (Path(model) / CONFIG_NAME).is_file() else model


class _Run:
    def __init__(
        self,
        folder: Folder,
        output: Output,
        done: dict[int, Facts],
        cluster: Cluster,
        work: Work,
        interrupts: Interrupts,
        failed: Callable[[str, str], None],
        progress: Callable[[Tally], None],
    ) -> None:
        self._folder, self._output, self._done = folder, output, done
        self._cluster, self._work, self._interrupts = cluster, work, interrupts
        self._failed, self._progress = failed, progress
        self._tally = Tally()
        self._size = BATCHES * work.batch_size

    def __call__(self, found: Iterator[Part]) -> Summary:
        ended = False
        with ExitStack() as stack, contextlib.suppress(Stopped):
            remaining = waves(self._missing(found))
            wave = self._awaited(remaining)
            if wave:
                self._folder.reopen()
                stack.enter_context(session(self._cluster.address))
            while wave:
                self._wave(wave)
                wave = self._awaited(remaining)
            ended = True
        if ended:
            self._folder.finish(self._done.values())
        failures = sum(facts.failed for facts in self._done.values())
        return Summary(self._tally, len(self._done), failures, ended)

    def _awaited(self, stream: Iterator[T]) -> T | None:
        """What comes next, if anything does.

        Raises:
            Stopped: the run is told to stop, before or meanwhile.
        """
        with self._interrupts.waiting():
            return next(stream, None)

    def _missing(self, found: Iterator[Part]) -> Iterator[Part]:
        """The parts that are to be captioned.

        Raises:
            OptionError: those that are done were made from something else.
        """
        number = -1
        for number, part in enumerate(found):
            facts = self._done.get(number)
            if facts is None:
                yield part
            elif facts.digest != part.digest:
                raise self._otherwise(number)
            elif facts.failed and self._output.retry_failed:
                yield part
            else:
                self._tally.known += facts.pictures
        beyond = max(self._done, default=number)
        if beyond > number:
            raise self._otherwise(beyond)

    def _otherwise(self, number: int) -> OptionError:
        return OptionError(
            f"part {number} in {self._output.place} was made from other pictures than are there now: name another "
            "output, or give --on-existing overwrite"
        )

    def _wave(self, wave: list[Part]) -> None:
        """Caption some parts.

        Raises:
            Stopped: the run is told to stop; the parts that are complete are written.
        """
        open_parts = {part.number: Gathering(part, self._size) for part in wave}
        workers, fruitless = self._workers(), 0
        written: Future[None] | None = None
        with ThreadPoolExecutor(1, "part writer") as writer:  # which is waited for as the context ends
            try:
                while open_parts:
                    groups = list(chain.from_iterable(part.missing() for part in open_parts.values()))
                    stream = answers(groups, self._work, self._cluster, workers, self._size)
                    try:
                        while (answer := self._awaited(stream)) is not None:
                            part = open_parts.get(answer.part)
                            if part is None or not part.add(answer):
                                continue  # it has come before, from a worker that was given up
                            fruitless = 0
                            self._account(part.take(answer), workers)
                            if not part.missing():
                                if written is not None:
                                    written.result()
                                written = writer.submit(self._write, open_parts.pop(answer.part))
                    except LostError as error:
                        fruitless += 1
                        if fruitless > FRUITLESS:
                            raise self._given_up(groups, error) from error
                        workers = max(1, min(workers, room(self._cluster)))
            finally:
                if written is not None:
                    written.result()

    def _workers(self) -> int:
        workers = self._cluster.workers or room(self._cluster)
        require(
            workers > 0,
            f"no machine of the cluster has {self._cluster.cpus} cores"
            + (f" and {self._cluster.gpus:g} accelerators" if self._cluster.gpus else "")
            + ": give fewer with --ray-cpus, or --ray-workers N if machines come when they are asked for",
        )
        return workers

    def _given_up(self, groups: list[Group], error: LostError) -> CaptionerError:
        first, last = groups[0].sources[0].name, groups[0].sources[-1].name
        return CaptionerError(
            f"workers are lost time and again and nothing gets done; {first} to {last} are next. What is done is kept: "
            f"see to the machines and to these pictures, and give the same command again ({error})"
        )

    def _account(self, taken: list[Answer], workers: int) -> None:
        tally = self._tally
        for answer in taken:
            tally.captioned += answer.tally.captioned
            tally.duplicates += answer.tally.duplicates
            tally.failed += answer.tally.failed
            tally.busy += answer.tally.busy / workers
            for name, reason in answer.failures:
                self._failed(name, reason)
        self._progress(tally)

    def _write(self, part: Gathering) -> None:
        taken = list(part.answers())
        pictures, failed = sum(answer.count for answer in taken), sum(answer.tally.failed for answer in taken)
        self._folder.write(part.part, chain.from_iterable(answer.lines for answer in taken), pictures, failed)
        self._done[part.part.number] = Facts(part.part.digest, pictures, failed)
