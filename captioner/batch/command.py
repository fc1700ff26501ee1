"""``captioner batch``: what it does with its options, and what it says."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from captioner.batch.choices import ALT_TEXTS, SKIP
from captioner.batch.cluster.options import require_no_cluster
from captioner.batch.dealing import Collection, Share
from captioner.batch.interrupts import STOPPED, Interrupts
from captioner.batch.job import Job
from captioner.batch.models import Wanted
from captioner.batch.outputs.formats import format_of, require_ending
from captioner.batch.outputs.tables import Table
from captioner.batch.plan import Plan
from captioner.batch.progress import Counting, Progress, hints, summary, told
from captioner.batch.record import FAILED, Record
from captioner.batch.rows import Details
from captioner.batch.run import Run
from captioner.batch.texts import Shape
from captioner.checkpoint import read_info, resolve
from captioner.config import require
from captioner.errors import CaptionerError
from captioner.flags import decoding_of, network_of

NAMED = 20  # failures of earlier runs that are told by name


def batch_command(arguments: argparse.Namespace) -> int:
    """``captioner batch``."""
    require(arguments.batch_size >= 1, "--batch-size must be at least 1")
    wanted = _wanted(arguments)
    if arguments.ray is not None:
        from captioner.batch.cluster.command import cluster_command

        return cluster_command(arguments, wanted)
    require_no_cluster(arguments)
    job = _job(arguments)
    table = job.table()
    if table is not None and arguments.format is None and job.collection.share.of == 1:
        require_ending(table.path)
    record_path = job.record_path(table)
    if table is not None and job.is_finished(table, record_path):
        return _tell_finished(table, job, wanted)
    pictures = job.collection.pictures()  # raises for what does not exist, before models are loaded
    models = wanted.load(alt_text=job.format in ALT_TEXTS)
    skip = job.on_existing == SKIP
    details = table.details if table is not None else Details()
    plan = Plan(models, wanted.shape, arguments.batch_size, skip, job.retry_failed, details)
    names = [model.name for model, _ in models]
    files = job.files(names)
    with Record(record_path) as record, Interrupts() as interrupts:
        complete = job.begin(record, table, wanted.settings(models), names)
        counting = Counting(job.collection.count)
        counting.start()
        progress = Progress(counting)

        def failed(name: str, error: CaptionerError) -> None:
            progress.tell(told(name, str(error)))

        run = Run(plan, record, files, key=table.key if table else str, failed=failed, progress=progress.show)
        try:
            ended = run(pictures, interrupts)
        finally:
            progress.tell(f"captioner: {summary(run.tally, progress.seconds)}")
        if not ended:
            progress.tell(f"captioner: stopped; the same command goes on, {record_path} remembers where")
            return STOPPED
        for hint in hints(run.tally, recursive=arguments.recursive):
            progress.tell(f"captioner: {hint}")
        failures, first = record.counts().get(FAILED, 0), record.failures(NAMED)
        if complete and not (run.tally.captioned or run.tally.failed):
            record.remove()
        else:
            job.finish(record, table)
    if failures > run.tally.failed:
        _tell_failures(failures - run.tally.failed, first)
    return 1 if failures else 0


def _wanted(arguments: argparse.Namespace) -> Wanted:
    return Wanted(
        tuple(arguments.models or ["words"]),
        decoding_of(arguments, "n_best"),
        Shape(arguments.prefix, arguments.suffix, arguments.max_length, arguments.sentence),
        **network_of(arguments),
    )


def _job(arguments: argparse.Namespace) -> Job:
    share = Share() if arguments.shard is None else Share.parse(arguments.shard)
    return Job(
        Collection(tuple(arguments.inputs), tuple(arguments.lists), arguments.recursive, share),
        arguments.format or format_of(arguments.output if share.of == 1 else None),  # else that is a folder
        arguments.output,
        arguments.on_existing,
        arguments.retry_failed,
        arguments.progress,
    )


def _tell_finished(table: Table, job: Job, wanted: Wanted) -> int:
    """What is to be said of a share that was captioned before; the exit code."""
    names = [read_info(resolve(name)).name for name in wanted.names]
    rows = [json.loads(entry.lines[0].text) for entry, _ in job.kept(table, names) if entry.failed]
    _tell(f"{table.path} is finished")
    if rows:
        _tell_failures(len(rows), rows[:NAMED])
    return 1 if rows else 0


def _tell_failures(number: int, first: Sequence[Mapping[str, Any]]) -> None:
    """Failures of earlier runs."""
    _tell(f"{number:,} failed in an earlier run; --retry-failed tries again")
    for row in first:
        print(told(row["image"], row["error"]), file=sys.stderr)
    if number > len(first):
        _tell(f"and {number - len(first):,} more")


def _tell(message: str) -> None:
    print(f"captioner: {message}", file=sys.stderr)
