"""What docs/scale.md tells to copy is valid, and names things that exist."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from captioner.batch.dealing import Share
from captioner.cli import make_parser

GUIDE = (Path(__file__).parent.parent / "docs" / "scale.md").read_text(encoding="utf-8")
LINKS = re.findall(r"\]\((?!https?:)([^)#]+)\)", GUIDE)
SHARE = "3/1024"
VARIABLES = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_CPUS_PER_TASK": "2", "JOB_COMPLETION_INDEX": "3"}


def blocks(language: str) -> list[str]:
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)
    assert found, f"there is no block in {language}"
    return found


MANIFESTS = [yaml.safe_load(block) for block in blocks("yaml")]
(RAY_JOB,) = [manifest for manifest in MANIFESTS if manifest["kind"] == "RayJob"]
(JOB,) = [manifest for manifest in MANIFESTS if manifest["kind"] == "Job"]
(SLURM,) = blocks("bash")
(MAKEFILE,) = blocks("make")


@pytest.fixture(scope="module")
def parser() -> argparse.ArgumentParser:
    return make_parser()


@pytest.fixture
def recorder(tmp_path: Path) -> dict[str, str]:
    """An environment whose ``captioner`` notes its arguments and writes the file of its share, but fails."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, body in {
        "captioner": 'echo "$@" >> "$NOTES"; mkdir -p captions; touch "captions/captions-$FILE.parquet"; exit 1',
        "srun": 'exec "$@"',
    }.items():
        path = programs / name
        path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        path.chmod(0o755)
    (tmp_path / "notes").touch()
    return {"PATH": f"{programs}:{os.environ['PATH']}", "NOTES": str(tmp_path / "notes"), **VARIABLES}


def commands(text: str) -> Iterator[list[str]]:
    for line in text.replace("\\\n", " ").splitlines():
        if found := re.search(r"\bcaptioner (batch [^`&#]*)", line):
            yield shlex.split(found[1])


@pytest.mark.parametrize("link", LINKS)
def test_links_lead_somewhere(link: str) -> None:
    assert (Path("docs") / link).exists()


def test_the_guide_has_links() -> None:
    assert LINKS


def test_commands_are_understood(parser: argparse.ArgumentParser) -> None:
    told = [RAY_JOB["spec"]["entrypoint"], *blocks("sh"), GUIDE[GUIDE.index("## What to measure first") :]]
    found = [command for text in told for command in commands(text)]
    assert len(found) == 3
    for command in found:
        parser.parse_args(command)
    assert sum("--ray" in command for command in found) == 2


def asked(parser: argparse.ArgumentParser, recorder: dict[str, str]) -> argparse.Namespace:
    notes = Path(recorder["NOTES"]).read_text(encoding="utf-8").splitlines()
    return parser.parse_args(shlex.split(notes[0]))


@pytest.mark.parametrize("finished", [True, False])
def test_the_slurm_script_captions_its_share(
    parser: argparse.ArgumentParser, recorder: dict[str, str], tmp_path: Path, finished: bool
) -> None:
    subprocess.run(["bash", "-n"], input=SLURM, text=True, check=True)
    settings = dict(line.split("=", 1) for line in re.findall(r"^#SBATCH --(\S+=\S+)$", SLURM, flags=re.MULTILINE))
    assert settings["array"].startswith(f"0-{int(SHARE.split('/')[1]) - 1}%")
    environment = {**recorder, "FILE": "00003-of-01024" if finished else "00004-of-01024"}
    done = subprocess.run(["bash", "-c", SLURM], cwd=tmp_path, env=environment, check=False)
    assert (done.returncode == 0) is finished  # whatever the command itself says, which failed pictures make fail
    given = asked(parser, recorder)
    assert (given.shard, given.threads, given.lists) == (SHARE, 2, ["shards.txt"])


@pytest.mark.parametrize("finished", [True, False])
def test_the_job_captions_its_share(
    parser: argparse.ArgumentParser, recorder: dict[str, str], tmp_path: Path, finished: bool
) -> None:
    spec: dict[str, Any] = JOB["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert (JOB["apiVersion"], spec["completionMode"]) == ("batch/v1", "Indexed")
    assert spec["completions"] == int(SHARE.split("/")[1])
    assert spec["template"]["spec"]["restartPolicy"] == "Never"  # backoffLimitPerIndex wants that
    (script,) = container["args"]
    script = script.replace("/job/", f"{tmp_path}/")
    environment = {**recorder, "FILE": "00003-of-01024" if finished else "00004-of-01024"}
    done = subprocess.run([*container["command"], script], cwd=tmp_path, env=environment, check=False)
    assert (done.returncode == 0) is finished
    assert asked(parser, recorder).shard == SHARE
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"]: "/job" for volume in spec["template"]["spec"]["volumes"]}


def test_the_job_hands_the_signal_on(tmp_path: Path) -> None:
    (container,) = JOB["spec"]["template"]["spec"]["containers"]
    program = tmp_path / "captioner"
    program.write_text(
        "#!/bin/bash\ntrap 'echo told >> \"$NOTES\"; exit 130' TERM\nkill -TERM $PPID\n"
        "for _ in {1..300}; do sleep 0.1; done\n",
        encoding="utf-8",
    )
    program.chmod(0o755)
    environment = {**VARIABLES, "PATH": f"{tmp_path}:{os.environ['PATH']}", "NOTES": str(tmp_path / "notes")}
    done = subprocess.run([*container["command"], *container["args"]], env=environment, check=False)
    assert done.returncode
    assert (tmp_path / "notes").read_text(encoding="utf-8") == "told\n"


def test_the_ray_job_has_a_head_without_workers() -> None:
    cluster = RAY_JOB["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    for group in (cluster["headGroupSpec"], workers):
        (container,) = group["template"]["spec"]["containers"]
        assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"]


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make")
def test_make_makes_every_share_that_is_missing(parser: argparse.ArgumentParser, tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text(MAKEFILE, encoding="utf-8")
    (tmp_path / "captions").mkdir()
    (tmp_path / "captions/captions-00008-of-00064.parquet").touch()
    done = subprocess.run(
        ["make", "--dry-run", "-k"], cwd=tmp_path, capture_output=True, text=True, check=True, env={"PATH": os.defpath}
    )
    lines = done.stdout.replace("\\\n", " ").splitlines()
    shares = []
    for line in lines:
        if "captioner batch" in line:
            shell = subprocess.run(
                ["sh", "-c", re.sub(r".*captioner batch", "printf '%s\\\\0' batch", line)],
                capture_output=True,
                text=True,
                check=True,
            )
            shares.append(parser.parse_args(shell.stdout.rstrip("\0").split("\0")).shard)
    assert [Share.parse(share) for share in shares] == [Share(number, 64) for number in range(64) if number != 8]
    assert sum(line.startswith("test -e captions/captions-") for line in lines) == 63


def test_the_plan_adds_up() -> None:
    """The example of the plan, from its own figures."""
    plan = GUIDE[GUIDE.index("## The plan") :]
    rates = re.findall(r"^\| .+ \| (\d+\.\d) \| ([\d,]+) \|$", plan[: plan.index("Add what")], flags=re.MULTILINE)
    assert len(rates) == 4
    for rate, hours in rates:
        assert float(hours.replace(",", "")) == pytest.approx(2e9 / float(rate) / 3600, rel=0.02)
    cells = dict(re.findall(r"^\| ([^|]+?) \| .* \| ([^|]+?) \|$", plan, flags=re.MULTILINE))
    terms, total = re.fullmatch(r"\((.+)\) × 1\.1 = ([\d,]+)", cells["core-hours"]).groups()  # type: ignore[union-attr]
    hours, used = (sum(float(term) for term in text.replace(",", "").split(" + ")) for text in (total, terms))
    assert hours == pytest.approx(used * 1.1, rel=0.01)
    assert cells["computing"] == f"${hours * 0.04:.0f}"
    assert cells["time"] == f"1,024 cores: {hours / 1024:.1f} hours"
    rate = 1e9 / (hours / 1024 * 3600)
    assert cells["rate"] == f"{round(rate, -3):,.0f} images/s"
    assert cells["network"].startswith(f"{rate * 67 * 1024 * 8 / 1e9:.0f} Gbit/s in all, ")
    assert f"{rate * 67 * 1024 * 8 / 1e6 / 512:.0f} Mbit/s" in cells["network"]
    assert cells["collection"] == f"67 KiB: {67 * 1024 / 1e3:.0f} TB"
