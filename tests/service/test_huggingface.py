"""``POST /``, ``GET /health`` and ``GET /info``: by hand, and by Hugging Face's own client."""

from __future__ import annotations

import base64
import io
import json
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from werkzeug.test import TestResponse

from captioner import Captioner, __version__
from service.app import create_app
from service.config import ServiceConfig

Refused = Callable[[TestResponse, int, str], str]


def text(image: bytes) -> str:
    return base64.b64encode(image).decode()


def generated(response: TestResponse) -> list[str]:
    assert response.status_code == 200, response.get_data(as_text=True)
    reply = response.get_json()
    assert all(set(item) == {"generated_text"} for item in reply)
    return [item["generated_text"] for item in reply]


def samples(response: TestResponse) -> int:
    assert (response.status_code, response.mimetype) == (200, "audio/wav"), response.get_data()
    with wave.open(io.BytesIO(response.get_data())) as file:
        return file.getnframes()


class TestTheClient:
    @pytest.fixture
    def inference(self, address: str) -> InferenceClient:
        return InferenceClient(model=address, provider="hf-inference", token="none")

    def test_its_base_url_will_do(self, address: str, loaded: Captioner, jpeg: bytes) -> None:
        assert InferenceClient(base_url=address).image_to_text(jpeg).generated_text == loaded(jpeg).text

    def test_it_captions(self, inference: InferenceClient, loaded: Captioner, jpeg: bytes, tmp_path: Path) -> None:
        assert inference.image_to_text(jpeg).generated_text == loaded(jpeg).text
        (tmp_path / "photo.jpg").write_bytes(jpeg)
        assert inference.image_to_text(tmp_path / "photo.jpg").generated_text == loaded(jpeg).text

    def test_it_speaks(self, inference: InferenceClient) -> None:
        sound = inference.text_to_speech("Two dogs run.")
        assert sound.startswith(b"RIFF")
        slower = inference.text_to_speech("Two dogs run.", extra_body={"rate": 80})
        assert len(slower) > 1.3 * len(sound)

    def test_it_learns_how_things_stand(self, inference: InferenceClient, loaded: Captioner) -> None:
        assert inference.health_check()
        assert inference.get_endpoint_info() == {
            "model_id": loaded.name,
            "model_pipeline_tag": "image-to-text",
            "version": __version__,
        }

    def test_it_is_told_what_is_wrong(self, inference: InferenceClient) -> None:
        with pytest.raises(HfHubHTTPError, match="415"):
            inference.image_to_text(b"hello")
        with pytest.raises(HfHubHTTPError, match="do_sample"):
            inference.text_to_speech("Two dogs run.", do_sample=True)


@pytest.mark.parametrize("content_type", [None, "image/jpeg", "application/json", "application/x-www-form-urlencoded"])
def test_raw_bytes_and_base64_are_captioned_whatever_their_content_type(
    client: FlaskClient, loaded: Captioner, jpeg: bytes, content_type: str | None
) -> None:
    body = json.dumps({"inputs": text(jpeg)})
    for data in (jpeg, body):
        assert generated(client.post("/", data=data, content_type=content_type)) == [loaded(jpeg).text]


def test_other_ways_to_send_an_image_work_too(client: FlaskClient, loaded: Captioner, jpeg: bytes) -> None:
    url = f"data:image/jpeg;base64,{text(jpeg)}"
    for reply in (
        client.post("/", json={"inputs": url}),
        client.post("/", json={"image": url}),
        client.post("/", json={"inputs": base64.encodebytes(jpeg).decode()}),
        client.post("/", data={"image": (io.BytesIO(jpeg), "a.jpg")}),
    ):
        assert generated(reply) == [loaded(jpeg).text]


def test_options_that_they_have_no_name_for_stand_beside_their_parameters(
    client: FlaskClient, loaded: Captioner, jpeg: bytes
) -> None:
    expected = [caption.text for caption in loaded.candidates(jpeg, n_best=6, rank="consensus")]
    assert expected != [caption.text for caption in loaded.candidates(jpeg, n_best=6)]
    body = {"inputs": text(jpeg), "parameters": {"num_return_sequences": 6}}
    for reply in (
        client.post("/", json=body | {"rank": "consensus"}),
        client.post("/?rank=consensus", json=body),
        client.post("/?rank=consensus&n_best=6", data=jpeg),
    ):
        assert generated(reply) == expected


@pytest.mark.parametrize("group", [None, "generation_parameters", "generate_kwargs"])
@pytest.mark.parametrize(
    ("parameters", "options"),
    [
        ({"num_beams": 1, "max_new_tokens": 2}, {"beam_size": 1, "max_length": 2}),
        ({"max_new_tokens": 2, "max_length": 9}, {"max_length": 2}),
        ({"num_beams": 4, "num_return_sequences": 4}, {"beam_size": 4, "n_best": 4}),
        ({"length_penalty": 0.0, "no_repeat_ngram_size": 1}, {"length_penalty": 0.0, "no_repeat_ngram": 1}),
        ({"do_sample": True, "top_k": 1}, {"method": "sample", "top_k": 1}),
        ({"do_sample": True, "top_p": 0.001}, {"method": "sample", "top_p": 0.001}),
        ({"do_sample": False, "num_beams": None, "use_cache": True}, {}),
    ],
)
def test_generation_parameters_are_decoding_options(
    client: FlaskClient,
    loaded: Captioner,
    png: bytes,
    group: str | None,
    parameters: dict[str, Any],
    options: dict[str, Any],
) -> None:
    body = {"inputs": text(png), "parameters": {group: parameters} if group else parameters}
    expected = [caption.text for caption in loaded.candidates(png, **options)]
    assert generated(client.post("/", json=body)) == expected


def test_what_was_meant_for_hugging_face_itself_is_ignored(client: FlaskClient, jpeg: bytes) -> None:
    generated(client.post("/", json={"inputs": text(jpeg), "parameters": None, "options": {"wait_for_model": True}}))


def test_the_query_chooses_the_model(client: FlaskClient, loaded: Captioner, refused: Refused, jpeg: bytes) -> None:
    assert generated(client.post(f"/?model={loaded.name}&max_length=1", data=jpeg)) == [loaded(jpeg, max_length=1).text]
    refused(client.post("/?model=poems", data=jpeg), 404, "model_not_found")


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"penalty_alpha": 0.6}, "penalty_alpha"),
        ({"generate_kwargs": {"num_beam_groups": 2}}, "num_beams"),
        ({"beam_size": 3}, "num_beams"),
        ({"num_beams": "many"}, "beam_size"),
        ({"num_beams": 7}, "beam_size"),
        ({"do_sample": [1]}, "do_sample"),
        ({"temperature": 0.5}, "method=sample"),
        ({"do_sample": True, "temperature": 0}, "temperature"),
        ({"do_sample": True, "num_beams": 3}, "method=beam"),
    ],
)
def test_what_decoding_has_not_is_refused_by_name(
    client: FlaskClient, refused: Refused, jpeg: bytes, parameters: dict[str, object], named: str
) -> None:
    body = {"inputs": text(jpeg), "parameters": parameters}
    assert named in refused(client.post("/", json=body), 400, "bad_option")


@pytest.mark.parametrize(
    "fields",
    [
        {"parameters": 3},
        {"parameters": {"generate_kwargs": [1]}},
        {"image": "YQ=="},
    ],
)
def test_json_of_another_shape_is_refused(
    client: FlaskClient, refused: Refused, jpeg: bytes, fields: dict[str, object]
) -> None:
    refused(client.post("/", json={"inputs": text(jpeg), **fields}), 400, "bad_request")


def test_attention_and_several_images_have_no_place_in_the_reply(
    client: FlaskClient, refused: Refused, jpeg: bytes
) -> None:
    assert "/v1/caption" in refused(client.post("/?attention=true", data=jpeg), 400, "bad_option")
    refused(client.post("/", json={"images": [text(jpeg)] * 2}), 413, "too_many_images")


@pytest.mark.parametrize(
    "spoken", ["A dog.", "Hello123", "data: the new oil", "A dog lies in the grass next to a mansion"]
)
def test_what_is_no_image_is_spoken(client: FlaskClient, spoken: str) -> None:
    same = client.post("/v1/speech?pitch=40", json={"text": spoken, "voice": "en-gb", "rate": 200})
    body = {"inputs": spoken, "parameters": {"voice": "en-gb"}, "rate": 200}
    # espeak-ng never says the same twice, but nearly.
    assert samples(client.post("/?pitch=40", json=body)) == pytest.approx(samples(same), rel=0.01)


def test_what_cannot_be_spoken_is_refused(client: FlaskClient, refused: Refused) -> None:
    refused(client.post("/", json={"inputs": ""}), 400, "bad_option")
    message = refused(client.post("/", json={"inputs": "A dog.", "parameters": {"num_beams": 3}}), 400, "bad_option")
    assert "num_beams" in message


def test_an_image_that_fails_is_not_read_out(client: FlaskClient, refused: Refused, jpeg: bytes) -> None:
    refused(client.post("/", json={"inputs": text(jpeg[:-100])}), 422, "image_broken")
    refused(client.post("/", json={"inputs": text(b"%PDF-1.4 " * 50)}), 415, "not_an_image")
    refused(client.post("/", json={"inputs": "data:image/jpeg;base64,?"}), 400, "bad_base64")
    refused(client.post("/", json={"inputs": "https://example.org/dog.jpg"}), 400, "url_refused")
    refused(client.post("/", json={"inputs": 3}), 400, "bad_base64")


def test_without_the_extra_the_reply_names_it(
    client: FlaskClient, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "captioner[speech]" in refused(client.post("/", json={"inputs": "A dog."}), 501, "missing_dependency")


def test_health_is_readiness(client: FlaskClient, tiny_model_dir: Path, refused: Refused) -> None:
    assert client.get("/health").get_json() == {"ready": True}
    loading = create_app(ServiceConfig(models=(str(tiny_model_dir),), cores=1)).test_client()
    refused(loading.get("/health"), 503, "starting")
