"""How much of the model's own speed ``captioner batch`` keeps, and in how much memory.

    python benchmarks/batch.py [--pictures 10000] [--images DIR] [--size 500x375] [--model words] [--json FILE]

First whole runs, as library calls, take turns with the model alone on tensors that are decoded already, in batches of
the same size and with the same options: the share is the ratio of their rates, of elapsed and of the processor's time.
Then the command captions all of the pictures in a process of its own, which tells its rate, how busy the model was, and
the most memory it had. All pictures differ, so that none is a duplicate.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pictures import find_pictures, make_picture
from PIL import Image

import captioner
from captioner.batch.interrupts import Interrupts
from captioner.batch.outputs.formats import TABLES, make_files
from captioner.batch.outputs.places import Places
from captioner.batch.plan import Plan
from captioner.batch.record import Record
from captioner.batch.run import Run
from captioner.batch.sources import find
from captioner.captioner import Captioner
from captioner.cores import processor, usable_cores
from captioner.decoding import DecodingOptions
from captioner.images import load_pixels

BASES = 64  # pictures that the others are made of
DECODING = ("beam_size", "rank")
SHOWN_EVERY = 1000


@dataclass(frozen=True)
class Turn:
    """Rates in pictures a second: of the model alone, of a run; the run's and the model's seconds of processor each."""

    alone: float
    batch: float
    alone_processor: float
    batch_processor: float
    busy: float

    @property
    def share(self) -> float:
        """Of the model's own rate that a run has."""
        return self.batch / self.alone

    @property
    def processor_share(self) -> float:
        """Of a run's work that is the model's."""
        return self.alone_processor / self.batch_processor


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        photos = Path(folder, "photos")
        size = make_pictures(photos, arguments)
        model = captioner.load(arguments.model, precision=arguments.precision, threads=arguments.threads)
        given = {name: getattr(arguments, name) for name in DECODING}
        options = model.options(**{name: value for name, value in given.items() if value is not None})
        facts = describe(arguments, model, options, size)
        for name, fact in facts.items():
            print(f"{name}: {fact}")
        turns = list(take_turns(arguments, model, options, photos))
        whole = run_command(arguments, photos, Path(folder)) if arguments.pictures else ""
    print(report(turns))
    print(f"\nthe command, on all of them: {whole}")
    if arguments.json:
        values = {"facts": facts, "turns": [asdict(turn) for turn in turns], "command": whole}
        arguments.json.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--images", type=Path, metavar="DIR", help="JPEG files to make them of [made up]")
    parser.add_argument("--size", default="500x375", metavar="WxH", help="of pictures that are made up")
    parser.add_argument("--model", default="words", help="a bundled model's name or a model directory [words]")
    parser.add_argument("--format", default="jsonl", choices=("jsonl", "csv", "parquet", "txt", "xmp"))
    parser.add_argument("--beam-size", type=int)
    parser.add_argument("--rank")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--turn", type=int, default=512, help="pictures in a turn")
    parser.add_argument("--scratch", type=Path, help="where the pictures are written to [the system's place]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    return parser.parse_args()


def make_pictures(folder: Path, arguments: argparse.Namespace) -> int:
    """Write pictures that all differ: a few, shifted by so many pixels. Returns their bytes on average."""
    width, height = map(int, arguments.size.split("x"))
    if arguments.images:
        sources = [path.read_bytes() for path in find_pictures(arguments.images)[:BASES]]
    else:
        sources = [make_picture(number, width, height, 0.5 + 0.3 * (number % 7) / 6) for number in range(BASES)]
    bases = [np.asarray(Image.open(io.BytesIO(source)).convert("RGB")) for source in sources]
    folder.mkdir()
    total = 0
    for number in range(arguments.pictures):
        base = bases[number % len(bases)]
        shift = number // len(bases)
        moved = np.roll(base, (shift % base.shape[0], shift // base.shape[0]), axis=(0, 1))
        path = folder / f"{number:07}.jpg"
        Image.fromarray(moved).save(path, quality=90)
        total += path.stat().st_size
        if number % SHOWN_EVERY == 0:
            tell(f"making pictures: {number:,}")
    return total // arguments.pictures


def describe(arguments: argparse.Namespace, model: Captioner, options: DecodingOptions, size: int) -> dict[str, str]:
    """What one must know to read the figures."""
    made = f"of {arguments.images.name}" if arguments.images else f"made up, {arguments.size}"
    return {
        "machine": f"{processor()}, {usable_cores()} cores to use, load {os.getloadavg()[0]:.1f} before the start",
        "model": f"{model.name} in {model.engine.name}, beam {options.beam_size} ranked by {options.rank}",
        "pictures": f"{arguments.pictures:,} JPEGs {made}, {size / 1024:.0f} KiB on average",
        "run": f"chunks of {arguments.batch_size}, to {arguments.format}",
    }


def take_turns(
    arguments: argparse.Namespace, model: Captioner, options: DecodingOptions, photos: Path
) -> Iterator[Turn]:
    """The model alone, a run, the model alone again; and so on, with other pictures."""
    paths = sorted(photos.iterdir())
    for number in range(arguments.turns):
        start = number * arguments.turn % max(1, len(paths) - arguments.turn + 1)
        part = paths[start : start + arguments.turn]
        pixels = [load_pixels(path, model.info.image) for path in part]

        def alone(pixels: list[Any] = pixels) -> None:
            for first in range(0, len(pixels), arguments.batch_size):
                model.caption_pixels(pixels[first : first + arguments.batch_size], options, spread=True)

        if number == 0:
            alone()  # to warm up
        before = timed(alone)
        run = Timed(arguments, model, options, part)
        during = timed(run)
        after = timed(alone)
        elapsed, worked = (statistics.mean(pair) for pair in zip(before, after, strict=True))
        count = len(part)
        yield Turn(count / elapsed, count / during[0], worked / count, during[1] / count, run.busy / during[0])
        tell(f"turn {number + 1} of {arguments.turns}")


class Timed:
    """A whole run over some pictures, from opening its record to writing its output."""

    def __init__(
        self, arguments: argparse.Namespace, model: Captioner, options: DecodingOptions, paths: Sequence[Path]
    ) -> None:
        self.busy = 0.0
        self._plan = Plan([(model, options)], batch_size=arguments.batch_size)
        self._format, self._paths, self._model = arguments.format, [*map(str, paths)], model.name

    def __call__(self) -> None:
        """Caption them."""
        with tempfile.TemporaryDirectory() as folder, Record(Path(folder, "record")) as record:
            record.begin({}, afresh=True)
            output, files = Path(folder, "out"), None
            if self._format not in TABLES:
                places = Places(self._paths, output)
                files = make_files(self._format, places, [self._model], append=False, copies=False)
            run = Run(self._plan, record, files)
            run(find(self._paths), Interrupts())
            if self._format in TABLES:
                TABLES[self._format](output).write(record.lines())
            self.busy = run.tally.busy


def timed(action: Any) -> tuple[float, float]:
    """Seconds that passed, and seconds of processor."""
    began, worked = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - began, time.process_time() - worked


def run_command(arguments: argparse.Namespace, photos: Path, folder: Path) -> str:
    """What ``captioner batch`` says at its end, of all pictures."""
    tell("the command, on all pictures")
    command = [sys.executable, "-m", "captioner.cli", "batch", str(photos), "--model", arguments.model]
    command += ["--format", arguments.format, "--output", str(folder / "out"), "--precision", arguments.precision]
    command += ["--batch-size", str(arguments.batch_size), "--progress", str(folder / "record")]
    for name in (*DECODING, "threads"):
        if (value := getattr(arguments, name)) is not None:
            command += [f"--{name.replace('_', '-')}", str(value)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    *_, last = done.stderr.splitlines() or ["nothing"]
    return last.removeprefix("captioner: ") if done.returncode == 0 else f"it failed: {last}"


def report(turns: Sequence[Turn]) -> str:
    """The table, in Markdown."""
    lines = [
        "\n| turn | model alone, pictures/s | run, pictures/s | share | model busy | share of the processor's work |",
        "|---|---|---|---|---|---|",
    ]
    for number, turn in enumerate(turns, start=1):
        lines.append(
            f"| {number} | {turn.alone:.1f} | {turn.batch:.1f} | {turn.share:.0%} | {turn.busy:.0%} "
            f"| {turn.processor_share:.0%} |"
        )
    share, processor_share = (
        statistics.median(values)
        for values in zip(*((turn.share, turn.processor_share) for turn in turns), strict=True)
    )
    lines.append(f"| median | | | {share:.0%} | | {processor_share:.0%} |")
    return "\n".join(lines)


def tell(message: str) -> None:
    """Progress, where it does not disturb the table."""
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
