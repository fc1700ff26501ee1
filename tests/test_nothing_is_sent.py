"""What runs the networks sends nothing anywhere: both runtimes report to their makers unless they are kept from it.

They would first note an id of this user in his home directory. No network is needed to see that.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from installed import EACH_RUNTIME

from captioner.graphs import graphs_of

ASK_NOT_TO = ("ORT_DISABLE_TELEMETRY", "CI", "TF_BUILD", "JENKINS_URL", "XDG_CACHE_HOME")


@pytest.mark.parametrize("runtime", EACH_RUNTIME)
def test_a_runtime_leaves_no_trace_of_the_user(runtime: str, tiny_model_dir: Path, photo: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ASK_NOT_TO}
    command = [sys.executable, "-m", "captioner.cli", "caption", photo, "--model", tiny_model_dir, "--engine", runtime]
    with graphs_of(tiny_model_dir):
        subprocess.run(command, check=True, capture_output=True, env={**environment, "HOME": str(home)})
    assert not list(home.rglob("*"))
