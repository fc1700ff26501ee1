"""Does a run that is killed leave a trace? Kills with -9 at random moments, and the last output compared byte by byte.

    python benchmarks/kill.py [--kills 20] [--pictures 300] [--model words] [--seed 1] [--formats jsonl txt ...]

For each kind of output one run goes through; then, in a copy of the pictures, runs are killed until there were so many
kills. Whenever one of them comes to its end, everything that lies there is compared, and the next one begins anew. A
last one is left alone. Ends with 1 if there was a difference.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pictures import write_pictures

KINDS = {
    "jsonl": ["photos", "--output", "out.jsonl"],
    "csv": ["photos", "--output", "out.csv", "--n-best", "2"],
    "html": ["photos", "--output", "out.html"],
    "txt": ["photos", "--format", "txt"],
    "xmp": ["photos", "--format", "xmp"],
    "embed": ["photos", "--format", "embed"],
    "tar to jsonl": ["shards/*.tar", "--output", "out.jsonl"],
    "tar to txt": ["shards/*.tar", "--format", "txt", "--output", "to"],
}
SHARDS = 3
FAILED = 1  # the exit code of a run that came to its end: some pictures are none
MOST_RUNS = 10  # for each kill


@dataclass
class Result:
    """What came of one kind of output."""

    kills: int = 0
    working: int = 0  # of the kills, those of a run that had recorded something
    ends: int = 0
    differences: int = 0


def main() -> int:
    """Kill, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of each kind of output")
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--model", default="words", help="a bundled model's name or a model directory [words]")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument("--formats", nargs="+", choices=KINDS, default=list(KINDS))
    arguments = parser.parse_args()
    print("| output | kills | after something was recorded | runs that ended | differences |\n|---|---|---|---|---|")
    differences = 0
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source")
        prepare(source, arguments.pictures)
        for kind in arguments.formats:
            result = try_kind(arguments, kind, source, Path(folder, kind.replace(" ", "-")))
            print(f"| {kind} | {result.kills} | {result.working} | {result.ends} | {result.differences} |", flush=True)
            differences += result.differences
    return 1 if differences else 0


def prepare(folder: Path, count: int) -> None:
    """Pictures in a folder and in archives; some are duplicates, and some no pictures."""
    photos = folder / "photos"
    photos.mkdir(parents=True)
    paths = write_pictures(photos, count)
    for number in range(17, count, 17):
        shutil.copy(paths[number // 2], paths[number])
    for number in range(5, count, 41):
        paths[number].write_bytes(b"no picture")
    (folder / "shards").mkdir()
    for number in range(SHARDS):
        with tarfile.open(folder / f"shards/{number}.tar", "w") as archive:
            for path in paths[number::SHARDS]:
                archive.add(path, arcname=path.name)


def try_kind(arguments: argparse.Namespace, kind: str, source: Path, folder: Path) -> Result:
    """Kill runs with one kind of output."""
    moments, result = random.Random(f"{arguments.seed} {kind}"), Result()
    whole, broken = folder / "whole", folder / "broken"
    command = [sys.executable, "-m", "captioner.cli", "batch", *KINDS[kind], "--model", arguments.model]
    command += ["--batch-size", str(arguments.batch_size), "--progress", "record.progress"]
    shutil.copytree(source, whole)
    began = time.perf_counter()
    require_end(command, whole)
    seconds = time.perf_counter() - began
    expected = tree(whole)
    shutil.copytree(source, broken)
    for _ in range(arguments.kills * MOST_RUNS):
        if result.kills == arguments.kills:
            break
        before = recorded(broken)
        with subprocess.Popen(command, cwd=broken, stderr=subprocess.DEVNULL) as process:
            try:
                code = process.wait(moments.uniform(0.2, 0.6) * seconds)
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                result.kills += 1
                result.working += recorded(broken) != before
                continue
        compare(code, broken, expected, result)
        shutil.rmtree(broken)
        shutil.copytree(source, broken)
    compare(require_end(command, broken), broken, expected, result)
    return result


def recorded(folder: Path) -> list[tuple[str, int, int]]:
    """The state of the record's files."""
    paths = sorted(folder.glob("record.*"))
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]


def compare(code: int, folder: Path, expected: dict[str, bytes], result: Result) -> None:
    """Count an end, and what is different there."""
    result.ends += 1
    found = tree(folder)
    different = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
    result.differences += len(different) + (code != FAILED)
    for name in different[:5]:
        print(f"{name} is different", file=sys.stderr)


def require_end(command: Sequence[str], folder: Path) -> int:
    """Let a run come to its end.

    Raises:
        SystemExit: it does not.
    """
    done = subprocess.run(command, cwd=folder, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != FAILED:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.returncode


def tree(folder: Path) -> dict[str, bytes]:
    """The content of all files by their paths, but for the record, which says when it was written."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if "record." not in path.name}


if __name__ == "__main__":
    sys.exit(main())
