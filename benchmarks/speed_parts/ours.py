"""The library itself, in every engine and precision that is to be had here."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from speed_parts.timing import seconds_of

import captioner
from captioner import Captioner, loading
from captioner.errors import CaptionerError
from captioner.images import load_pixels

ENGINES = tuple(name for name in loading.ENGINES if name != loading.AUTO)
PRECISIONS = ("fp32", "bf16", "int8")


def load_all(
    model: str, threads: int, engines: Sequence[str], precisions: Sequence[str]
) -> tuple[dict[str, Captioner], dict[str, str]]:
    """The model in all engines and precisions, by name, and of those that are not to be had here, why not.

    Raises:
        SystemExit: there are none at all.
    """
    loaded: dict[str, Captioner] = {}
    missing: dict[str, str] = {}
    for engine in engines:
        for precision in precisions:
            try:
                own = captioner.load(model, engine=engine, device="cpu", precision=precision, threads=threads)
            except CaptionerError as error:
                missing[f"{engine} {precision}"] = str(error)
            else:
                loaded[f"{engine} {precision}"] = own
    if not loaded:
        raise SystemExit("\n".join(f"{name}: {why}" for name, why in missing.items()))
    return loaded, missing


def batch_rates(
    loaded: Mapping[str, Captioner], paths: Sequence[Path], batch: int, beam: int, rounds: int
) -> dict[str, list[float]]:
    """Images a second from files on disk, by name, one figure a round.

    The pictures are dealt out to the rounds, a whole batch each at least; all contenders caption the same ones in turn.
    """
    share = max(batch, len(paths) // rounds // batch * batch)
    rates: dict[str, list[float]] = {name: [] for name in loaded}
    for own in loaded.values():  # what an engine prepares for this size of batch
        caption_files(own, take(paths, 0, batch), batch, beam)
    for turn in range(rounds):
        group = take(paths, turn * share, share)
        for name, own in loaded.items():
            seconds = seconds_of(partial(caption_files, own, group, batch, beam))
            rates[name].append(share / seconds)
    return rates


def caption_files(own: Captioner, paths: Iterable[Path], batch: int, beam: int) -> None:
    """Caption files in batches.

    Raises:
        CaptionerError: one cannot be read: who captions nothing is fast.
    """
    for result in own.batch(paths, batch_size=batch, beam_size=beam):
        if result.error is not None:
            raise result.error


def take(paths: Sequence[Path], start: int, count: int) -> list[Path]:
    """So many of the paths, from one on, round and round."""
    return [paths[number % len(paths)] for number in range(start, start + count)]


@dataclass(frozen=True)
class Shares:
    """Where the time went, in seconds, and how many steps a picture took.

    Attributes:
        read: read and decode the pictures, fit and normalise them.
        grid: the encoder.
        steps: all else that the engine does.
        search: the rest, in numpy and Python: beams, ranking, texts.
        steps_taken: of a picture, on average; all rows of its beam take a step at once.
    """

    read: float
    grid: float
    steps: float
    search: float
    steps_taken: float


class Stopwatch:
    """An engine that notes how long each of its methods takes, and how many rows it steps."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.seconds: dict[str, float] = {}
        self.rows = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.engine, name)
        if not callable(method):
            return method

        def timed(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            value = method(*arguments, **named)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
            self.rows += len(arguments[0]) if name == "step" else 0
            return value

        return timed


def shares(own: Captioner, paths: Sequence[Path], batch: int, **options: Any) -> Shares:
    """Caption pictures in batches, and see where the time goes."""
    watch, watched = Stopwatch(own.engine), copy.copy(own)
    watched.engine = watch
    chosen = own.options(**options)
    read = total = 0.0
    for start in range(-batch, len(paths), batch):  # the first batch once more, which does not count
        if start == 0:
            watch.seconds, watch.rows, read, total = {}, 0, 0.0, 0.0
        begin = time.perf_counter()
        pixels = [load_pixels(path, own.info.image) for path in paths[max(0, start) : max(0, start) + batch]]
        middle = time.perf_counter()
        watched.caption_pixels(pixels, chosen)
        read += middle - begin
        total += time.perf_counter() - middle
    engine = sum(watch.seconds.values())
    grid = watch.seconds["encode"]
    return Shares(read, grid, engine - grid, total - engine, watch.rows / chosen.beam_size / len(paths))
