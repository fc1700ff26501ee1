from __future__ import annotations

import dataclasses
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from installed import HAS_TORCH
from werkzeug.test import TestResponse

import captioner
from captioner import Captioner, ModelError, OptionError
from captioner.tokens import Vocabulary
from service.app import create_app
from service.config import ServiceConfig

Refused = Callable[[TestResponse, int, str], str]


def until_settled(client: FlaskClient) -> TestResponse:
    deadline = time.monotonic() + 60
    while (response := client.get("/health/ready")).get_json().get("code") == "starting":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return response


def test_injected_models_are_ready_at_once(client: FlaskClient) -> None:
    assert client.get("/health/live").get_json() == {"live": True}
    assert client.get("/health/ready").get_json() == {"ready": True}


def test_models_are_described(client: FlaskClient, loaded: Captioner) -> None:
    reply = client.get("/v1/models").get_json()
    (model,) = reply["models"]
    assert reply["default"] == model["name"] == loaded.name
    assert model["status"] == "ready"
    assert model["image"] == {"height": loaded.info.image.height, "width": loaded.info.image.width, "fit": "stretch"}
    assert model["tokenizer"] == "words"
    assert model["vocabulary_size"] == loaded.info.model.vocabulary_size
    assert model["decoding"]["beam_size"] == loaded.info.decoding.beam_size
    assert model["spoken_as"] == "text"
    assert reply["limits"] == {
        "max_bytes": 100_000,
        "max_pixels": 10_000,
        "max_images": 4,
        "max_beam_size": 6,
        "max_tokens": 20,
    }


@pytest.mark.parametrize(
    ("symbols", "spoken_as"), [("DH AH0 | D AO1 G R UH1 N Z", "phones"), ("ð ə | d ɔ ɡ ɹ ʌ n z", None)]
)
def test_only_phones_of_english_are_called_so(loaded: Captioner, symbols: str, spoken_as: str | None) -> None:
    info = dataclasses.replace(loaded.info, tokenizer="symbols", vocabulary=Vocabulary.build([symbols.split()]))
    client = create_app(ServiceConfig(), [Captioner(loaded.engine, info)]).test_client()
    assert client.get("/v1/models").get_json()["models"][0]["spoken_as"] == spoken_as


def test_requests_are_refused_until_the_model_is_loaded(
    tiny_model_dir: Path, jpeg: bytes, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, load = threading.Event(), captioner.load

    def load_later(directory: Path, **options: Any) -> Captioner:
        assert gate.wait(60)
        return load(directory, **options)

    monkeypatch.setattr(captioner, "load", load_later)
    client = create_app(ServiceConfig(models=(str(tiny_model_dir),), cores=1)).test_client()
    response = client.post("/v1/caption", data=jpeg)
    refused(response, 503, "starting")
    assert int(response.headers["Retry-After"]) > 0
    refused(client.get("/health/ready"), 503, "starting")
    assert client.get("/v1/models").get_json()["models"][0]["status"] == "loading"
    assert client.get("/health/live").status_code == 200
    gate.set()
    assert until_settled(client).get_json() == {"ready": True}
    assert client.post("/v1/caption", data=jpeg).status_code == 200


def test_a_model_that_fails_to_load_tells_the_cause(
    tiny_model_dir: Path, tmp_path: Path, jpeg: bytes, refused: Refused
) -> None:
    broken = shutil.copytree(tiny_model_dir, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"no weights")
    client = create_app(ServiceConfig(models=(str(broken),))).test_client()
    message = refused(until_settled(client), 503, "model_unavailable")
    assert ("model.safetensors" if HAS_TORCH else "graphs") in message  # without torch there are none of such weights
    refused(client.post("/v1/caption", data=jpeg), 503, "model_unavailable")
    assert client.get("/v1/models").get_json()["models"][0]["status"] == "failed"
    assert client.get("/health/live").status_code == 200


def test_a_crash_while_loading_is_a_failure_too(
    tiny_model_dir: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def crash(_directory: Path, **_options: Any) -> Captioner:
        raise MemoryError("no room")

    monkeypatch.setattr(captioner, "load", crash)
    client = create_app(ServiceConfig(models=(str(tiny_model_dir),))).test_client()
    assert "MemoryError: no room" in refused(until_settled(client), 503, "model_unavailable")
    assert "Traceback" in caplog.text


def test_a_model_that_does_not_exist_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        create_app(ServiceConfig(models=(str(tmp_path / "nothing"),)))


def test_no_model_or_two_of_one_name_stop_the_start(loaded: Captioner) -> None:
    with pytest.raises(OptionError, match="no model"):
        create_app(ServiceConfig(), [])
    with pytest.raises(OptionError, match="Two models"):
        create_app(ServiceConfig(), [loaded, loaded])


def test_requests_at_the_same_time_get_their_own_captions(
    client: FlaskClient, loaded: Captioner, jpeg: bytes, png: bytes
) -> None:
    images = [jpeg, png] * 4
    replies: list[str] = [""] * len(images)

    def ask(index: int) -> None:
        reply = client.application.test_client().post("/v1/caption", data=images[index]).get_json()
        replies[index] = reply["results"][0]["captions"][0]["text"]

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replies == [loaded(image).text for image in images]
