"""What is shipped to run the service names things that exist. No container engine runs here: the files are read."""

from __future__ import annotations

import ast
import json
import re
import shlex
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask
from werkzeug.serving import make_server

from captioner import Captioner
from captioner.checkpoint import bundled_models
from captioner.cli import make_parser
from captioner.graphs import CACHE_VARIABLE, FOLDER
from service.app import create_app
from service.config import PREFIX, ServiceConfig, variable
from service.metrics import Metrics

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
DEPLOYMENT, SERVICE = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8"))
POD = DEPLOYMENT["spec"]["template"]["spec"]
CONTAINER = POD["containers"][0]
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "captioner.json").read_text(encoding="utf-8"))
UNIT = (DEPLOY / "captioner.service").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.+)$", DOCKERFILE, flags=re.MULTILINE)


@pytest.fixture
def app(tiny_captioner: Captioner) -> Flask:
    return create_app(ServiceConfig(), [tiny_captioner])


@pytest.fixture
def port(app: Flask) -> Iterator[int]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.port
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_dockerfile_keeps_the_rules_of_its_linter() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_all_that_the_image_is_made_of_reaches_it_and_nothing_else() -> None:
    copied = {source for line in instructions("COPY") if "--from" not in line for source in shlex.split(line)[:-1]}
    allowed = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert copied == set(allowed)
    assert all((ROOT / source).exists() for source in copied)


def test_the_packages_take_their_other_files_along() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"][
        "package-data"
    ]
    taken = {path for package, globs in patterns.items() for glob in globs for path in (ROOT / package).glob(glob)}
    made = {"__pycache__", FOLDER}  # here or not, see the next test
    for room in ("captioner", "service"):
        files = {path for path in (ROOT / room).rglob("*") if path.is_file() and not made & set(path.parts)}
        left = {path for path in files - taken if path.suffix != ".py"}
        assert not left, f"no package-data of pyproject.toml names {left}"
    assert f"models/*/{FOLDER}/*/*" in patterns["captioner"]


def test_the_image_runs_what_it_exports_without_torch() -> None:
    stages = dict(re.findall(r"^FROM \S+(?: AS (\w+))?\n((?:(?!FROM).*\n?)*)", DOCKERFILE, flags=re.MULTILINE))
    assert list(stages) == ["export", "build", ""]
    (command,) = re.findall(r"^RUN python -m captioner\.cli (export .+)$", stages["export"], flags=re.MULTILINE)
    assert set(make_parser().parse_args(command.split()).models) == set(bundled_models())
    assert "COPY --from=export /src/captioner captioner" in stages["build"]
    assert re.findall(r"--from=(\w+)", stages[""]) == ["build"]
    # The file with the torch in it is not even there; tests/test_requirements.py looks into the others.
    assert "requirements.txt" not in stages["build"]
    assert '-r "requirements${SPEECH:--serve}.txt"' in stages["build"]
    (speech,) = re.findall(r"^ARG SPEECH=(.+)$", stages["build"], flags=re.MULTILINE)
    for file in ("requirements-serve.txt", f"requirements{speech}.txt"):
        assert f"{file} " in stages["build"]
        assert (ROOT / file).is_file()


def test_the_image_asks_its_server_whether_it_is_ready(port: int) -> None:
    (check,) = instructions("HEALTHCHECK")
    python, *arguments = json.loads(check.partition("CMD")[2])
    assert (python, "8000" in arguments[-1]) == ("python", True)

    def run(port: int) -> int:
        command = [sys.executable, *arguments[:-1], arguments[-1].replace("8000", str(port))]
        return subprocess.run(command, capture_output=True, check=False).returncode

    assert run(port) == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        assert run(probe.getsockname()[1]) == 1


def test_a_service_that_is_not_ready_is_not_healthy(port: int, app: Flask) -> None:
    app.extensions["captioner"].drain()
    (check,) = instructions("HEALTHCHECK")
    _, *arguments = json.loads(check.partition("CMD")[2])
    command = [sys.executable, *arguments[:-1], arguments[-1].replace("8000", str(port))]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1


def test_the_image_hands_signals_to_the_server_which_is_not_root() -> None:
    assert instructions("STOPSIGNAL") == ["SIGTERM"]
    assert json.loads(instructions("ENTRYPOINT")[0]) == ["captioner"]  # as a list: no shell stands between
    assert instructions("USER") == ["10001:10001"]
    assert str(POD["securityContext"]["runAsUser"]) == "10001"


@pytest.mark.parametrize(
    "arguments",
    [
        json.loads(instructions("CMD")[-1]),
        shlex.split(re.sub(r"\$\{\w+:-(\w+)\}", r"\1", COMPOSE["services"]["captioner"]["command"])),
        CONTAINER["args"],
        shlex.split(re.findall(r"^ExecStart=\S+ (.+)$", UNIT, flags=re.MULTILINE)[0]),
    ],
)
def test_they_start_what_the_command_line_offers(arguments: list[str]) -> None:
    assert make_parser().parse_args(arguments).run.__name__ == "serve_command"


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_containers_may_do_little(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]


def test_pods_may_do_little() -> None:
    assert POD["securityContext"]["runAsNonRoot"]
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert set(CONTAINER["resources"]) == {"requests", "limits"}
    (mount,) = CONTAINER["volumeMounts"]
    assert (mount["name"], mount["mountPath"]) == (POD["volumes"][0]["name"], "/tmp")


def test_pods_are_asked_at_routes_that_exist_and_are_found(app: Flask) -> None:
    routes = {rule.rule for rule in app.url_map.iter_rules()}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert CONTAINER[probe]["httpGet"]["path"] in routes
        assert CONTAINER[probe]["httpGet"]["port"] == CONTAINER["ports"][0]["name"]
    assert "/metrics" in routes
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    assert labels == SERVICE["spec"]["selector"] == DEPLOYMENT["spec"]["selector"]["matchLabels"]
    assert SERVICE["spec"]["ports"][0]["targetPort"] == CONTAINER["ports"][0]["name"]


def test_whoever_stops_the_service_waits_long_enough() -> None:
    settings = {entry["name"]: float(entry["value"]) for entry in CONTAINER["env"] if "value" in entry}
    _, pause = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    drain = ServiceConfig().drain_seconds
    assert POD["terminationGracePeriodSeconds"] > float(pause) + drain + settings[variable("deadline_seconds")]
    longest = drain + ServiceConfig().deadline_seconds
    assert int(COMPOSE["services"]["captioner"]["stop_grace_period"].removesuffix("s")) > longest
    assert int(re.findall(r"^TimeoutStopSec=(\d+)$", UNIT, flags=re.MULTILINE)[0]) > longest


@pytest.mark.parametrize(
    "path", ["compose.yaml", "deploy/kubernetes.yaml", "deploy/captioner.service", "docs/deploy.md"]
)
def test_settings_exist(path: str) -> None:
    named = set(re.findall(rf"{PREFIX}[A-Z_]+[A-Z]", (ROOT / path).read_text(encoding="utf-8")))
    assert named
    assert named <= {CACHE_VARIABLE, *(variable(name) for name in ServiceConfig.__dataclass_fields__)}


def test_flags_in_the_guide_exist() -> None:
    usage = next(action for action in make_parser()._actions if action.choices).choices["serve"].format_help()
    for line in re.findall(r"captioner serve (--.+?)[`\n]", GUIDE):
        for flag in re.findall(r"--[a-z-]+", line):
            assert flag in usage


def dashboard_queries() -> list[str]:
    return re.findall(r'"(?:expr|definition)": ("(?:[^"\\]|\\.)*")', json.dumps(DASHBOARD))


@pytest.mark.parametrize("query", [json.loads(query) for query in dashboard_queries()])
def test_the_dashboard_shows_what_is_measured(query: str) -> None:
    metrics = Metrics()
    metrics.observe_request("GET", "/", 200, 0.1, "busy")
    metrics.observe_stage("model", 0.1)
    metrics.observe_batch("words", 1)
    metrics.set_queue_depth(1)
    samples: dict[str, set[str]] = {}
    for line in metrics.expose("")[0].decode().splitlines():
        if found := re.match(r"(captioner_\w+)(?:\{(.*)\})? ", line):
            samples.setdefault(found[1], set()).update(re.findall(r'(\w+)="', found[2] or ""))
    names = re.findall(r"captioner_\w+", query)
    assert names
    assert set(names) <= set(samples)
    known = set.union(*(samples[name] for name in names))
    asked = re.findall(r"\bby \(([^)]*)\)", query) + re.findall(r"(\w+)(?:=|!~|=~)\"", query)
    assert {label.strip() for labels in asked for label in labels.split(",")} <= known
    if legend := re.findall(r"label_values\(.*, (\w+)\)", query):
        assert set(legend) <= known


def test_the_dashboard_finds_its_figures() -> None:
    (source,) = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    assert set(re.findall(r'"type": "prometheus", "uid": "(\w+)"', json.dumps(DASHBOARD))) == {source["uid"]}
    (provider,) = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/captioner.yaml").read_text())["providers"]
    mounted = [volume.split(":")[1] for volume in COMPOSE["services"]["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounted
    (job,) = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())["scrape_configs"]
    assert source["url"] == "http://prometheus:9090"
    assert job["static_configs"] == [{"targets": ["captioner:8000"]}]
    assert {"prometheus", "captioner"} <= set(COMPOSE["services"])


def stages(source: ast.AST) -> Iterator[Any]:
    for node in ast.walk(source):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "observe_stage":
            yield ast.literal_eval(node.args[0])


def test_the_dashboard_shows_every_stage() -> None:
    used = {stage for path in (ROOT / "service").rglob("*.py") for stage in stages(ast.parse(path.read_text("utf-8")))}
    (shown,) = [item["query"] for item in DASHBOARD["templating"]["list"] if item["name"] == "stage"]
    assert set(shown.split(",")) == used
