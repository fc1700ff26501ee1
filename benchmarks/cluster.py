"""What a cluster makes of machines: images a second of one worker and of two, beside a run without Ray.

    python benchmarks/cluster.py [--workers 1 2] [--cores 1] [--images DIR] [--pictures 4096] [--beam-size N]

Each machine of the cluster is a set of processes that are kept to cores of their own (Linux alone), the run without
Ray is kept to as many; Ray's head and the driver have all cores, as there is no other machine for them. Contenders
take turns. Starting is told apart: a rate is that between the first group of pictures and the last, and so are the
processor's milliseconds a picture, of all processes that there are to it. These tell what it costs even while others
use the machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from pictures import find_pictures, write_pictures
from speed_parts.tables import table

from captioner.batch.cluster.driver import caption_on_cluster
from captioner.batch.cluster.options import Cluster, Output
from captioner.batch.cluster.sessions import ENVIRONMENT
from captioner.batch.dealing import Collection
from captioner.batch.interrupts import Interrupts
from captioner.batch.models import Wanted
from captioner.batch.plan import Plan, Tally
from captioner.batch.record import Record
from captioner.batch.run import Run
from captioner.cores import VARIABLE, processor

STORE = 500 << 20  # bytes of each machine's memory for what is on its way


@dataclass
class Clock:
    """When how many pictures were done.

    Attributes:
        workers: how many are at work. What is measured begins when that many groups are done, as by then each has done
            one.
        began: as all of it began.
        seen: seconds since then, pictures, seconds for which the model was at work, and the processor's.
    """

    workers: int = 1
    began: float = field(default_factory=time.perf_counter)
    seen: list[tuple[float, int, float, float]] = field(default_factory=list)

    def __call__(self, tally: Tally) -> None:
        """Note what a run has done."""
        self.seen.append((time.perf_counter() - self.began, tally.new, tally.busy, processor_seconds()))

    @property
    def _between(self) -> tuple[float, float, float, float]:
        """From when each worker has done something to the last time."""
        return tuple(after - before for before, after in zip(self.seen[self.workers - 1], self.seen[-1], strict=True))  # type: ignore

    @property
    def rate(self) -> float:
        """Pictures a second."""
        seconds, pictures, _, _ = self._between
        return pictures / seconds

    @property
    def share(self) -> float:
        """For how much of the time the model was at work."""
        seconds, _, busy, _ = self._between
        return busy / seconds

    @property
    def cost(self) -> float:
        """Milliseconds of the processor a picture."""
        _, pictures, _, processor_ = self._between
        return 1000 * processor_ / pictures


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments()
    wanted = Wanted([arguments.model], {"beam_size": arguments.beam_size} if arguments.beam_size else {})
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        photos.mkdir()
        paths = find_pictures(arguments.images) if arguments.images else write_pictures(photos, arguments.pictures)
        listed = Path(folder) / "list"
        listed.write_text("\n".join(map(str, paths[: arguments.pictures])), encoding="utf-8")
        collection = Collection((), (str(listed),))
        clocks = measure(arguments, wanted, collection)
    print(f"- machine: {processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end")
    print(f"- Python {platform.python_version()}, ray {ray_version()}, model {arguments.model}, batches of 32")
    print(f"- {min(len(paths), arguments.pictures)} pictures, {arguments.rounds} rounds, the median of each\n")
    print(report(clocks))


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="words", help="a bundled model's name or a model directory [words]")
    parser.add_argument("--images", type=Path, metavar="DIR", help="JPEG files [made up, 224 × 224]")
    parser.add_argument("--pictures", type=int, default=4096, help="how many of them [4096]")
    parser.add_argument("--beam-size", type=int, metavar="N", help="hypotheses kept [the model's own]")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="machines, each with a worker [1 2]")
    parser.add_argument("--cores", type=int, default=1, help="of each machine [1]")
    parser.add_argument("--rounds", type=int, default=2, help="each contender's turns [2]")
    return parser.parse_args()


def measure(arguments: argparse.Namespace, wanted: Wanted, collection: Collection) -> dict[str, list[Clock]]:
    """Every contender's turns."""
    cores = arguments.cores
    contenders: dict[str, Callable[[], Clock]] = {
        f"no Ray, {told(cores, 'core')}": lambda: without_ray(wanted, collection, cores)
    }
    for number in arguments.workers:
        name = f"{told(number, 'worker')} of {told(cores, 'core')}"
        contenders[name] = lambda number=number: on_cluster(wanted, collection, number, cores)
    clocks: dict[str, list[Clock]] = {name: [] for name in contenders}
    for turn in range(arguments.rounds):
        for name, contender in contenders.items():
            print(f"round {turn + 1}: {name}", file=sys.stderr, flush=True)
            clocks[name].append(contender())
    return clocks


def without_ray(wanted: Wanted, collection: Collection, cores: int) -> Clock:
    """The loop of ``captioner batch`` on some cores of this machine."""
    os.environ[VARIABLE] = str(cores)
    with kept_to(range(cores)), Record(Path(":memory:")) as record:
        clock = Clock()
        plan = Plan(Wanted(wanted.names, wanted.decoding, threads=cores).load())
        Run(plan, record, progress=clock)(collection.pictures(), Interrupts())
    return clock


def on_cluster(wanted: Wanted, collection: Collection, machines: int, cores: int) -> Clock:
    """A cluster with a worker on each machine."""
    with cluster(machines, cores) as address, tempfile.TemporaryDirectory() as folder:
        clock = Clock(machines)
        there = Cluster(address, workers=machines, cpus=cores)
        caption_on_cluster(collection, Output(folder), cluster=there, wanted=wanted, progress=clock)
    return clock


@contextmanager
def cluster(machines: int, cores: int) -> Iterator[str]:
    """Machines that are processes here, kept to cores of their own; the address of their head."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        os.environ |= {**ENVIRONMENT, "RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": folder}
        Path(folder, "ray").mkdir()
        from ray.cluster_utils import Cluster as Started

        started = Started(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            for machine in range(machines):
                with kept_to(range(machine * cores, (machine + 1) * cores)):
                    started.add_node(num_cpus=cores, object_store_memory=STORE)
            yield started.address
        finally:
            started.shutdown()


@contextmanager
def kept_to(cores: range) -> Iterator[None]:
    """This thread, and what it starts, is kept to some of the cores that it may use; counted round."""
    usable = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {usable[core % len(usable)] for core in cores})
    try:
        yield
    finally:
        os.sched_setaffinity(0, usable)


def processor_seconds() -> float:
    """What this process has had of the processor, with all that it has started and these have, ended ones included."""
    parents: dict[int, int] = {}
    used: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        parents[int(path.parent.name)] = int(fields[1])
        used[int(path.parent.name)] = sum(map(int, fields[11:15]))  # proc(5): utime, stime, cutime, cstime
    own, more = set(), {os.getpid()}
    while more:
        own |= more
        more = {child for child, parent in parents.items() if parent in more}
    return sum(used.get(process, 0) for process in own) / os.sysconf("SC_CLK_TCK")


def report(clocks: dict[str, list[Clock]]) -> str:
    """A table in Markdown."""
    rates = {name: median(clock.rate for clock in own) for name, own in clocks.items()}
    base = next(iter(rates.values()))
    rows = [
        [
            name,
            f"{rates[name]:.1f}",
            f"{rates[name] / base:.2f}",
            f"{median(clock.cost for clock in own):.1f}",
            f"{median(clock.share for clock in own):.0%}",
            f"{median(clock.seen[0][0] for clock in own):.1f}",
        ]
        for name, own in clocks.items()
    ]
    return table(
        ["", "images/s", "× no Ray", "processor ms an image", "model busy", "s until the first are done"], rows
    )


def told(number: int, what: str) -> str:
    """``1 core``, ``2 cores``."""
    return f"{number} {what}{'s' * (number != 1)}"


def ray_version() -> str:
    """Of what was measured."""
    import ray

    return str(ray.__version__)


if __name__ == "__main__":
    main()
