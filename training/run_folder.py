"""The folder of a training run: what it holds, how it is written safely, how a run is taken up again.

=================  ============================================================================================
``model/``         the best model so far, ready for ``captioner.load`` (half-precision weights)
``last.pt``        everything that resuming needs, written after every evaluation
``best.pt``        the best weights so far in full precision
``start-N.pt``     the best weights when stage N (from 1 on) began: it starts from them
``history.jsonl``  one line an evaluation: loss, dev CIDEr, seconds
``tensorboard/``   the same curves, and the learning rates, for ``tensorboard --logdir``
=================  ============================================================================================
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from captioner.checkpoint import ModelInfo, save_model
from captioner.errors import DataError, ModelError
from captioner.model import CaptionModel
from training import distributed
from training.recipe import Recipe


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        stage, epoch, part: the next to run; an epoch has as many parts as evaluations.
        best: best dev CIDEr so far, over all stages.
        stale: evaluations of this stage since it rose.
        history: one record an evaluation.
    """

    stage: int = 0
    epoch: int = 0
    part: int = 0
    best: float = -math.inf
    stale: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def begun(self) -> bool:
        """Whether a part of this stage is over."""
        return (self.epoch, self.part) > (0, 0)

    def finish_part(self, parts: int) -> None:
        """Go on to the next of ``parts`` parts, or to the next epoch."""
        self.part, self.stale = self.part + 1, self.stale + 1
        if self.part == parts:
            self.epoch, self.part = self.epoch + 1, 0

    def finish_stage(self) -> None:
        """Go on to the next stage."""
        self.stage, self.epoch, self.part, self.stale = self.stage + 1, 0, 0, 0


class RunFolder:
    """Reads and writes the folder of one run.

    Of several processes the first does both, and tells the others what it has read. All call what reads.

    Args:
        path: created where it is missing.
        recipe: of the run; another recipe's run is not resumed.
    """

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path = path
        self.model = path / "model"
        self.tensorboard = path / "tensorboard"
        self._recipe = recipe
        distributed.from_main(lambda: path.mkdir(parents=True, exist_ok=True))

    def open(self, *, resume: bool) -> dict[str, Any] | None:
        """The saved state of the run to go on with; None where a run begins, or was never evaluated.

        Raises:
            DataError: the folder holds a run that is not to be resumed, or that was begun with another recipe, or that
                cannot be read.
        """
        return distributed.from_main(lambda: self._open(resume=resume))

    def _open(self, *, resume: bool) -> dict[str, Any] | None:
        if not self._last.exists():
            return None
        if not resume:
            raise DataError(f"{self.path} holds a training run: add --resume to go on, or choose another folder")
        saved = self._load(self._last)
        try:
            begun = Recipe.from_dict(json.loads(saved["recipe"]))  # by an older version, it may lack fields
        except ModelError as error:
            raise DataError(f"{self.path} was begun by another version of captioner: {error}") from error
        if begun != self._recipe:
            raise DataError(f"{self.path} was begun with another recipe: choose another folder, or undo the change")
        return saved

    def save(self, progress: Progress, **states: Mapping[str, Any]) -> None:
        """Keep the state after an evaluation, and write the history."""
        if not distributed.is_main():
            return
        recipe = json.dumps(self._recipe.to_dict())
        self._write(self._last, {"recipe": recipe, "progress": asdict(progress), **states})
        lines = (json.dumps(record) + "\n" for record in progress.history)
        (self.path / "history.jsonl").write_text("".join(lines), encoding="utf-8")

    def save_best(self, model: CaptionModel, info: ModelInfo) -> None:
        """Keep the best model so far."""
        if not distributed.is_main():
            return
        save_model(self.model, model, info, dtype=torch.float16)
        self._write(self.path / "best.pt", model.state_dict())

    def stage_start(self, stage: int) -> dict[str, Any]:
        """The best weights of all stages before ``stage``, in full precision.

        They are set aside the first time. The stage's own epochs overwrite ``best.pt`` just before ``last.pt``: an
        interruption between the two would else move the start of a resumed stage.
        """
        return distributed.from_main(lambda: self._stage_start(stage))

    def _stage_start(self, stage: int) -> dict[str, Any]:
        path = self.path / f"start-{stage}.pt"
        if not path.exists():
            self._write(path, self._load(self.path / "best.pt"))
        return self._load(path)

    @property
    def _last(self) -> Path:
        return self.path / "last.pt"

    def _load(self, path: Path) -> dict[str, Any]:
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged file
            raise DataError(f"cannot read {path} ({error}): remove the folder and train afresh") from error
        return state

    def _write(self, path: Path, state: Mapping[str, Any]) -> None:
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)  # an interruption leaves the old file or the new one, never half of one
