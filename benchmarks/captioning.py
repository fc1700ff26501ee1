"""What one photo costs: a cold command, and a warm model. Prints a table; all ratios are from this one run.

python benchmarks/captioning.py [--model words] [--repeats 5]
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

import captioner


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="words")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.jpg"
        photo.write_bytes(make_photo())
        print("| cold process | wall s, median | peak MiB | times the imports |\n|---|---|---|---|")
        measure_cold(arguments.model, photo, arguments.repeats)
    print("\n| warm model | ms per photo, median | times fp32, one photo |\n|---|---|---|")
    measure_warm(arguments.model, arguments.repeats)


def make_photo() -> bytes:
    """A 640 x 480 JPEG of coloured blotches, always the same."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def measure_cold(model: str, photo: Path, repeats: int) -> None:
    """The command from a cold process, beside a process that only imports torch and torchvision."""
    imports = [sys.executable, "-c", "import captioner.torchvision_compat, torchvision"]
    command = [sys.executable, "-m", "captioner.cli", "caption", "--model", model, str(photo)]
    runs = [(run_process(imports), run_process(command)) for _ in range(repeats)]  # in turn: drift hits both
    base = statistics.median(imported[0] for imported, _ in runs)
    for name, column in (("import torch, torchvision", 0), ("captioner caption photo.jpg", 1)):
        seconds = statistics.median(run[column][0] for run in runs)
        memory = max(run[column][1] for run in runs)
        print(f"| {name} | {seconds:.2f} | {memory:.0f} | {seconds / base:.2f} |")


def run_process(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak resident MiB of one process."""
    started = time.perf_counter()
    process = os.posix_spawn(
        command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    )
    _, status, usage = os.wait4(process, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    # The kernel counts in KiB on Linux, in bytes on macOS.
    return seconds, usage.ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def measure_warm(model: str, repeats: int) -> None:
    """JPEG bytes to caption, by precision, batch and beam."""
    photo = make_photo()
    base: float | None = None
    for precision in ("fp32", "bf16"):
        loaded = captioner.load(model, precision=precision)
        for beam_size, batch in ((1, 1), (3, 1), (3, 16)):

            def caption(loaded: captioner.Captioner = loaded, batch: int = batch, beam_size: int = beam_size) -> None:
                list(loaded.batch([photo] * batch, batch_size=batch, beam_size=beam_size))

            seconds = median_seconds(caption, repeats * 3) / batch
            base = base or seconds
            setting = f"{loaded.engine.name}, beam {beam_size}, batch {batch}"
            print(f"| {setting} | {seconds * 1e3:.1f} | {seconds / base:.2f} |")


def median_seconds(action: Callable[[], object], repeats: int) -> float:
    """Median wall time of ``action``, after one warm-up."""
    action()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


if __name__ == "__main__":
    main()
