"""Several processes that train or evaluate as one: who they are, how work is shared out, what is told to all.

``torchrun`` starts the processes and tells each its place in the environment; :func:`group` joins them. Without it
there is one process, every function here does what its name says for one, and nothing of ``torch.distributed`` is set
up.

What is exchanged here are numbers and objects, through gloo; :mod:`training.replicas` exchanges gradients. All
processes must come by the same exchanges in the same order: a function that says so is called by all or by none.
"""

from __future__ import annotations

import gc
import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from typing import TypeVar, cast

import torch
from torch import distributed

from captioner.engines.torch_engine import pick_device
from captioner.errors import CaptionerError, DataError, OptionError

Item = TypeVar("Item")
Found = TypeVar("Found")

PLACE = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what a launcher tells a process of several
# One may compute features for hours while the others wait for it. Who has died is noticed without any limit: its
# connections break, and torchrun ends the rest.
PATIENCE = timedelta(days=7)
# So gloo's complaints begin, with a line of its sources. They have no class of their own.
BROKEN = re.compile(r"\[[^\]]*[/\\]gloo[/\\][^\]]*:\d+\]")


class PeerError(CaptionerError):
    """Another process has failed, and says why itself."""

    default_code = "process_failed"


@contextmanager
def group() -> Iterator[None]:
    """Be one of several processes, where a launcher such as torchrun says so; each has a GPU of its own, or none has.

    Raises:
        OptionError: there are more processes on this machine than GPUs.
        CaptionerError: another process has died.
    """
    if not all(name in os.environ for name in PLACE) or int(os.environ["WORLD_SIZE"]) < 2:
        yield
        return
    on_gpus = torch.cuda.is_available()
    if on_gpus:
        gpus = torch.cuda.device_count()
        if _place_on_machine() >= gpus:
            raise OptionError(f"each process needs a GPU, and there are {gpus}: start torchrun --nproc-per-node {gpus}")
        torch.cuda.set_device(_place_on_machine())
    # Imported later, as torch would, it has the group among the defaults of its functions, and nothing can end that.
    import_module("torch.distributed.nn")
    distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpus else "gloo", timeout=PATIENCE)
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and not BROKEN.search(str(error)):
            raise
        raise CaptionerError(
            "another process of this run has ended; where it has not said why, the system may have ended it",
            code="process_lost",
        ) from error
    # After an error there is no orderly end: others may wait in an exchange. The end of this process ends them.
    gc.collect()  # what held the group, and had done its work
    # This ends gloo's threads. One that outlives the interpreter, and lets go of a tensor then, aborts the process.
    distributed.destroy_process_group()


def processes() -> int:
    """How many there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_main() -> bool:
    """Whether this is the process that writes files and talks."""
    return rank() == 0


def device() -> torch.device:
    """Where this process computes."""
    return pick_device("cpu" if processes() > 1 and not torch.cuda.is_available() else None)


def part_of(count: int) -> slice:
    """Which of ``count`` things are this process's: as many as any other's, or one more or less."""
    return slice(count * rank() // processes(), count * (rank() + 1) // processes())


def gather(items: Sequence[Item]) -> list[Item]:
    """The items of all processes, those of the first in front; called by all."""
    if processes() == 1:
        return list(items)
    parts: list[list[Item]] = [[]] * processes()
    distributed.all_gather_object(parts, list(items))
    return [item for part in parts for item in part]


def total(number: float) -> float:
    """The sum of a number over all processes; called by all."""
    if processes() == 1:
        return number
    summed = torch.tensor(number, dtype=torch.float64)
    distributed.all_reduce(summed)
    return summed.item()


def average(number: float) -> float:
    """The mean of a number over all processes; called by all."""
    return total(number) / processes()


def agreed(work: Callable[[], Found]) -> Found:
    """What ``work`` returns here; called by all, and where it fails for one, all fail.

    Raises:
        CaptionerError, OSError: what ``work`` raised.
        PeerError: it raised that elsewhere.
    """
    if processes() == 1:
        return work()
    failure: CaptionerError | OSError | None = None
    try:
        found = work()
    except (CaptionerError, OSError) as error:
        failure = error
    failed = [number for number, well in enumerate(gather([failure is None])) if not well]
    if not failed:
        return found
    if failure is not None and failed[0] == rank():  # one message is enough
        raise failure
    raise PeerError(f"process {failed[0]} has failed")


def from_main(work: Callable[[], Found]) -> Found:
    """What ``work`` returns in the first process, which alone does it; called by all. Errors as of :func:`agreed`."""
    found = agreed(work if is_main() else lambda: cast(Found, None))
    if processes() == 1:
        return found
    holder = [found]
    distributed.broadcast_object_list(holder, src=0)
    return holder[0]


def first_of_machine_first(work: Callable[[], Found]) -> Found:
    """What ``work`` returns here, where one process of each machine does it before the others do.

    What that one leaves on disk is there for them. Called by all; errors as of :func:`agreed`.
    """
    if processes() == 1 or _place_on_machine() == 0:
        found = agreed(work)
        agreed(lambda: None)
        return found
    agreed(lambda: None)
    return agreed(work)


def require_same(what: str, value: object) -> None:
    """Refuse processes that differ: they would train another model each. Called by all.

    Args:
        what: the name of it, in the plural.
        value: of which every detail shows in its ``repr``.

    Raises:
        DataError: another process has another value.
    """
    mine = hashlib.sha256(repr(value).encode()).hexdigest() if processes() > 1 else ""
    first = from_main(lambda: mine)

    def compare() -> None:
        if mine != first:
            raise DataError(f"process {rank()} has other {what} than process 0: give all processes the same")

    agreed(compare)


def complain(command: str, error: Exception) -> None:
    """Print why a command fails; another process's failure is left to that one to tell."""
    if not isinstance(error, PeerError):
        # The first process's bar of progress may stand on the line.
        print(
            f"{command}: {error}" if is_main() else f"\n{command}: process {rank()}: {error}",
            file=sys.stderr,
            flush=True,
        )


def _place_on_machine() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))
