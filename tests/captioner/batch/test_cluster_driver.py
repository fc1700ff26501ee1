"""A cluster's driver, with workers in this process: what is asked for again, what is gone on with, what is refused."""

from __future__ import annotations

import json
import shutil
import signal
import tarfile
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")

from clustered import caption, in_this_process, rows, without_ray
from installed import needs_runtime
from running import write_pictures

import captioner
from captioner.batch.cluster import driver, parts, sessions
from captioner.batch.cluster.captioning import Answer, Work, Worker
from captioner.batch.cluster.options import Cluster
from captioner.batch.cluster.parts import Group, Part
from captioner.batch.cluster.pipeline import LostError
from captioner.batch.cluster.reading import fill
from captioner.batch.interrupts import Interrupts
from captioner.batch.models import Wanted, digest
from captioner.batch.texts import Shape
from captioner.errors import CaptionerError, DependencyError, ModelError, OptionError

pytestmark = needs_runtime

Caption = Callable[..., Any]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Forty pictures, of which two are none and two show the same as another, and one more in a hidden file."""
    folder = tmp_path / "photos"
    paths = write_pictures(folder, 40)
    for number in (3, 33):
        paths[number].write_bytes(b"no picture")
    for number in (6, 20):
        shutil.copy(paths[5], paths[number])
    shutil.copy(paths[0], folder / "._000.jpg")
    return folder


@pytest.fixture
def run(tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Caption:
    """Captions into the folder ``out``, without Ray."""
    monkeypatch.setattr(sessions, "NEEDED", ("pyarrow",))
    without_ray(monkeypatch)
    return lambda *inputs, **changes: caption(tiny_model_dir, tmp_path / "out", *inputs, **changes)


def test_rows_are_those_of_a_local_run_in_parts_of_their_order(
    run: Caption, photos: Path, tmp_path: Path, tiny_model_dir: Path
) -> None:
    failed: list[str] = []
    done = run(photos, failed=lambda name, _: failed.append(name))
    assert (done.tally.captioned, done.tally.failed, done.failures, done.parts, done.ended) == (38, 2, 2, 3, True)
    assert done.tally.duplicates == 1  # 6, in a group with 5; 20 is in another part
    assert failed == [str(photos / "003.jpg"), str(photos / "033.jpg")]
    model = captioner.load(tiny_model_dir, device="cpu", threads=1)
    own = [result.to_row() for result in model.batch(sorted(photos.glob("[0-9]*.jpg")), batch_size=4)]
    found = rows(tmp_path / "out")
    assert [row["image"] for row in found] == [row["image"] for row in own]
    for row, other in zip(found, own, strict=True):
        if "error" in other:
            assert row["code"] == other["code"]
        else:
            (caption_,), (expected,) = row["captions"], other["captions"]
            assert (caption_["text"], caption_["tokens"]) == (expected["text"], expected["tokens"])
            assert caption_["score"] == pytest.approx(expected["score"], abs=2e-4)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text(encoding="utf-8"))
    assert (manifest["complete"], manifest["parts"], manifest["pictures"], manifest["failed"]) == (True, 3, 40, 2)


def test_answers_may_come_in_any_order(
    run: Caption, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(photos, part_size=40)
    whole = rows(tmp_path / "out")
    without_ray(monkeypatch, lambda *given: reversed(list(in_this_process(*given))))
    run(photos, part_size=40, afresh=True)
    assert rows(tmp_path / "out") == whole


def test_an_archive_is_a_part(run: Caption, photos: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        archive.add(photos, arcname="in")
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    listed = tmp_path / "list"
    names = [*sorted(photos.glob("00[0-2].jpg")), tmp_path / "shard.tar", tmp_path / "empty.tar", photos / "039.jpg"]
    listed.write_text("\n".join(map(str, names)), encoding="utf-8")
    done = run(list=listed)
    assert done.parts == 4
    assert (done.tally.captioned, done.tally.failed) == (42, 2)
    found = [row["image"] for row in rows(tmp_path / "out")]
    assert found[3:43] == [f"{tmp_path}/shard.tar/in/{number:03}.jpg" for number in range(40)]
    assert found[43:] == [str(photos / "039.jpg")]


def test_what_no_machine_sees_is_told_with_what_to_do(run: Caption, photos: Path, tmp_path: Path) -> None:
    run(tmp_path / "gone.jpg", photos / "000.jpg")
    first, second = rows(tmp_path / "out")
    assert first["code"] == "image_not_found"
    assert first["error"].endswith(
        "and that all machines of the cluster see it there: on a shared file system, or by a URL"
    )
    assert "error" not in second


def test_paths_mean_the_same_on_all_machines(
    run: Caption, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)

    def elsewhere(*given: Any) -> Iterator[Answer]:
        monkeypatch.chdir("/")
        return in_this_process(*given)

    without_ray(monkeypatch, elsewhere)
    assert run("photos").tally.captioned == 38
    assert rows(tmp_path / "out")[0]["image"] == "photos/000.jpg"


class Unreliable:
    """Workers of which all are lost after some answers, again and again."""

    def __init__(self, *lasts: int) -> None:
        self.asked: list[list[int]] = []
        self._lasts = iter(lasts)

    def __call__(self, groups: Sequence[Group], *given: Any) -> Iterator[Answer]:
        self.asked.append([16 * group.part + group.start for group in groups])
        left = next(self._lasts, len(groups))
        for answer in in_this_process(groups, *given):
            if not left:
                raise LostError("a machine is gone")
            left -= 1
            yield answer
            yield answer  # it comes again, from a worker that was thought to be dead


def test_lost_workers_are_asked_only_for_what_is_missing(
    run: Caption, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(photos, part_size=40)
    whole = rows(tmp_path / "out")
    workers = Unreliable(0, 0, 1, 0, 0)
    without_ray(monkeypatch, workers)
    done = run(photos, part_size=40, afresh=True)
    assert workers.asked == [[0, 32], [0, 32], [0, 32], [32], [32], [32]]
    assert (done.tally.captioned, done.tally.failed) == (38, 2)
    assert rows(tmp_path / "out") == whole


class Flickering:
    """Workers that read loads of five pictures; at first one picture is out of reach, and then they are lost."""

    def __init__(self, away: Path, loads: int) -> None:
        self.attempts = 0
        self._away, self._loads = away, loads

    def __call__(self, groups: Sequence[Group], work: Work, *_: Any) -> Iterator[Answer]:
        self.attempts += 1
        assert self.attempts < 4, "it goes on for ever"
        worker, most = Worker(work), 5 * self._away.stat().st_size
        filled = (load for group in groups for load in fill(group, 32, most))
        if self.attempts > 1:
            yield from map(worker, filled)
            return
        elsewhere = self._away.rename(self._away.with_suffix(".away"))
        some = list(islice(filled, self._loads))
        elsewhere.rename(self._away)
        yield from map(worker, some)
        raise LostError("a machine is gone")


@pytest.mark.parametrize("loads", [1, 2, 3])
def test_attempts_that_cut_a_group_in_other_places_give_each_picture_one_row(
    run: Caption, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loads: int
) -> None:
    first, *others = write_pictures(tmp_path / "photos", 20)
    for path in others:
        shutil.copy(first, path)  # all of one size
    workers = Flickering(others[1], loads)
    without_ray(monkeypatch, workers)
    failed: list[str] = []
    done = run(tmp_path / "photos", part_size=20, failed=lambda name, _: failed.append(name))
    found = rows(tmp_path / "out")
    assert [row["image"] for row in found] == [str(path) for path in (first, *others)]
    assert workers.attempts == 2
    failures = [row["image"] for row in found if "error" in row]
    assert (done.tally.captioned, done.tally.failed) == (20 - len(failures), len(failures))
    assert done.failures == len(failures)
    assert failed == failures
    manifest = json.loads((tmp_path / "out/manifest.json").read_text(encoding="utf-8"))
    assert (manifest["pictures"], manifest["failed"]) == (20, len(failures))


def test_answers_that_are_known_are_nothing_done(
    run: Caption, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = 0

    def answers(groups: Sequence[Group], work: Work, *_: Any) -> Iterator[Answer]:
        """Of an archive whose second load ends whoever captions it."""
        nonlocal attempts
        attempts += 1
        assert attempts < 10, "it goes on for ever"
        (group,) = groups
        yield Worker(work)(next(fill(group, 4)))
        raise LostError("killed")

    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        archive.add(photos, arcname="in")
    without_ray(monkeypatch, answers)
    with pytest.raises(CaptionerError, match="nothing gets done"):
        run(tmp_path / "shard.tar")


def test_a_large_collection_is_asked_for_in_waves(
    run: Caption, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "WAVE", 2 * 16)
    monkeypatch.setattr(parts, "ARCHIVE", 16)
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        archive.add(photos / "000.jpg", arcname="a.jpg")
    workers = Unreliable()
    without_ray(monkeypatch, workers)
    assert run(photos, tmp_path / "shard.tar").tally.captioned == 39
    assert workers.asked == [[0, 16], [32, 48]]


def test_a_cluster_that_gets_nothing_done_is_given_up(
    run: Caption, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_ray(monkeypatch, Unreliable(1, 0, 0, 0, 0, 0))
    with pytest.raises(
        CaptionerError, match=r"nothing gets done; .*016\.jpg to .*031\.jpg are next.*a machine is gone"
    ):
        run(photos)
    assert [path.name for path in (tmp_path / "out").glob("part-*")] == ["part-000000.parquet"]


def test_a_run_goes_on_with_the_parts_that_are_missing(run: Caption, photos: Path, tmp_path: Path) -> None:
    run(photos)
    whole = rows(tmp_path / "out")
    kept = tmp_path / "out/part-000002.parquet"
    before = kept.stat().st_mtime_ns
    (tmp_path / "out/part-000001.parquet").unlink()
    (tmp_path / "out/.part-000001.parquet.0123abcd.partial").write_bytes(b"half of it")
    done = run(photos)
    assert (done.tally.known, done.tally.captioned, done.tally.failed, done.failures) == (24, 16, 0, 2)
    assert rows(tmp_path / "out") == whole
    assert kept.stat().st_mtime_ns == before
    assert not list((tmp_path / "out").glob(".*"))


def test_a_run_that_is_complete_asks_nobody(run: Caption, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(photos)
    without_ray(monkeypatch, Unreliable(0, 0, 0, 0, 0))
    assert run(photos).tally.known == 40


def test_what_failed_is_tried_again_when_asked(run: Caption, photos: Path, tmp_path: Path) -> None:
    run(photos)
    shutil.copy(photos / "000.jpg", photos / "003.jpg")
    assert run(photos).failures == 2
    done = run(photos, retry_failed=True)
    assert (done.tally.known, done.tally.captioned, done.failures) == (16, 23, 1)  # by parts: two hold failures
    assert rows(tmp_path / "out")[3]["captions"] == rows(tmp_path / "out")[0]["captions"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"part_size": 8}, "--part-size was 16, not 8"),
        ({"prefix": "Seen: "}, '--prefix was "", not "Seen: "'),
        ({"beam_size": 1}, "--beam-size was "),
        ({"inputs": ("other",)}, "INPUT was "),
    ],
)
def test_other_settings_are_refused(
    run: Caption, photos: Path, tiny_model_dir: Path, changes: dict[str, Any], told: str
) -> None:
    run(photos)
    shutil.copytree(photos, photos.parent / "other")
    shape, decoding = Shape(changes.pop("prefix", "")), {k: changes.pop(k) for k in ("beam_size",) if k in changes}
    inputs = [photos.parent / name for name in changes.pop("inputs", ("photos",))]
    with pytest.raises(OptionError, match="was begun otherwise") as caught:
        run(*inputs, wanted=Wanted([str(tiny_model_dir)], decoding, shape), **changes)
    assert told in str(caught.value)


def test_other_pictures_are_refused(run: Caption, photos: Path, tmp_path: Path) -> None:
    run(photos)
    (photos / "039.jpg").rename(photos / "040.jpg")
    with pytest.raises(OptionError, match=r"part 2 .* was made from other pictures than are there now"):
        run(photos)
    for path in photos.glob("0[23]*.jpg"):
        path.unlink()
    (photos / "040.jpg").unlink()
    with pytest.raises(OptionError, match="part 1 "):
        run(photos)
    for path in photos.glob("01[6-9].jpg"):
        path.unlink()
    with pytest.raises(OptionError, match="part 2 "):  # of which nothing is left
        run(photos)
    assert run(photos, afresh=True).parts == 1
    assert [path.name for path in (tmp_path / "out").glob("part-*")] == ["part-000000.parquet"]


def test_a_run_that_is_told_to_stop_keeps_its_parts(run: Caption, photos: Path, tmp_path: Path) -> None:
    interrupts = Interrupts()

    def stop(_: object) -> None:
        interrupts.stopping = True

    done = run(photos, interrupts=interrupts, progress=stop)
    assert not done.ended
    assert [path.name for path in (tmp_path / "out").glob("part-*")] == ["part-000000.parquet"]
    assert json.loads((tmp_path / "out/manifest.json").read_text(encoding="utf-8"))["complete"] is False
    assert run(photos).tally.known == 16


def manifest_of(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "manifest.json").read_text(encoding="utf-8"))
    return found


def test_a_complete_output_that_is_gone_on_with_is_complete_no_longer(
    run: Caption, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(photos)
    (tmp_path / "out/part-000001.parquet").unlink()
    without_ray(monkeypatch, Unreliable(0, 0, 0, 0))
    with pytest.raises(CaptionerError, match="nothing gets done"):
        run(photos)
    assert manifest_of(tmp_path / "out").keys() == {"format", "format_version", "complete", "settings"}
    assert manifest_of(tmp_path / "out")["complete"] is False
    without_ray(monkeypatch)
    run(photos)
    assert manifest_of(tmp_path / "out")["complete"] is True


def test_a_manifest_stays_as_it_is_while_nothing_is_missing(run: Caption, photos: Path, tmp_path: Path) -> None:
    run(photos)
    (photos / "039.jpg").rename(photos / "040.jpg")
    with pytest.raises(OptionError, match="was made from other pictures"):
        run(photos)
    assert manifest_of(tmp_path / "out")["complete"] is True


def test_a_run_stops_while_it_lists_what_is_missing(
    run: Caption, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(photos)
    (tmp_path / "out/part-000000.parquet").unlink()
    listed = []
    digest_of = Part.digest.fget  # type: ignore[attr-defined]

    def digested(part: Part) -> str:
        listed.append(part.number)
        if part.number == 1:
            signal.raise_signal(signal.SIGINT)
        found: str = digest_of(part)
        return found

    monkeypatch.setattr(Part, "digest", property(digested))
    with Interrupts() as interrupts:
        done = run(photos, interrupts=interrupts)
    assert not done.ended
    assert listed == [1]
    assert not (tmp_path / "out/part-000000.parquet").exists()


def test_a_worker_wants_the_model_and_the_version_of_the_driver(tiny_model_dir: Path) -> None:
    wanted = Wanted([str(tiny_model_dir)])
    with pytest.raises(ModelError, match="another one than where the run was started"):
        Worker(Work(wanted, ["0" * 12], 4))
    with pytest.raises(CaptionerError, match="install the same version on all machines"):
        Worker(Work(wanted, [digest(str(tiny_model_dir))], 4, version="0.0.0"))


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tiny_model_dir: Path, tmp_path: Path) -> None:
    monkeypatch.setattr(sessions, "find_spec", lambda name: None if name == "ray" else name)
    with pytest.raises(DependencyError, match=r"ray must be installed: pip install 'captioner\[ray\]'"):
        caption(tiny_model_dir, tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_cluster_without_room_is_told(run: Caption, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "room", lambda _: 0)
    with pytest.raises(OptionError, match="no machine of the cluster has 2 cores: give fewer with --ray-cpus"):
        run(photos, cluster=Cluster())
