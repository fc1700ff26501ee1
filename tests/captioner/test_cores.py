"""Cores that a container's control groups leave."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from captioner.cores import usable_cores

MACHINE = 8


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(MACHINE)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, MACHINE),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, MACHINE),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "350000 100000"}, 3),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "9900000 100000"}, MACHINE),
        (
            {
                "proc/self/cgroup": "0::/kubepods/pod1/box",
                "sys/fs/cgroup/kubepods/pod1/cpu.max": "300000 100000",
                "sys/fs/cgroup/kubepods/pod1/box/cpu.max": "max 100000",
            },
            3,
        ),
        # The path is the host's, the container sees its own group as the root.
        ({"proc/self/cgroup": "0::/docker/abc", "sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
        (
            {
                "proc/self/cgroup": "5:memory:/a\n4:cpu,cpuacct:/docker/abc",
                "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us": "400000",
                "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            4,
        ),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "nonsense"}, MACHINE),
        ({"proc/self/cgroup": "0::/../..", "sys/fs/cgroup/cpu.max": "200000 0"}, MACHINE),
    ],
)
def test_quotas_are_heeded(tmp_path: Path, files: dict[str, str], cores: int) -> None:
    assert usable_cores(write(tmp_path, files)) == cores


def test_processes_share_the_cores_but_each_has_its_wish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_cores(tmp_path, processes=2) == MACHINE // 2
    assert usable_cores(tmp_path, processes=100) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert usable_cores(tmp_path, processes=2) == 3


def test_affinity_counts_where_it_is_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0})
    files = {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "200000 100000"}
    assert usable_cores(write(tmp_path, files)) == 1


@pytest.mark.parametrize(
    ("wanted", "cores"), [("3", 3), ("2,1", 2), ("64", MACHINE), ("0", MACHINE), ("many", MACHINE), ("", MACHINE)]
)
def test_a_wish_for_fewer_threads_is_obeyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str, cores: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    assert usable_cores(tmp_path) == cores
