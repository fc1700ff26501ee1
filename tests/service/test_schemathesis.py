"""A live service under requests made up from its own description: it answers as it says it does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = 20  # made up for each operation, besides those at the edges of its ranges
SETTINGS = """
hooks = "made_up_pictures"
warnings = false

[phases.coverage]
unexpected-methods = []
generation.mode = "positive"

[checks]
enabled = false
not_a_server_error.enabled = true
status_code_conformance.enabled = true
content_type_conformance.enabled = true
response_schema_conformance.enabled = true
"""


def test_every_reply_is_as_described(address: str, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json"]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES), "--generation-deterministic"]
    command += ["--suppress-health-check", "all", "--continue-on-failure", "--no-color"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
