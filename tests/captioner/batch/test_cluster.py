"""A cluster of two machines, which are processes of this one, under Ray: what dies, and what comes of it.

Ray takes many seconds to start, and to notice that a machine is gone: what needs none of that is tested in
test_cluster_driver.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

from clustered import KILLED_WITH, caption, rows
from installed import needs_runtime
from running import KILLED, write_pictures

import captioner
from captioner.batch.cluster.options import Cluster
from captioner.batch.cluster.sessions import ENVIRONMENT, LOCAL
from captioner.batch.models import Wanted
from captioner.batch.plan import Tally
from captioner.batch.texts import Shape
from captioner.errors import OptionError
from captioner.graphs import graphs_of

pytestmark = [
    needs_runtime,
    pytest.mark.skipif(sys.platform != "linux", reason="Ray's clusters for tests need Linux"),
    # Ray Data, of its own settings
    pytest.mark.filterwarnings("ignore:.*deprecated.*:DeprecationWarning:ray.data.context"),
]

STORE = 100 << 20  # bytes, of what is on its way
MACHINE = {"num_cpus": 2, "object_store_memory": STORE, "include_log_monitor": False}
LOST = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}


class Machines:
    """A head without workers, and two machines with room for two each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster as Started

        head = {"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False}
        self._cluster = Started(initialize_head=True, head_node_args={**head, "_system_config": LOST})
        self.nodes = [self._cluster.add_node(wait=False, **MACHINE) for _ in range(2)]
        self._cluster.wait_for_nodes()
        self.address = self._cluster.address

    def workers(self, node: Any) -> list[str]:
        """What runs on a machine and captions."""
        return [told for told in map(_told, _children(_raylet(node))) if "_Actor" in told]

    def kill(self, node: Any) -> None:
        """End all processes of a machine, as if its power had failed."""
        self._cluster.remove_node(node, allow_graceful=False)

    def shutdown(self) -> None:
        """End all of them."""
        self._cluster.shutdown()


def _raylet(node: Any) -> int:
    number: int = node.all_processes["raylet"][0].process.pid
    return number


def _children(parent: int) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if int((path / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]) == parent:
                yield int(path.name)
        except OSError:  # it has ended
            pass


def _told(process: int) -> str:
    return Path(f"/proc/{process}/cmdline").read_text(encoding="utf-8", errors="replace")


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        for name, value in {**ENVIRONMENT, "RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": folder}.items():
            patch.setenv(name, value)
        Path(folder, "ray").mkdir()
        machines = Machines()
        yield machines
        machines.shutdown()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of many pictures, some of which are none, some the same, one not there and some in an archive."""
    folder = tmp_path_factory.mktemp("photos")
    paths = write_pictures(folder, 96)
    for number in (3, 40):
        paths[number].write_bytes(b"no picture")
    shutil.copy(paths[5], paths[6])
    paths[50].unlink()
    with tarfile.open(folder / "shard.tar", "w") as archive:
        for path in write_pictures(folder / "more", 40, first=200):
            archive.add(path, arcname=path.name)
    listed = folder / "list"
    listed.write_text("\n".join(map(str, [*paths[:48], folder / "shard.tar", *paths[48:]])), encoding="utf-8")
    return listed


@pytest.fixture(scope="module")
def killed(machines: Machines, photos: Path, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run in which one of two machines died."""
    output = tmp_path_factory.mktemp("killed") / "out"
    victim = machines.nodes[1]
    found: list[str] = []

    def kill(tally: Tally) -> None:
        if not found:
            assert tally.done < 100
            found.extend(machines.workers(victim))
            machines.kill(victim)

    with graphs_of(tiny_model_dir):  # are made before several processes want them
        done = caption(
            tiny_model_dir, output, list=photos, progress=kill, cluster=Cluster(machines.address, workers=2, cpus=1)
        )
    assert found, "the machine had a worker"
    assert done.ended
    assert (done.tally.captioned, done.tally.failed, done.tally.duplicates) == (133, 3, 1)
    return output


def test_a_machine_that_dies_costs_nothing_but_time(killed: Path, photos: Path, tiny_model_dir: Path) -> None:
    model = captioner.load(tiny_model_dir, device="cpu", threads=1)
    paths = [Path(line) for line in photos.read_text(encoding="utf-8").splitlines() if not line.endswith(".tar")]
    members = sorted((photos.parent / "more").iterdir())
    expected = [result.to_row() for result in model.batch([*paths[:48], *members, *paths[48:]])]
    found = rows(killed)
    names = [*map(str, paths[:48]), *(f"{photos.parent}/shard.tar/{path.name}" for path in members)]
    assert [row["image"] for row in found] == [*names, *map(str, paths[48:])]
    for row, own in zip(found, expected, strict=True):
        if "error" in own:
            assert row["code"] == own["code"]
        else:
            (caption_,), (other,) = row["captions"], own["captions"]
            assert (caption_["text"], caption_["tokens"]) == (other["text"], other["tokens"])
            assert caption_["score"] == pytest.approx(other["score"], abs=2e-4)


def test_other_settings_are_refused_before_anything_is_asked_of_the_cluster(
    killed: Path, photos: Path, tiny_model_dir: Path
) -> None:
    with pytest.raises(OptionError, match="--prefix was"):
        caption(tiny_model_dir, killed, list=photos, wanted=Wanted([str(tiny_model_dir)], shape=Shape("A ")))


def test_a_driver_that_is_killed_is_followed_by_one_that_finishes(
    machines: Machines, killed: Path, photos: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    """The second one has a cluster of its own, of which nothing stays behind."""
    output = tmp_path / "out"
    done = _command(machines.address, photos, tiny_model_dir, output, {KILLED_WITH: str(output)})
    assert done.returncode == KILLED, done.stderr
    before = {path.name: path.stat().st_mtime_ns for path in output.glob("part-*.parquet")}
    assert 0 < len(before) < 7

    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        (home := tmp_path / "home").mkdir()
        done = _command(LOCAL, photos, tiny_model_dir, output, {"RAY_TMPDIR": folder, "HOME": str(home)})
        assert done.returncode == 1, done.stderr  # some pictures failed
        assert not list(Path(folder).iterdir())
        assert not list(home.rglob("*"))
        _wait_until_nobody_runs(folder)
    assert not done.stdout
    assert all(line.startswith("captioner: ") or "pictures (" in line for line in done.stderr.splitlines()), done.stderr
    assert {name: time_ for name, time_ in _times(output).items() if name in before} == before
    assert rows(output) == rows(killed)


def _times(output: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in output.glob("part-*.parquet")}


def _command(
    address: str, photos: Path, model: Path, output: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    options = ["--ray", address, "--ray-workers", 1, "--ray-cpus", 1, "--part-size", 16, "--batch-size", 4]
    given = ["batch", "--list", photos, "--output", output, "--model", model, *options]
    program = Path(__file__).with_name("clustered.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    if address == LOCAL:
        del environment["RAY_AUTH_MODE"]
    command = [sys.executable, program, *map(str, given)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def _wait_until_nobody_runs(folder: str) -> None:
    """Ray's helpers end by themselves once what they help has ended."""
    for _ in range(600):
        running = [path.name for path in Path("/proc").glob("[0-9]*") if folder in _command_line(path)]
        if not running:
            return
        time.sleep(0.1)
    pytest.fail(f"still there: {running}")


def _command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
