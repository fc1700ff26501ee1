"""The machine that measures, in words."""

from __future__ import annotations

import contextlib
import platform
from pathlib import Path


def processor() -> str:
    """What the kernel calls the processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
