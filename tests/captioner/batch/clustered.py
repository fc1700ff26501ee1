"""Clusters for tests: in this process, without Ray; and drivers in processes of their own, to be killed.

As a program it is ``captioner``. If ``KILLED_WITH`` names a folder, it kills itself as it hears of the first group that
is done while that folder holds a finished part.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from captioner.batch.cluster import driver
from captioner.batch.cluster.captioning import Answer, Work, Worker
from captioner.batch.cluster.driver import Summary, caption_on_cluster
from captioner.batch.cluster.options import Cluster, Output
from captioner.batch.cluster.parts import Group
from captioner.batch.cluster.reading import fill
from captioner.batch.dealing import Collection
from captioner.batch.models import Wanted
from captioner.batch.outputs.parquet_table import ParquetTable
from captioner.batch.progress import Progress
from captioner.cli import main

KILLED_WITH = "KILLED_WITH"

Answers = Callable[..., Iterator[Answer]]


def in_this_process(groups: Sequence[Group], work: Work, _: Cluster, _workers: int, size: int) -> Iterator[Answer]:
    """What :func:`captioner.batch.cluster.pipeline.answers` does, by a single worker and without Ray."""
    worker = Worker(_sent(work))
    for group in map(_sent, groups):
        for filled in fill(group, size):
            yield _sent(worker(_sent(filled)))


def _sent(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def without_ray(monkeypatch: pytest.MonkeyPatch, answers: Answers = in_this_process) -> None:
    """Let workers be in this process, or be what ``answers`` says."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which workers change
    monkeypatch.setattr(driver, "answers", answers)
    monkeypatch.setattr(driver, "session", lambda _: open(os.devnull))  # noqa: PTH123, SIM115
    monkeypatch.setattr(driver, "room", lambda _: 1)


def caption(model: Path, output: object, *inputs: object, cluster: Cluster | None = None, **changes: Any) -> Summary:
    """Caption on a cluster of single-core workers, four pictures at a time and 16 in a part."""
    own = {name: changes.pop(name) for name in ("part_size", "afresh", "retry_failed") if name in changes}
    lists = [str(changes.pop("list"))] if "list" in changes else []
    return caption_on_cluster(
        Collection([str(given) for given in inputs], lists),
        Output(str(output), **{"part_size": 16} | own),
        cluster=cluster or Cluster(cpus=1),
        wanted=changes.pop("wanted", Wanted([str(model)])),
        batch_size=4,
        **changes,
    )


def rows(output: Path) -> list[dict[str, Any]]:
    """All rows of an output, as a row has them where nothing is empty."""
    found: list[dict[str, Any]] = []
    for path in sorted(output.glob("part-*.parquet")):
        with path.open("rb") as file:
            found += [dict(row) for row, _ in ParquetTable(path).read(file)]
    return found


def _die_among_parts(output: Path) -> None:
    if any(output.glob("part-*.parquet")):
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    if folder := os.environ.get(KILLED_WITH):
        Progress.show = lambda *_: _die_among_parts(Path(folder))  # type: ignore[method-assign]
    sys.exit(main(sys.argv[1:]))
