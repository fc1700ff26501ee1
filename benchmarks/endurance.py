"""Does the service's memory grow? Ten thousand requests, most of them hostile, against a running server.

    python benchmarks/endurance.py [--requests 10000] [--clients 8] [--serve "--workers 2"]

Prints the memory of the server's processes every so often. Ends with 1 if a reply was a fault that is not documented,
if a good picture got another caption than before, or if a worker had to be replaced.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from pictures import make_picture
from serve import ask
from serving import servers
from serving.hostile import Hostile, hostile_requests, is_fault, send

STEPS = 10
GOOD = 4  # every so many-th request is a good one


def main() -> int:
    """Send, weigh and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=8, help="at a time")
    parser.add_argument("--model", default="words")
    parser.add_argument("--serve", default="", metavar="FLAGS", help="of captioner serve")
    arguments = parser.parse_args()
    picture = make_picture(0)
    with servers.running(servers.captioner_serve(arguments.model, arguments.serve)) as (pid, url):
        address, expected = urlsplit(url), ask(url, picture)
        workers = servers.children(pid)
        statuses: Counter[str] = Counter()
        complaints: list[str] = []
        lock = threading.Lock()

        def one(request: Hostile | None) -> None:
            if request:
                status = send(address.hostname or "", address.port or 0, request)
                complaint = f"{status} for {request}"[:500] if is_fault(status) else ""
            else:
                status, caption = 200, ask(url, picture)
                complaint = "" if caption == expected else f"{caption!r} instead of {expected!r}"
            with lock:
                statuses[str(status or "closed")] += 1
                complaints.extend([complaint] if complaint else [])

        print("| requests | seconds | RSS MiB | PSS MiB |\n|---|---|---|---|")
        began, all_requests = time.perf_counter(), requests(arguments.requests)
        for done in range(0, arguments.requests + 1, max(1, arguments.requests // STEPS)):
            seconds = time.perf_counter() - began
            weight = servers.memory(pid) or dict.fromkeys(("rss", "pss"), math.nan)
            print(f"| {done} | {seconds:.0f} | {weight['rss']:.0f} | {weight['pss']:.0f} |", flush=True)
            with ThreadPoolExecutor(arguments.clients) as pool:
                list(pool.map(one, itertools.islice(all_requests, arguments.requests // STEPS)))
        if servers.children(pid) != workers:
            complaints.append("a worker had to be replaced")
    print("\nreplies:", ", ".join(f"{status} × {count}" for status, count in sorted(statuses.items())))
    print("\n".join(complaints) or "nothing to complain of")
    return 1 if complaints else 0


def requests(count: int) -> Iterator[Hostile | None]:
    """Hostile requests with good ones, which are None, among them."""
    hostile = hostile_requests(count)
    return (None if number % GOOD == 0 else next(hostile) for number in range(count))


if __name__ == "__main__":
    sys.exit(main())
