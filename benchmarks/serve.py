"""What the caption server bears, beside the same model behind plain Flask and behind LitServe.

    python benchmarks/serve.py [--serve "--workers 2"]... [--clients 1 8 32 128] [--seconds 20] [--json FILE]

The servers are started one after the other, on free ports of this machine, and share its cores with the clients. All
get the same pictures as raw bodies and caption them with the model's own options. Every ratio is from this one run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import time
import urllib.request
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pictures import make_picture
from serving import servers
from serving.load import put_load
from serving.servers import Server

from captioner.cores import processor, usable_cores

PICTURES = 24
BASE = "plain Flask"
NOTHING = "–"
HEAD = """
| server | clients | requests/s | × plain Flask | p50 ms | p95 ms | p99 ms | refused | failed | RSS MiB | PSS MiB |
|---|---|---|---|---|---|---|---|---|---|---|"""


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments()
    pictures = [make_picture(number) for number in range(PICTURES)]
    chosen = choose_servers(arguments)
    facts = describe(arguments, chosen, pictures)
    for name, fact in facts.items():
        print(f"{name}: {fact}")
    print(HEAD, flush=True)
    rows: list[dict[str, Any]] = []
    expected: list[str] = []
    for server in chosen:
        tell(f"{server.name}: starting")
        with servers.running(server) as (pid, url):
            texts = [ask(url, picture) for picture in pictures]
            expected = expected or texts
            same = sum(map(str.__eq__, texts, expected))
            if same < PICTURES:
                tell(f"{server.name}: {same} of {PICTURES} captions are those of {chosen[0].name}")
            for clients in arguments.clients:
                tell(f"{server.name}: {arguments.warm_up:g} + {arguments.seconds:g} s, clients at a time: {clients}")
                row = measure(url, pid, pictures, clients, arguments)
                rows.append({"server": server.name, "same_captions": same, **row})
                print(as_line(rows[-1], rows), flush=True)
    busiest = max(row["client_cores"] for row in rows)
    print(f"\nThe clients themselves took at most {busiest:.2f} of a core.")
    if arguments.json:
        arguments.json.write_text(json.dumps({"facts": facts, "rows": rows}, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="words")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 128], help="how many at a time")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--warm-up", type=float, default=5.0, help="seconds before each measurement")
    parser.add_argument("--servers", nargs="+", choices=("flask", "gunicorn", "litserve", "captioner"))
    parser.add_argument("--serve", action="append", metavar="FLAGS", help="of captioner serve; each use a server more")
    parser.add_argument("--gunicorn-threads", type=int, default=32, help="of each worker")
    parser.add_argument("--litserve-workers", type=int, nargs="+", default=[1], help="per device: one server each")
    parser.add_argument("--litserve-batch", type=int, default=16, help="max_batch_size")
    parser.add_argument("--litserve-wait", type=float, default=0.005, help="batch_timeout, in seconds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    return parser.parse_args()


def choose_servers(arguments: argparse.Namespace) -> list[Server]:
    """The servers to measure, the one that all are compared with first."""
    model, cores = arguments.model, usable_cores()
    offered = {
        "flask": [servers.plain_flask(model, cores)],
        "gunicorn": [servers.gunicorn(model, cores, arguments.gunicorn_threads)],
        "litserve": [
            servers.litserve(model, cores, workers, arguments.litserve_batch, arguments.litserve_wait)
            for workers in arguments.litserve_workers
        ],
        "captioner": [servers.captioner_serve(model, flags) for flags in arguments.serve or [""]],
    }
    return [server for name, group in offered.items() if name in (arguments.servers or offered) for server in group]


def describe(arguments: argparse.Namespace, chosen: list[Server], pictures: list[bytes]) -> dict[str, str]:
    """What one must know to read the figures."""
    packages = ["torch", "flask", "gunicorn"] + ["litserve"] * any("LitServe" in server.name for server in chosen)
    settings = [f"{name}={os.environ[name]}" for name in sorted(os.environ) if name.startswith("CAPTIONER_")]
    threads = [f"{server.name}: {server.torch_threads or 'its own choice'}" for server in chosen]
    size = sum(map(len, pictures)) / len(pictures) / 1024
    return {
        "machine": f"{processor()}, {usable_cores()} cores to use, load {os.getloadavg()[0]:.1f} before the start",
        "software": ", ".join(
            [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)]
        ),
        "model": f"{arguments.model} with its own decoding options, fp32 unless captioner's settings say otherwise",
        "torch threads of each copy": "; ".join(threads),
        "settings of captioner in the environment": ", ".join(s for s in settings if "KEY" not in s) or "none",
        "pictures": f"{len(pictures)} JPEGs of 500 × 375, {size:.0f} KiB on average",
        "each measurement": f"{arguments.seconds:g} s after {arguments.warm_up:g} s of warm-up",
    }


def ask(url: str, picture: bytes) -> str:
    """The caption of one picture, whichever server it is."""
    request = urllib.request.Request(url, picture, {"Content-Type": "image/jpeg"})
    with servers.DIRECT.open(request, timeout=60) as reply:
        body = json.load(reply)
    row = body["results"][0]["captions"][0] if "results" in body else body
    return str(row["text"])


def measure(url: str, pid: int, pictures: list[bytes], clients: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One row: some clients against the running server."""
    wall, cpu = time.perf_counter(), time.process_time()
    load = asyncio.run(put_load(url, pictures, clients=clients, seconds=arguments.seconds, warm_up=arguments.warm_up))
    cores = (time.process_time() - cpu) / (time.perf_counter() - wall)
    return {
        "clients": clients,
        "rate": load.rate,
        **{f"p{percent}_ms": 1000 * load.percentile(percent) if load.latencies else None for percent in (50, 95, 99)},
        "answered": len(load.latencies),
        "refused": load.refused,
        "failures": load.failures,
        "client_cores": cores,
        "memory": servers.memory(pid),
    }


def as_line(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """A row of the table, compared with plain Flask under as many clients."""
    base = [other["rate"] for other in rows if other["server"] == BASE and other["clients"] == row["clients"]]
    ratio = f"{row['rate'] / base[0]:.2f}" if base and base[0] else NOTHING
    failed = ", ".join(f"{name} × {count}" for name, count in row["failures"].items()) or "0"
    memory = [f"{row['memory'][name]:.0f}" if row["memory"] else NOTHING for name in ("rss", "pss")]
    latencies = [NOTHING if row[name] is None else f"{row[name]:.0f}" for name in ("p50_ms", "p95_ms", "p99_ms")]
    cells = [row["server"], row["clients"], f"{row['rate']:.1f}", ratio, *latencies, row["refused"], failed, *memory]
    return f"| {' | '.join(map(str, cells))} |"


def tell(message: str) -> None:
    """Progress, where it does not disturb the table."""
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
