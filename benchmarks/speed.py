"""What a caption costs: one run's tables in Markdown, beside captioners of transformers, and beside the arithmetic.

    python benchmarks/speed.py [--model words] [--images DIR] [--no-baselines] [--quick] [--json FILE]

Everything runs on the CPU, with as many threads each. What is compared takes turns, and every ratio is from this one
run. benchmarks/README.md tells how each figure is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from pictures import LARGE, find_pictures, make_picture, write_pictures
from speed_parts import floor, ours, tables
from speed_parts.processes import caption_alone, run_process
from speed_parts.timing import in_turns

import captioner
from captioner import Captioner
from captioner.checkpoint import resolve
from captioner.cores import processor, usable_cores
from captioner.model import skeleton

BEAMS = (1, 3, 10)
PACKAGES = ("torch", "openvino", "onnxruntime", "transformers", "numpy", "pillow")
SINGLE = 24  # pictures that are captioned one at a time, in turn


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        pictures: to caption in batches.
        rounds: of batches, of a process of its own.
        turns, seconds: of each contender with one photo, and how long each turn is.
        batches: sizes.
        usual_batch: the size of which shares of the time are told.
        matrix: rows of the matrices that the machine multiplies.
        others: how many of those beside.
        layers: of the transformers beside; all of them, or it is no measurement.
    """

    pictures: int = 256
    rounds: int = 3
    turns: int = 12
    seconds: float = 0.3
    batches: tuple[int, ...] = (1, 8, 16, 32, 64)
    usual_batch: int = 32
    matrix: int = 2048
    others: int = 6
    layers: int = 12


QUICK = Effort(8, rounds=1, turns=2, seconds=0.05, batches=(1, 4), usual_batch=4, matrix=512, others=1, layers=1)


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # for the command, too, which chooses its device
    torch.set_num_threads(arguments.threads)
    effort = QUICK if arguments.quick else Effort()
    with tempfile.TemporaryDirectory() as folder:
        paths = prepare_pictures(arguments, effort, Path(folder))
        figures = measure(arguments, effort, paths)
    print(tables.report(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="words", help="a bundled model's name or a model directory [words]")
    parser.add_argument("--images", type=Path, metavar="DIR", help="JPEG files [made up, 224 × 224]")
    parser.add_argument("--engines", nargs="+", choices=ours.ENGINES, default=ours.ENGINES)
    parser.add_argument("--precisions", nargs="+", choices=ours.PRECISIONS, default=ours.PRECISIONS)
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of all contenders [all cores]")
    parser.add_argument("--no-baselines", action="store_true", help="ours alone")
    parser.add_argument("--quick", action="store_true", help="see in seconds whether all runs; the figures say nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    return parser.parse_args()


def prepare_pictures(arguments: argparse.Namespace, effort: Effort, folder: Path) -> list[Path]:
    """The pictures to caption, absolute paths."""
    if arguments.images:
        return [path.resolve() for path in find_pictures(arguments.images)][: effort.pictures]
    tell("making pictures")
    return write_pictures(folder, effort.pictures)


def measure(arguments: argparse.Namespace, effort: Effort, paths: list[Path]) -> dict[str, Any]:
    """All figures of a run."""
    facts = describe(arguments, effort, paths)  # first: before anything here loads the machine
    loaded, missing = ours.load_all(arguments.model, arguments.threads, arguments.engines, arguments.precisions)
    names = [] if arguments.no_baselines else other_names(missing)[: effort.others]
    figures: dict[str, Any] = {"facts": facts, "missing": missing, "others": names}
    photos = [path.read_bytes() for path in paths[:SINGLE]]
    figures["processes"] = measure_processes(arguments, effort, paths[0], list(loaded), names)
    figures["one photo"] = measure_one_photo(effort, loaded, photos)
    figures["contenders"], figures["parameters"] = measure_contenders(effort, loaded, names, photos)
    figures["batches"] = list(measure_batches(effort, loaded, paths))
    figures["shares"] = list(measure_shares(effort, loaded, paths))
    tell("multiplying matrices")
    figures["matrix rates"] = floor.matrix_rates(effort.matrix, repeats=10)
    figures["flops"] = list(count_flops(figures["shares"], loaded))
    return figures


def describe(arguments: argparse.Namespace, effort: Effort, paths: list[Path]) -> dict[str, str]:
    """What one must know to read the figures."""
    versions = []
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions.append(f"{name} {version(name)}")
    size = sum(path.stat().st_size for path in paths) / len(paths) / 1024
    kind = f"JPEGs from {arguments.images.name}" if arguments.images else "made-up JPEGs of 224 × 224"
    own = captioner.load(arguments.model, device="cpu", threads=arguments.threads)
    facts = {
        "machine": f"{processor()}, {usable_cores()} cores to use, load {os.getloadavg()[0]:.1f} before the start",
        "software": ", ".join([f"Python {platform.python_version()}", *versions]),
        "model": f"{own.name}, whose own decoding is a beam of {own.info.decoding.beam_size} ranked by "
        f"{own.info.decoding.rank}; loaded without a choice it runs in {own.engine.name}",
        "threads of each contender": str(arguments.threads),
        "pictures": f"{len(paths)} {kind}, {size:.0f} KiB on average",
    }
    return {"SMOKE RUN": "its figures say nothing", **facts} if effort is QUICK else facts


def other_names(missing: dict[str, str]) -> list[str]:
    """What is measured beside ours; nothing, and a reason among the missing, without transformers."""
    if importlib.util.find_spec("transformers") is None:
        missing["captioners of transformers"] = "it is not installed; requirements-bench.txt names it"
        return []
    from speed_parts.others import DTYPES, OTHERS

    return [f"{name} {precision}" for name in OTHERS for precision in DTYPES]


def measure_processes(
    arguments: argparse.Namespace, effort: Effort, photo: Path, mine: list[str], names: list[str]
) -> dict[str, list[dict[str, float]]]:
    """Processes of their own, in turn: the command, what it imports, and each contender loading and captioning."""
    threads = arguments.threads
    model = str(resolve(arguments.model))
    own = {"OMP_NUM_THREADS": str(threads)}
    imports = [sys.executable, "-c", "import captioner.torchvision_compat, torchvision"]
    command = [sys.executable, "-m", "captioner.cli", "caption", "--model", model, str(photo)]
    runs: dict[str, Callable[[], Any]] = {
        "import torch, torchvision": partial(run_process, imports, own),
        "captioner caption photo.jpg": partial(run_process, command, own),
    }
    for name in mine:
        what = [str(photo), "ours", model, *name.split()]
        runs[name] = partial(caption_alone, what, threads)
    for name in names:
        what = [str(photo), "others", *name.split(), str(effort.layers)]
        runs[name] = partial(caption_alone, what, threads)
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    for turn in range(effort.rounds):
        for name, run in runs.items():
            tell(f"process {turn + 1} of {effort.rounds}: {name}")
            taken[name].append(asdict(run()))
    return taken


def measure_one_photo(
    effort: Effort, loaded: dict[str, Captioner], photos: list[bytes]
) -> dict[str, dict[str, list[float]]]:
    """Ours in turn, by setting and name: seconds from the bytes of a JPEG to its caption."""
    decoding = next(iter(loaded.values())).info.decoding
    large = [make_picture(0, *LARGE)]
    settings: dict[str, tuple[list[bytes], dict[str, Any]]] = {
        "beam 3": (photos, {"beam_size": 3}),
        f"own decoding (beam {decoding.beam_size}, {decoding.rank})": (photos, {}),
        "12 megapixels, beam 3": (large, {"beam_size": 3}),
    }
    taken = {}
    for setting, (given, options) in settings.items():
        tell(f"one photo, {setting}")
        actions = {name: partial(own, **options) for name, own in loaded.items()}
        taken[setting] = in_turns(actions, given, effort.turns, effort.seconds)
    return taken


def measure_contenders(
    effort: Effort, loaded: dict[str, Captioner], names: list[str], photos: list[bytes]
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Ours and others in turn, beam 3: seconds from the bytes of a JPEG, and numbers of parameters."""
    if not names:
        return {}, {}
    from speed_parts.others import Other

    tell("making the others")
    others = {name: Other(name.split()[0], name.split()[1], effort.layers) for name in names}
    parameters = dict.fromkeys(loaded, count_parameters(next(iter(loaded.values()))))
    parameters |= {name: other.parameters for name, other in others.items()}
    actions = {name: partial(own, beam_size=3) for name, own in loaded.items()}
    tell("one photo, ours and others in turn")
    return in_turns({**actions, **others}, photos, effort.turns, effort.seconds), parameters


def count_parameters(own: Captioner) -> int:
    """Of our network, whatever engine runs it."""
    return sum(parameter.numel() for parameter in skeleton(own.info.model).parameters())


def measure_batches(effort: Effort, loaded: dict[str, Captioner], paths: list[Path]) -> Iterator[dict[str, Any]]:
    """Images a second from files, for each beam and size of batch."""
    for beam in BEAMS:
        for batch in effort.batches:
            tell(f"batches of {batch}, beam {beam}")
            rates = ours.batch_rates(loaded, paths, batch, beam, effort.rounds)
            for name, own in rates.items():
                yield {"name": name, "beam": beam, "batch": batch, "rates": own}


def measure_shares(effort: Effort, loaded: dict[str, Captioner], paths: list[Path]) -> Iterator[dict[str, Any]]:
    """Where the time goes: one photo at a time, and in batches."""
    for name, own in loaded.items():
        tell(f"shares of the time: {name}")
        for size, beam in [(1, 3), *((effort.usual_batch, beam) for beam in BEAMS)]:
            some = paths[:SINGLE] if size == 1 else paths[: 4 * size]
            row = asdict(ours.shares(own, some, size, beam_size=beam))
            setting = f"beam {beam}, batch {size}"
            yield {"name": name, "setting": setting, "beam": beam, "batch": size, "pictures": len(some), **row}


def count_flops(shares: list[dict[str, Any]], loaded: dict[str, Captioner]) -> Iterator[dict[str, Any]]:
    """Operations of a caption in batches, of as many steps as were taken."""
    for row in shares:
        if row["batch"] > 1:
            flops = floor.caption_flops(loaded[row["name"]].info, row["beam"], row["steps_taken"])
            yield {"name": row["name"], "beam": row["beam"], "flops": flops}


def tell(message: str) -> None:
    """Progress, where it does not disturb the tables."""
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
