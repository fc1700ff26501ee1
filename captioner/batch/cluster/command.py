"""``captioner batch --ray``: what it takes, and what it says while a cluster works and at the end."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from captioner.batch.choices import APPEND, OVERWRITE, SKIP
from captioner.batch.cluster.driver import caption_on_cluster
from captioner.batch.cluster.options import PART_SIZE, Output, cluster_of
from captioner.batch.dealing import Collection
from captioner.batch.interrupts import STOPPED, Interrupts
from captioner.batch.models import Wanted
from captioner.batch.plan import Tally
from captioner.batch.progress import Counting, Progress, summary, told
from captioner.config import require

FORMAT = "parquet"
LOST_SLASHES = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/(?!/)")
NO_SERVERS = ("file", "local")


def cluster_command(arguments: argparse.Namespace, wanted: Wanted) -> int:
    """Run on a cluster what the command line asks for; returns the exit code.

    Args:
        arguments: of ``captioner batch``, with those of :func:`captioner.batch.cluster.options.add_arguments`.
        wanted: the models that they ask for.

    Raises:
        CaptionerError: they do not go together, or it cannot be done.
    """
    _check(arguments)
    collection = Collection(tuple(arguments.inputs), tuple(arguments.lists), arguments.recursive)
    output = Output(
        _place(arguments.output),
        PART_SIZE if arguments.part_size is None else arguments.part_size,
        afresh=arguments.on_existing == OVERWRITE,
        retry_failed=arguments.retry_failed,
    )
    cluster = cluster_of(arguments)
    counting = Counting(collection.count)
    counting.start()
    progress = Progress(counting)
    tally = Tally()

    def show(now: Tally) -> None:
        nonlocal tally
        tally = now
        progress.show(now)

    def failed(name: str, reason: str) -> None:
        progress.tell(told(name, reason))

    with Interrupts() as interrupts, _nothing_printed():
        try:
            done = caption_on_cluster(
                collection,
                output,
                cluster=cluster,
                wanted=wanted,
                batch_size=arguments.batch_size,
                interrupts=interrupts,
                failed=failed,
                progress=show,
            )
            tally = done.tally
        finally:
            if tally.done:
                progress.tell(f"captioner: {summary(tally, progress.seconds)}")
    if not done.ended:
        progress.tell("captioner: stopped; the same command goes on with the parts that are missing")
        return STOPPED
    before = done.failures - tally.failed
    if before > 0:
        progress.tell(f"captioner: {before:,} failed in an earlier run; --retry-failed tries again")
    return 1 if done.failures else 0


def _check(arguments: argparse.Namespace) -> None:
    require(bool(arguments.inputs or arguments.lists), "give an INPUT, or a --list of them")
    require(arguments.output is not None, "give --output FOLDER, or a URL, for the parts that a cluster makes")
    require(arguments.format in (None, FORMAT), f"a cluster writes {FORMAT}: leave --format {arguments.format} out")
    require(arguments.shard is None, "a cluster deals the pictures out itself: leave --shard out")
    require(arguments.progress is None, "a cluster's record is its output: leave --progress out")
    require(arguments.threads is None, "--ray-cpus says how many cores each worker has: leave --threads out")
    require(arguments.on_existing != APPEND, "parts are made once: choose --on-existing skip or overwrite")
    require(
        not (arguments.retry_failed and arguments.on_existing != SKIP),
        f"--retry-failed goes on with what is there: leave --on-existing {arguments.on_existing} out",
    )


def _place(output: str | Path) -> str:
    """A folder's path or URL; a URL that has come as a path has lost a slash, or two."""
    return LOST_SLASHES.sub(lambda found: f"{found[1]}:{'///' if found[1] in NO_SERVERS else '//'}", os.fspath(output))


@contextlib.contextmanager
def _nothing_printed() -> Iterator[None]:
    """Standard output is lost: Ray tells there of machines that come and go."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
