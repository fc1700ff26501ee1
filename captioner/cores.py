"""The processor, and how many of its cores this process may really use: a container's limit counts, not the machine's.

The one place that decides it, for the networks' threads, the decoding of pictures and the service.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")
VARIABLE = "OMP_NUM_THREADS"  # obeyed by torch and most other libraries


def usable_cores(root: Path = ROOT, *, processes: int = 1) -> int:
    """Cores by affinity, by the quotas of this process's control groups (cgroup v2 and v1) and by ``OMP_NUM_THREADS``.

    Whichever is least, rounded down: a quota of 1.5 cores counts as one, as a second busy thread would only use it up
    sooner, and then all wait.

    Args:
        root: of the file system.
        processes: that share them evenly; what ``OMP_NUM_THREADS`` says is said of each.
    """
    quota = min(_quotas(root), default=float("inf"))
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get(VARIABLE, "").partition(",")[0].strip()  # a list has a number for each level of nesting
    most = int(wanted) if wanted.isdigit() and int(wanted) else allowed
    return max(1, min(int(min(allowed, quota)) // processes, most))


def processor() -> str:
    """What the kernel calls the processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _quotas(root: Path) -> Iterator[float]:
    """The quota of each control group from this process's own up to the root, in cores."""
    mount = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = mount / "cpu" if controllers else mount
        group = base / path.lstrip("/")
        # Inside a container the path may be the host's, and the container's own group the root.
        for folder in (group, *group.parents):
            if not folder.is_relative_to(base):
                break
            quota, period = (
                (_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))
                if controllers
                else (*_read(folder / "cpu.max").split(), "", "")[:2]
            )
            if quota.isdigit() and period.isdigit() and int(period):
                yield int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
