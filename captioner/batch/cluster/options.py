"""Which cluster, which workers it is to have, where their rows go, and what the command line calls that."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from captioner.config import require

LOCAL = "local"
PART_SIZE = 8192
CPUS = 2
OF_A_CLUSTER = ("ray_workers", "ray_cpus", "ray_gpus", "part_size")


@dataclass(frozen=True)
class Cluster:
    """Where to run, and on which workers: processes with models of their own.

    Attributes:
        address: of its head, ``host:6379``; ``auto`` for the cluster that this machine belongs to; ``local`` for one of
            this machine alone, which ends with the run.
        workers: how many; None: as many as the machines have room for.
        cpus: cores of each.
        gpus: accelerators of each.
        patience: seconds without any progress after which workers that are waited for are given up.

    Raises:
        OptionError: a number is impossible.
    """

    address: str = LOCAL
    workers: int | None = None
    cpus: int = CPUS
    gpus: float = 0
    patience: float = 300.0

    def __post_init__(self) -> None:
        require(
            not self.address.startswith("ray://"),
            "Ray Data does not run at the other end of a ray:// address: give the command on a machine of the cluster, "
            "with ray job submit for instance, and --ray auto",
        )
        require(self.workers is None or self.workers >= 1, "--ray-workers must be at least 1")
        require(self.cpus >= 1, "--ray-cpus must be at least 1")
        require(self.gpus >= 0, "--ray-gpus must not be negative")
        require(self.gpus <= 1 or self.gpus == int(self.gpus), "--ray-gpus above 1 must be whole")


@dataclass(frozen=True)
class Output:
    """Where the rows go.

    Attributes:
        place: a folder's path or URL.
        part_size: pictures in a file.
        afresh: remove first what is there.
        retry_failed: caption those parts again that have pictures which failed.
    """

    place: str
    part_size: int = PART_SIZE
    afresh: bool = False
    retry_failed: bool = False

    def __post_init__(self) -> None:
        require(self.part_size >= 1, "--part-size must be at least 1")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``captioner batch`` that concern a cluster."""
    add = parser.add_argument_group("several machines").add_argument
    add("--ray", metavar="ADDRESS", help="of a Ray cluster, or local for one of this machine; --output is a folder")
    add("--ray-workers", type=int, metavar="N", help="processes that caption [as many as there is room for]")
    add("--ray-cpus", type=int, metavar="N", help=f"cores of each [{CPUS}]")
    add("--ray-gpus", type=float, metavar="N", help="accelerators of each, or a share of one [0]")
    add("--part-size", type=int, metavar="N", help=f"pictures in a file of the output [{PART_SIZE}]")


def require_no_cluster(arguments: argparse.Namespace) -> None:
    """Raise :class:`OptionError` for options that mean nothing without a cluster."""
    for name in OF_A_CLUSTER:
        option = f"--{name.replace('_', '-')}"
        require(getattr(arguments, name) is None, f"{option} is for a cluster: give --ray, too, or leave it out")


def cluster_of(arguments: argparse.Namespace) -> Cluster:
    """The cluster that the options name.

    Raises:
        OptionError: a number is impossible.
    """
    given = {name.removeprefix("ray_"): getattr(arguments, name) for name in OF_A_CLUSTER[:3]}
    return Cluster(arguments.ray, **{name: value for name, value in given.items() if value is not None})
