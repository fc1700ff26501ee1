"""The loop: pictures read ahead of the model, captioned a chunk at a time, written behind it.

A chunk is what the model reads together, and what is recorded together. A run that was killed has recorded its first
chunks and nothing of the others, so that the next one groups the pictures that are left as this one would have, and
the model computes the same to the last digit. Duplicates and pictures that fail fill places in a chunk all the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any

from captioner.batch.dealing import Foreign
from captioner.batch.interrupts import Interrupts, Stopped
from captioner.batch.outputs.files import Files
from captioner.batch.outputs.replacing import is_fatal
from captioner.batch.pictures import Picture
from captioner.batch.plan import Plan, Tally
from captioner.batch.reading import Item, Reader, Views
from captioner.batch.record import Record
from captioner.batch.rows import Entry, Line, Row, to_line
from captioner.captioner import Captioner
from captioner.decoding import DecodingOptions
from captioner.engines import FloatArray
from captioner.errors import CaptionerError
from captioner.prefetch import batches, decoding_threads
from captioner.results import Caption

Rows = list[dict[str, Any]]
Chunk = list[tuple[Item, Views | CaptionerError]]


@dataclass(frozen=True)
class Outcome:
    """What became of an item.

    Attributes:
        item: itself.
        captions: for each model its name, what it says, and the hash of what it saw.
        details: what its first row tells besides.
        duplicate: no model has seen it, as it shows what another one does.
        error: why there are no captions.
    """

    item: Item
    captions: Sequence[tuple[str, Rows, bytes]] = ()
    details: Row = field(default_factory=dict)
    duplicate: bool = False
    error: CaptionerError | None = None

    def entry(self, position: int | None) -> Entry:
        """For the record."""
        name = self.item.picture.name
        if self.error is not None:
            lines = [Line(to_line({"image": name, "error": str(self.error), "code": self.error.code}))]
        else:
            lines = [
                Line(to_line({"image": name, "model": model, **details, "captions": rows}), model, digest)
                for (model, rows, digest), details in zip(
                    self.captions, chain([self.details], repeat({})), strict=False
                )
            ]
        return Entry(self.item.key, tuple(lines), position)


class Run:
    """Captions what is new among some pictures.

    Args:
        plan: how.
        record: of what is done.
        files: where captions are written to, unless the record is enough.
        key: how the record calls a picture of this name.
        failed: told of every picture that fails, by name.
        progress: told after every chunk.

    Attributes:
        tally: what it has done so far.
    """

    def __init__(
        self,
        plan: Plan,
        record: Record,
        files: Files | None = None,
        *,
        key: Callable[[str], str] = str,
        failed: Callable[[str, CaptionerError], None] = lambda *_: None,
        progress: Callable[[Tally], None] = lambda _: None,
    ) -> None:
        self.tally = Tally()
        self._plan, self._record, self._files = plan, record, files
        self._failed, self._progress = failed, progress
        self._reader = Reader(plan, record, files, key, self.tally)
        self._unrecorded: dict[tuple[str, bytes], Rows] = {}  # what the last chunk's pictures are said to show

    def __call__(self, pictures: Iterator[Picture | Foreign], interrupts: Interrupts) -> bool:
        """Go through the pictures; whether they came to an end, or the run was told to stop.

        Raises:
            CaptionerError: it cannot go on; what is recorded stays recorded.
        """
        wanted, size = self._reader.wanted(pictures), self._plan.batch_size
        written: Future[list[Outcome]] | None = None
        with (
            closing(batches(wanted, self._reader.views, size, threads=decoding_threads())) as chunks,
            ThreadPoolExecutor(1, "batch writer") as writer,  # which is waited for as the context ends
        ):
            while chunk := _next(chunks, interrupts):
                outcomes = self._caption(chunk)
                del chunk  # its pixels
                if written is not None:
                    self._account(written.result())
                written = writer.submit(self._write, outcomes)
            if written is not None:
                self._account(written.result())
        return not interrupts.stopping

    def _caption(self, chunk: Chunk) -> list[Outcome]:
        said: list[list[tuple[str, Rows, bytes]]] = [[] for _ in chunk]
        good = [number for number, (_, views) in enumerate(chunk) if not isinstance(views, CaptionerError)]
        unrecorded: dict[tuple[str, bytes], Rows] = {}
        shown: set[int] = set()
        for model, options in self._plan.models:
            known: dict[bytes, Rows] = {}
            new: dict[bytes, FloatArray] = {}
            for number in good:
                view = _views(chunk[number]).by_config[model.info.image]
                if view.digest in known or view.digest in new:
                    continue
                rows = self._known(view.digest, model.name)
                if rows is None:
                    new[view.digest] = view.pixels
                    shown.add(number)
                else:
                    known[view.digest] = rows
            fresh = self._ask(model, options, new)
            unrecorded |= {(model.name, digest): rows for digest, rows in fresh.items()}
            known |= fresh
            for number in good:
                digest = _views(chunk[number]).by_config[model.info.image].digest
                said[number].append((model.name, known[digest], digest))
        self._unrecorded = unrecorded
        return [
            Outcome(item, error=views)
            if isinstance(views, CaptionerError)
            else Outcome(item, said[number], views.details, duplicate=number not in shown)
            for number, (item, views) in enumerate(chunk)
        ]

    def _known(self, digest: bytes, model: str) -> Rows | None:
        """What a model said of the same before."""
        return self._unrecorded.get((model, digest)) or self._record.captions(digest, model)

    def _ask(self, model: Captioner, options: DecodingOptions, pictures: dict[bytes, FloatArray]) -> dict[bytes, Rows]:
        began = time.perf_counter()
        captions = model.caption_pixels(list(pictures.values()), options, spread=True)
        self.tally.busy += time.perf_counter() - began
        rows = [[self._row(model, caption) for caption in found] for found in captions]
        return dict(zip(pictures, rows, strict=True))

    def _row(self, model: Captioner, caption: Caption) -> dict[str, Any]:
        return {**self._plan.shape.row(caption), **self._plan.details.of_caption(model, caption)}

    def _write(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Write files and record all; in a thread of its own. What could not be written has become an error."""
        positions = [outcome.item.position for outcome in outcomes]
        if self._files is not None:
            positions = list(self._record.mark([(outcome.item.key, outcome.item.position) for outcome in outcomes]))
            outcomes = [self._written(outcome, self._files) for outcome in outcomes]
        self._record.commit([outcome.entry(at) for outcome, at in zip(outcomes, positions, strict=True)])
        return list(outcomes)

    def _written(self, outcome: Outcome, files: Files) -> Outcome:
        if outcome.error is not None:
            return outcome
        assert outcome.item.target is not None, "without a place there is an error"
        try:
            files.write(outcome.item.target, [(model, rows) for model, rows, _ in outcome.captions])
        except CaptionerError as error:
            if is_fatal(error):
                raise
            return Outcome(outcome.item, error=error)
        return outcome

    def _account(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if outcome.error is None:
                self.tally.captioned += 1
                self.tally.duplicates += outcome.duplicate
            else:
                self.tally.failed += 1
                self._failed(outcome.item.picture.name, outcome.error)
        self._progress(self.tally)


def _views(prepared: tuple[Item, Views | CaptionerError]) -> Views:
    views = prepared[1]
    assert not isinstance(views, CaptionerError)
    return views


def _next(chunks: Generator[Chunk, None, None], interrupts: Interrupts) -> Chunk | None:
    try:
        with interrupts.waiting():
            return next(chunks, None)
    except Stopped:
        return None
