"""What a run is to do with every picture, and what it has done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from captioner.batch.rows import Details
from captioner.batch.texts import Shape
from captioner.captioner import Captioner
from captioner.decoding import DecodingOptions


@dataclass(frozen=True)
class Plan:
    """What a run does with every picture.

    Attributes:
        models: each with the options that it decodes with.
        shape: of the texts.
        batch_size: pictures in a chunk.
        skip: leave pictures alone that have a file.
        retry_failed: try those again that failed in an earlier run.
        details: what rows are to tell besides captions.
    """

    models: Sequence[tuple[Captioner, DecodingOptions]]
    shape: Shape = field(default_factory=Shape)
    batch_size: int = 32
    skip: bool = True
    retry_failed: bool = False
    details: Details = field(default_factory=Details)


@dataclass
class Tally:
    """What a run has done.

    Attributes:
        known: pictures that were done or had failed before.
        skipped: that have a file.
        captioned: of which ``duplicates`` show what another one does, and were not shown to a model.
        failed: have no captions, for reasons that are recorded.
        busy: seconds for which a model was at work.
    """

    known: int = 0
    skipped: int = 0
    captioned: int = 0
    duplicates: int = 0
    failed: int = 0
    busy: float = 0.0

    @property
    def new(self) -> int:
        """Pictures that this run has dealt with."""
        return self.captioned + self.failed

    @property
    def done(self) -> int:
        """Pictures that nothing is left to be done with."""
        return self.known + self.skipped + self.new
