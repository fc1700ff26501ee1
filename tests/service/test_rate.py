from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from captioner import Captioner
from service.app import create_app
from service.config import ServiceConfig
from service.rate import RateLimit, network

Refused = Callable[[TestResponse, int, str], str]


class Clock:
    """A clock that stands still until it is set."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limited(loaded: Captioner, clock: Clock) -> FlaskClient:
    config = ServiceConfig(requests_per_minute=3, trusted_proxies=1)
    return create_app(config, [loaded], RateLimit(3, clock)).test_client()


def ask(client: FlaskClient, address: str, path: str = "/v1/models") -> TestResponse:
    return client.get(path, headers={"X-Forwarded-For": address})


@pytest.mark.parametrize("per_minute", [1, 3, 7, 60, 1000])
def test_a_minutes_worth_at_once_and_then_one_an_interval(per_minute: int, clock: Clock) -> None:
    limit = RateLimit(per_minute, clock)
    waits = [limit.wait("a") for _ in range(per_minute + 1)]
    assert waits[:-1] == [0] * per_minute
    assert waits[-1] == pytest.approx(60 / per_minute, rel=0.01)
    for _ in range(3):
        clock.now += 60 / per_minute
        assert limit.wait("a") == 0
        assert limit.wait("a") > 0
    clock.now += 3600  # an idle hour saves up no more than one minute
    assert [limit.wait("a") > 0 for _ in range(per_minute + 1)] == [False] * per_minute + [True]


def test_a_refused_request_costs_nothing(clock: Clock) -> None:
    limit = RateLimit(1, clock)
    assert limit.wait("a") == 0
    waits = {limit.wait("a") for _ in range(100)}
    assert len(waits) == 1


def test_clients_have_an_allowance_each(limited: FlaskClient, refused: Refused, clock: Clock) -> None:
    assert [ask(limited, "192.0.2.1").status_code for _ in range(4)] == [200, 200, 200, 429]
    response = ask(limited, "192.0.2.1")
    assert "in 20 s" in refused(response, 429, "rate_limited")
    assert response.headers["Retry-After"] == "20"
    assert ask(limited, "192.0.2.2").status_code == 200
    clock.now += 20
    assert ask(limited, "192.0.2.1").status_code == 200


def test_a_subscriber_of_ipv6_is_one_client(limited: FlaskClient) -> None:
    same = [f"2001:db8:0:7::{host}" for host in range(4)]
    assert [ask(limited, address).status_code for address in same] == [200, 200, 200, 429]
    assert ask(limited, "2001:db8:0:8::1").status_code == 200


def test_ipv4_within_ipv6_is_not_one_network(limited: FlaskClient) -> None:
    assert [ask(limited, f"::ffff:192.0.2.{host}").status_code for host in range(4)] == [200] * 4
    assert network("192.0.2.1") == "192.0.2.1"


def test_addresses_that_are_none_share_one_allowance(limited: FlaskClient) -> None:
    made_up = ["a", "b" * 1000, "1.2.3", "-"]
    assert [ask(limited, address).status_code for address in made_up] == [200, 200, 200, 429]


def test_only_the_trusted_proxy_is_believed(loaded: Captioner, clock: Clock) -> None:
    config = ServiceConfig(requests_per_minute=3)
    client = create_app(config, [loaded], RateLimit(3, clock)).test_client()
    assert [ask(client, f"192.0.2.{host}").status_code for host in range(4)] == [200, 200, 200, 429]


def test_what_a_client_puts_before_the_proxys_word_does_not_count(limited: FlaskClient) -> None:
    forged = [f"198.51.100.{host}, 192.0.2.9" for host in range(4)]
    assert [ask(limited, addresses).status_code for addresses in forged] == [200, 200, 200, 429]


@pytest.mark.parametrize(
    "path", ["/health/live", "/health/ready", "/v2/health/live", "/", "/docs", "/openapi.json", "/static/page.js"]
)
def test_what_is_open_is_free(limited: FlaskClient, path: str) -> None:
    for _ in range(5):
        with ask(limited, "192.0.2.3", path) as response:
            assert response.status_code == 200
    assert [ask(limited, "192.0.2.3").status_code for _ in range(4)] == [200, 200, 200, 429]


def test_a_caption_at_the_front_door_counts(limited: FlaskClient, jpeg: bytes) -> None:
    assert [limited.post("/", data=jpeg).status_code for _ in range(4)] == [200, 200, 200, 429]


def test_keys_cannot_be_tried_without_limit(loaded: Captioner, clock: Clock) -> None:
    config = ServiceConfig(requests_per_minute=3, api_keys=("first-key-of-all-keys",))
    client = create_app(config, [loaded], RateLimit(3, clock)).test_client()
    assert [ask(client, "").status_code for _ in range(4)] == [401, 401, 401, 429]


def run(script: str) -> str:
    """What a process of its own prints: one with threads, as this one, had better not fork."""
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout


def test_processes_count_together_and_exactly() -> None:
    script = """
import os, time
from service.rate import RateLimit
def clock():
    time.sleep(0.0005)  # time for others to come in between
    return 1000.0
limit = RateLimit(40, clock)
children = []
for _ in range(4):
    children.append(os.fork())
    if not children[-1]:
        os._exit(sum(limit.wait("a") == 0 for _ in range(20)))
print(sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""
    assert run(script) == "40\n"


def test_a_process_that_dies_while_it_counts_holds_up_nobody() -> None:
    script = """
import os, signal
from service.rate import RateLimit
parent = os.getpid()
def clock():
    if os.getpid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    return 1000.0
limit = RateLimit(1, clock)
child = os.fork()
if not child:
    limit.wait("a")
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), limit.wait("a"))
"""
    assert run(script) == "-9 0.0\n"
