"""Groups through Ray Data: read by tasks, captioned by a pool of actors, as they come.

Encoded bytes travel, not pixels: they are a tenth of the size. What Ray moves is one pickled group a block, so that
nothing is regrouped on the way.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from captioner.batch.cluster.captioning import Answer, Work, Worker
from captioner.batch.cluster.options import Cluster
from captioner.batch.cluster.parts import Group
from captioner.batch.cluster.reading import Filled, fill
from captioner.errors import CaptionerError

if TYPE_CHECKING:
    import pyarrow
    from ray.data import Dataset

COLUMN = "pickled"
BLOCK = 1 << 20  # bytes after which Ray begins another block, if it can
# What a worker asks of each of its cores: less than one, and such that no number of workers takes a machine as a whole,
# so that reading tasks always find room beside them.
SHARE_OF_CORE = 0.9001
READER_CPUS = 0.05
READERS = 1  # for each worker


class LostError(Exception):
    """Workers died, or were waited for in vain: what is missing has to be asked for again."""


def room(cluster: Cluster) -> int:
    """How many workers the machines of the cluster have room for now."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(
        int(min(node.get("CPU", 0) / cluster.cpus, node.get("GPU", 0) / cluster.gpus if cluster.gpus else float("inf")))
        for node in nodes
    )


def answers(groups: Sequence[Group], work: Work, cluster: Cluster, workers: int, size: int) -> Iterator[Answer]:
    """Have groups captioned; what becomes of them comes as it is done, in any order.

    Args:
        groups: which.
        work: how.
        cluster: what each worker has.
        workers: how many.
        size: pictures that are captioned together.

    Raises:
        LostError: not all of them can be had like this.
        CaptionerError: the workers refuse: they have other models, or no such option.
    """
    from ray.data.exceptions import ExecutionTimeoutError, SystemException
    from ray.exceptions import RayError

    captioned = _captioned(groups, work, cluster, workers, size)
    try:
        for table in captioned.iter_batches(prefetch_batches=0, batch_size=None, batch_format="pyarrow"):
            for answer in _unpacked(table):
                if isinstance(answer, CaptionerError):
                    raise answer
                yield answer
    except (RayError, ExecutionTimeoutError, SystemException) as error:
        cause = getattr(error, "cause", None) or error  # what a task or an actor has raised
        raise LostError(f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}") from error


def _captioned(groups: Sequence[Group], work: Work, cluster: Cluster, workers: int, size: int) -> Dataset:
    import ray
    from ray.data import DataContext

    pickled = [{COLUMN: pickle.dumps(group)} for group in groups]
    with DataContext.current(_context(cluster)):
        return (
            ray.data.from_items(pickled, override_num_blocks=len(pickled))
            .map_batches(
                partial(_read, size=size),
                batch_size=None,
                batch_format="pyarrow",
                num_cpus=READER_CPUS,
                concurrency=READERS * workers,
            )
            .map_batches(
                _Actor,
                fn_constructor_args=(work,),
                batch_size=1,  # with accelerators Ray Data wants a number
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=workers),
                num_cpus=SHARE_OF_CORE * cluster.cpus,
                num_gpus=cluster.gpus,
            )
        )


def _context(cluster: Cluster) -> Any:
    from ray.data import DataContext

    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = BLOCK
    context.raise_original_map_exception = True
    context.execution_no_progress_timeout_s = cluster.patience
    return context


# What is raised in a task or an actor, Ray makes something else of: why nothing can be done travels as a value.


def _read(table: pyarrow.Table, size: int) -> Iterator[pyarrow.Table]:
    for group in _unpacked(table):
        try:
            yield from map(_packed, fill(group, size))
        except CaptionerError as error:  # such as a package for URLs that is missing on this machine
            yield _packed(error)


class _Actor:
    """A worker, as Ray Data calls it."""

    def __init__(self, work: Work) -> None:
        self._worker: Worker | CaptionerError
        try:
            self._worker = Worker(work)
        except CaptionerError as error:
            self._worker = error

    def __call__(self, table: pyarrow.Table) -> Iterator[pyarrow.Table]:
        yield from map(_packed, map(self._answer, _unpacked(table)))

    def _answer(self, filled: Filled | CaptionerError) -> Answer | CaptionerError:
        worker = self._worker
        if isinstance(worker, CaptionerError):
            return worker
        if isinstance(filled, CaptionerError):
            return filled
        try:
            return worker(filled)
        except CaptionerError as error:
            return error


def _packed(value: object) -> pyarrow.Table:
    import pyarrow

    return pyarrow.table({COLUMN: pyarrow.array([pickle.dumps(value)], pyarrow.large_binary())})


def _unpacked(table: pyarrow.Table) -> Iterator[Any]:
    for pickled in table.column(COLUMN):
        yield pickle.loads(pickled.as_py())
