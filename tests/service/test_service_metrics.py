from __future__ import annotations

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from service.metrics import Metrics


def figures(text: str) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels."""
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value for sample in samples
    }


def told(client: FlaskClient) -> dict[tuple[str, ...], float]:
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.content_type.startswith("text/plain; version=0.0.4")
    return figures(response.text)


def test_requests_are_counted_by_route_and_status(client: FlaskClient, jpeg: bytes) -> None:
    for _ in range(2):
        assert client.post("/v1/caption", data=jpeg).status_code == 200
    client.post("/v1/caption", data=b"no image")
    found = told(client)
    assert found["captioner_requests_total", "POST", "/v1/caption", "200"] == 2
    assert found["captioner_requests_total", "POST", "/v1/caption", "415"] == 1
    assert found["captioner_refusals_total", "not_an_image"] == 1
    assert found["captioner_request_seconds_count", "/v1/caption"] == 3
    assert found["captioner_request_seconds_sum", "/v1/caption"] > 0


def test_stages_and_batches_are_told(client: FlaskClient, jpeg: bytes) -> None:
    before = told(client)
    client.post("/v1/caption", data=jpeg)
    after = told(client)

    def more(*name: str) -> float:
        return after[name] - before.get(name, 0)

    assert more("captioner_batch_images_sum", "tiny") == 1
    for stage in ("decode", "queue", "model"):
        assert more("captioner_stage_seconds_count", stage) == 1
    assert after["captioner_queue_images",] == 0


def test_no_stranger_can_make_the_labels_grow(client: FlaskClient) -> None:
    for number in range(5):
        client.get(f"/nothing/{number}")
        client.open("/v1/caption", method=f"METHOD{number}")
        client.get(f"/static/{number}")
        client.get("/v1/models", headers={"X-Request-ID": str(number)})
    series = {name[1:3] for name in told(client) if name[0] == "captioner_requests_total"}
    assert series == {
        ("GET", "unmatched"),
        ("other", "unmatched"),
        ("GET", "/static/<path:filename>"),
        ("GET", "/v1/models"),
    }


def test_a_crash_is_counted(app: Flask) -> None:
    @app.get("/crash")
    def crash() -> str:
        return str(1 / 0)

    client = app.test_client()
    client.get("/crash")
    found = told(client)
    assert found["captioner_requests_total", "GET", "/crash", "500"] == 1
    assert found["captioner_refusals_total", "internal_error"] == 1


@pytest.mark.parametrize(("seconds", "bucket"), [(0.004, "0.005"), (0.3, "0.5"), (29, "30.0"), (100, "+Inf")])
def test_times_fall_into_buckets_from_milliseconds_to_a_minute(seconds: float, bucket: str) -> None:
    metrics = Metrics()
    metrics.observe_stage("model", seconds)
    found = figures(metrics.expose("")[0].decode())
    filled = [name[1] for name, value in found.items() if name[0] == "captioner_stage_seconds_bucket" and value]
    assert filled[0] == bucket


def test_applications_in_one_process_count_for_themselves() -> None:
    one, other = Metrics(), Metrics()
    one.set_queue_depth(3)
    assert re.search(rb"^captioner_queue_images 3", one.expose("")[0], flags=re.MULTILINE)
    assert re.search(rb"^captioner_queue_images 0", other.expose("")[0], flags=re.MULTILINE)
