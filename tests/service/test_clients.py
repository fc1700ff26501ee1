"""The table of clients in the README: each row works, with the client itself over a socket or by its own requests."""

from __future__ import annotations

import base64
import http.client
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import ollama
import openai
import pytest
import requests
from flask import Flask
from huggingface_hub import InferenceClient
from PIL import Image

from captioner import Captioner
from service.app import create_app
from service.config import ServiceConfig

ROOT = Path(__file__).parent.parent.parent


def text(image: bytes) -> str:
    return base64.b64encode(image).decode()


@pytest.fixture
def photo(jpeg: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg)
    return path


def post(address: str, path: str, body: bytes | str, headers: dict[str, str]) -> Any:
    """Post exactly these bytes and headers, and read the JSON that comes back."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    try:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        reply = json.loads(response.read())
        assert response.status == 200, reply
        return reply
    finally:
        connection.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl(address: str, loaded: Captioner, photo: Path) -> None:
    for sending in (["--data-binary", f"@{photo}"], ["-F", f"image=@{photo}"], ["-T", str(photo), "-X", "POST"]):
        command = ["curl", "-sS", "--max-time", "30", *sending, f"{address}/v1/caption"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        (result,) = json.loads(done.stdout)["results"]
        assert result["captions"][0]["text"] == loaded(photo).text


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
class TestALargePhoto:
    @pytest.fixture
    def app(self, loaded: Captioner) -> Flask:
        return create_app(ServiceConfig(), [loaded])

    @pytest.mark.parametrize("seed", range(5))
    def test_in_a_form(self, address: str, loaded: Captioner, tmp_path: Path, seed: int) -> None:
        photo = tmp_path / "photo.jpg"
        pixels = np.random.default_rng(seed).integers(0, 256, (900, 1200, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photo, "JPEG", quality=75)
        assert photo.stat().st_size > 500_000
        command = ["curl", "-sS", "--max-time", "30", "-F", f"image=@{photo}", f"{address}/v1/caption"]
        replies = [json.loads(subprocess.run(command, capture_output=True, check=True).stdout)]
        with photo.open("rb") as file:
            replies.append(requests.post(f"{address}/v1/caption", files={"image": file}, timeout=30).json())
        for reply in replies:
            assert reply["results"][0]["captions"][0]["text"] == loaded(photo).text


def test_forms(address: str, loaded: Captioner, jpeg: bytes, png: bytes) -> None:
    files = [("image", ("a.jpg", jpeg)), ("image", ("b.png", png))]
    reply = requests.post(f"{address}/v1/caption", files=files, data={"max_length": 3}, timeout=30).json()
    texts = [result["captions"][0]["text"] for result in reply["results"]]
    assert texts == [loaded(image, max_length=3).text for image in (jpeg, png)]


def test_max(address: str, loaded: Captioner, photo: Path) -> None:
    with photo.open("rb") as file:
        reply = requests.post(f"{address}/model/predict", files={"image": file}, timeout=30).json()
    assert reply["status"] == "ok"
    assert [each["caption"] for each in reply["predictions"]] == [
        caption.text for caption in loaded.candidates(photo, n_best=3)
    ]
    assert requests.get(f"{address}/model/metadata", timeout=30).json()["id"] == loaded.name


def test_huggingface_hub(address: str, loaded: Captioner, photo: Path) -> None:
    client = InferenceClient(model=address)
    assert client.image_to_text(photo).generated_text == loaded(photo).text
    assert client.text_to_speech("Two dogs run.").startswith(b"RIFF")


def test_older_huggingface_hub(address: str, loaded: Captioner, jpeg: bytes) -> None:
    body = json.dumps({"inputs": text(jpeg), "parameters": {"max_new_tokens": 3}})
    waiting = {"X-wait-for-model": "1", "X-use-cache": "0"}
    for image, headers, options in (
        (jpeg, {}, {}),
        (jpeg, waiting, {}),
        (jpeg, {"Content-Type": "image/jpeg", "Accept": "application/json"}, {}),
        (body, {"Content-Type": "application/json"}, {"max_length": 3}),
        (body, {}, {"max_length": 3}),
    ):
        assert post(address, "/", image, headers) == [{"generated_text": loaded(jpeg, **options).text}]


class TestOpenAI:
    @pytest.fixture
    def client(self, address: str) -> Iterator[openai.OpenAI]:
        with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
            yield client

    def ask(self, client: openai.OpenAI, loaded: Captioner, image: bytes, **options: Any) -> Any:
        content = [
            {"type": "text", "text": "What is in this picture?"},
            {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{text(image)}", "detail": "low"}},
        ]
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]
        return client.chat.completions.create(**{"model": loaded.name, "messages": messages, **options})

    def test_it_captions(self, client: openai.OpenAI, loaded: Captioner, jpeg: bytes) -> None:
        completion = self.ask(client, loaded, jpeg, temperature=0.2, max_tokens=300)
        (choice,) = completion.choices
        assert (choice.message.role, choice.message.content) == ("assistant", loaded(jpeg).sentence)
        assert choice.finish_reason == "stop"
        assert completion.usage.completion_tokens == len(loaded(jpeg).tokens)

    def test_it_streams(self, client: openai.OpenAI, loaded: Captioner, jpeg: bytes) -> None:
        chunks = list(self.ask(client, loaded, jpeg, stream=True, stream_options={"include_usage": True}))
        said = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert "".join(said) == loaded(jpeg).sentence
        assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
        assert chunks[-1].usage.total_tokens == len(loaded(jpeg).tokens)

    def test_it_lists_the_models(self, client: openai.OpenAI, loaded: Captioner) -> None:
        (model,) = client.models.list()
        assert (model.id, model.object) == (loaded.name, "model")

    def test_it_is_told_what_is_wrong(self, client: openai.OpenAI, loaded: Captioner, jpeg: bytes) -> None:
        with pytest.raises(openai.UnprocessableEntityError, match="the image is damaged") as caught:
            self.ask(client, loaded, jpeg[:-100])
        assert caught.value.code == "image_broken"
        with pytest.raises(openai.NotFoundError, match="There is no model 'gpt'; the models here are tiny"):
            self.ask(client, loaded, jpeg, model="gpt")
        with pytest.raises(openai.BadRequestError, match="brings no image"):
            client.chat.completions.create(model=loaded.name, messages=[{"role": "user", "content": "Hello"}])
        with pytest.raises(openai.NotFoundError, match="There is nothing at"):
            client.models.retrieve("words")


class TestOllama:
    @pytest.fixture
    def client(self, address: str) -> Iterator[ollama.Client]:
        with ollama.Client(host=address) as client:
            yield client

    def test_it_generates(self, client: ollama.Client, loaded: Captioner, photo: Path) -> None:
        options = {"temperature": 0.1, "num_predict": 128}
        for image in (photo.read_bytes(), str(photo), text(photo.read_bytes())):
            reply = client.generate(loaded.name, "Describe it.", images=[image], options=options, keep_alive="5m")
            assert (reply.response, reply.done, reply.done_reason) == (loaded(photo).sentence, True, "stop")

    def test_it_chats(self, client: ollama.Client, loaded: Captioner, jpeg: bytes) -> None:
        messages = [{"role": "user", "content": "What is this?", "images": [jpeg]}]
        reply = client.chat(f"{loaded.name}:latest", messages=messages)
        assert reply.message.content == loaded(jpeg).sentence

    def test_it_streams(self, client: ollama.Client, loaded: Captioner, jpeg: bytes) -> None:
        parts = list(client.generate(loaded.name, images=[jpeg], stream=True))
        assert [part.done for part in parts] == [False, True]
        assert "".join(part.response for part in parts) == loaded(jpeg).sentence
        messages = [{"role": "user", "content": "What is this?", "images": [jpeg]}]
        spoken = client.chat(loaded.name, messages=messages, stream=True)
        assert "".join(part.message.content for part in spoken) == loaded(jpeg).sentence

    def test_it_learns_what_there_is(self, client: ollama.Client, loaded: Captioner) -> None:
        (model,) = client.list().models
        assert model.model == f"{loaded.name}:latest"
        assert "vision" in client.show(model.model).capabilities

    def test_it_is_told_what_is_wrong(self, client: ollama.Client, loaded: Captioner, jpeg: bytes) -> None:
        with pytest.raises(ollama.ResponseError, match="There is no model 'llava'") as caught:
            client.generate("llava", images=[jpeg])
        assert caught.value.status_code == 404
        with pytest.raises(ollama.ResponseError, match="brings no image"):
            list(client.generate(loaded.name, "Hello", stream=True))


def test_photoprism(address: str, loaded: Captioner, jpeg: bytes) -> None:
    asked = {
        "id": "0c5a6e1a-3a0f-4f0b-9f53-1f2d5a7f5f10",
        "model": f"{loaded.name}:latest",
        "prompt": "Create a caption with exactly one sentence in the active voice.",
        "suffix": "",
        "options": {"temperature": 0.1},
        "stream": False,
        "images": [text(jpeg)],
    }
    headers = {"Content-Type": "application/json", "User-Agent": "Go-http-client/1.1", "Accept-Encoding": "gzip"}
    reply = post(address, "/api/generate", json.dumps(asked), headers)
    assert (reply["model"], reply["response"], reply["done"]) == (asked["model"], loaded(jpeg).sentence, True)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", reply["created_at"])


class TestTriton:
    @pytest.fixture
    def client(self, address: str) -> Iterator[Any]:
        from tritonclient.http import InferenceServerClient

        with InferenceServerClient(urlsplit(address).netloc) as client:
            yield client

    @pytest.mark.parametrize("binary", [True, False])
    @pytest.mark.parametrize("shape", [(2,), (2, 1)])
    def test_it_infers(
        self, client: Any, loaded: Captioner, jpeg: bytes, png: bytes, binary: bool, shape: tuple[int, ...]
    ) -> None:
        import numpy as np
        from tritonclient.http import InferInput, InferRequestedOutput

        images = [jpeg, png] if binary else [text(jpeg).encode(), text(png).encode()]
        tensor = InferInput("image", shape, "BYTES")
        tensor.set_data_from_numpy(np.array(images, dtype=object).reshape(shape), binary_data=binary)
        wanted = [InferRequestedOutput(name, binary_data=binary) for name in ("score", "caption")]
        for outputs in (wanted, None):
            result = client.infer(loaded.name, [tensor], outputs=outputs, request_id="7", parameters={"max_length": 5})
            captions = [loaded(image, max_length=5) for image in (jpeg, png)]
            said = result.as_numpy("caption")
            assert said.shape == result.as_numpy("score").shape == shape
            decoded = [each.decode() if isinstance(each, bytes) else each for each in said.flat]
            assert decoded == [caption.text for caption in captions]
            assert result.as_numpy("score").ravel() == pytest.approx([caption.score for caption in captions], rel=1e-5)
            assert result.get_response()["id"] == "7"

    def test_it_learns_how_things_stand(self, client: Any, loaded: Captioner) -> None:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(loaded.name)
        assert client.is_model_ready(loaded.name, "1")
        assert not client.is_model_ready("poems")
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        assert client.get_model_metadata(loaded.name, "1")["inputs"] == [
            {"name": "image", "datatype": "BYTES", "shape": [-1]}
        ]

    def test_it_is_told_what_is_wrong(self, client: Any, loaded: Captioner, jpeg: bytes) -> None:
        import numpy as np
        from tritonclient.http import InferInput
        from tritonclient.utils import InferenceServerException

        tensor = InferInput("image", [2], "BYTES")
        tensor.set_data_from_numpy(np.array([jpeg, b"hello"], dtype=object))
        with pytest.raises(InferenceServerException, match="Image 1: "):
            client.infer(loaded.name, [tensor])


class TestKeys:
    KEY = "a-key-for-all-clients"

    @pytest.fixture
    def app(self, loaded: Captioner) -> Flask:
        return create_app(ServiceConfig(api_keys=(self.KEY,)), [loaded])

    def test_each_client_can_bring_one(self, address: str, loaded: Captioner, photo: Path) -> None:
        from tritonclient.http import InferenceServerClient

        bearer = {"Authorization": f"Bearer {self.KEY}"}
        assert InferenceClient(model=address, token=self.KEY).image_to_text(photo).generated_text == loaded(photo).text
        with openai.OpenAI(base_url=f"{address}/v1", api_key=self.KEY) as client:
            assert [model.id for model in client.models.list()] == [loaded.name]
        with ollama.Client(host=address, headers=bearer) as client:
            assert client.generate(loaded.name, images=[photo]).response == loaded(photo).sentence
        with InferenceServerClient(urlsplit(address).netloc) as client:
            assert client.is_model_ready(loaded.name, headers=bearer)
            assert not client.is_model_ready(loaded.name)

    def test_without_one_the_reason_is_told(self, address: str, loaded: Captioner, photo: Path) -> None:
        with (
            openai.OpenAI(base_url=f"{address}/v1", api_key="none") as client,
            pytest.raises(openai.AuthenticationError, match="asks for an API key"),
        ):
            client.models.list()
        with (
            ollama.Client(host=address) as client,
            pytest.raises(ollama.ResponseError, match="asks for an API key"),
        ):
            client.generate(loaded.name, images=[photo])


CLIENTS = {
    "curl": test_curl,
    "`requests`": test_forms,
    "MAX Image Caption Generator's, with `requests`": test_max,
    "`huggingface_hub`": test_huggingface_hub,
    "`huggingface_hub` before 2": test_older_huggingface_hub,
    "`openai`": TestOpenAI,
    "`ollama`": TestOllama,
    "PhotoPrism": test_photoprism,
    "`tritonclient`": TestTriton,
}
UNPINNED = {"curl": "any", "PhotoPrism": "its request", "`huggingface_hub` before 2": "its requests"}


def rows() -> dict[str, tuple[str, str]]:
    """Version and explanation by client, as the README's table tells."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Clients\n")[1].split("\n## ")[0]
    table = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in section.splitlines() if "|" in line]
    assert table[0] == ("client", "version tested", "what works")
    return {client: (version, works) for client, version, works in table[2:]}


def test_each_row_of_the_table_has_its_test() -> None:
    assert list(rows()) == list(CLIENTS)


@pytest.mark.parametrize("client", CLIENTS)
def test_the_versions_are_those_that_are_tested(client: str) -> None:
    version, works = rows()[client]
    pins = dict(re.findall(r"^(\S+)==(\S+)$", (ROOT / "requirements-dev.txt").read_text(), flags=re.MULTILINE))
    assert version == (UNPINNED.get(client) or pins[re.findall("`(.*)`", client)[0]])
    assert works
