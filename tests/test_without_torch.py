"""What captions exported models does so in an interpreter that has neither torch nor what else training alone needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from installed import HAS_TORCH, missing, needs_runtime

import captioner
from captioner.checkpoint import BUNDLED
from captioner.graphs import graphs_of

ROOT = Path(__file__).parent.parent
ENGINE = "torch" if HAS_TORCH else "auto"  # what to compare with
# The library's own modules that are about torch, or what exports with it; all others are imported without it.
OF_TORCH = {
    "captioner.encoder",
    "captioner.engines.torch_engine",
    "captioner.export",
    "captioner.rewriting.fusion",
    "captioner.rewriting.graph",
    "captioner.rewriting.quantisation",
    "captioner.model",
    "captioner.torchvision_compat",
}
BLOCK = """
import sys
for name in sys.argv.pop(1).split():
    sys.modules[name] = None
"""
TRAINING = "torch torchvision onnx nltk sympy tqdm tensorboard"
SERVING = "flask gunicorn prometheus_client werkzeug"

COMMAND = """
from captioner.cli import main
sys.exit(main(sys.argv[1:]))
"""

SERVICE = """
import json
import time
from pathlib import Path

from service.app import create_app
from service.config import ServiceConfig

app = create_app(ServiceConfig(models=(sys.argv[1],), cores=1))
client = app.test_client()
for _ in range(600):
    if client.get("/health/ready").status_code == 200:
        break
    time.sleep(0.1)
print(json.dumps(client.post("/v1/caption", data=Path(sys.argv[2]).read_bytes()).get_json()))
"""

IMPORTS = """
from importlib import import_module

for module in sys.argv[1:]:
    import_module(module)
"""


def run(code: str, blocked: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter of its own, where importing these packages fails as if they were not installed."""
    command = [sys.executable, "-W", "error", "-c", BLOCK + code, blocked, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, **environment}
    )


@needs_runtime
def test_the_command_captions_with_the_bundled_model(photo: Path, bundled: None) -> None:
    expected = captioner.load("words", engine=ENGINE)(photo).text
    with graphs_of(BUNDLED / "words"):  # exported now, unless they were before
        done = run(COMMAND, f"{TRAINING} {SERVING}", "caption", photo)
    assert done.stdout == f"{photo}\t{expected}\n", done.stderr
    assert done.returncode == 0


@needs_runtime
def test_the_command_says_what_is_missing_where_there_are_no_graphs(
    photo: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    done = run(COMMAND, TRAINING, "caption", photo, "--model", tiny_model_dir, CAPTIONER_CACHE=str(tmp_path / "none"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("captioner: ")
    assert "captioner export" in done.stderr
    assert "captioner[torch]" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "none").exists()


@needs_runtime
def test_the_service_captions(photo: Path, tiny_model_dir: Path) -> None:
    with graphs_of(tiny_model_dir):
        done = run(SERVICE, TRAINING, tiny_model_dir, photo)
    assert done.returncode == 0, done.stderr
    reply = json.loads(done.stdout)
    expected = captioner.load(tiny_model_dir, engine=ENGINE)(photo)
    assert reply["results"][0]["captions"][0]["text"] == expected.text


def test_all_modules_that_are_not_about_torch_are_imported() -> None:
    files = [path for room in ("captioner", "service") for path in (ROOT / room).rglob("*.py")]
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}
    assert names.keys() > OF_TORCH
    done = run(IMPORTS, TRAINING, *sorted(name for name in names.keys() - OF_TORCH if not missing(names[name])))
    assert done.returncode == 0, done.stderr
    for module in OF_TORCH:
        assert run(IMPORTS, "torch torchvision onnx", module).returncode == 1, f"{module} needs no torch any more"
