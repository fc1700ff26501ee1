"""``POST /v1/speech``."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Callable, Iterator

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from captioner import Captioner
from captioner.errors import OptionError, SpeechError
from captioner.sound import Sound
from captioner.speech import EspeakSpeaker, Voice
from service.routes import speech

Refused = Callable[[TestResponse, int, str], str]
URL = "/v1/speech"


def seconds(response: TestResponse) -> object:
    """Length of the sound in a reply, to compare with another.

    espeak-ng never says the same twice: from call to call its samples differ by a little, and their number too.
    """
    assert response.status_code == 200, response.get_data()
    assert response.mimetype == "audio/wav"
    with wave.open(io.BytesIO(response.get_data())) as file:
        return pytest.approx(file.getnframes() / file.getframerate(), rel=0.01)


@pytest.fixture(scope="module")
def speaker() -> Iterator[EspeakSpeaker]:
    with EspeakSpeaker() as speaker:
        yield speaker


def test_an_image_is_described_aloud(
    client: FlaskClient, loaded: Captioner, speaker: EspeakSpeaker, jpeg: bytes, png: bytes
) -> None:
    for image in (jpeg, png):
        expected = speaker.text(loaded(image).sentence).seconds
        assert seconds(client.post(URL, data=image)) == expected
        assert seconds(client.post(URL, data={"image": (io.BytesIO(image), "a")})) == expected
        assert seconds(client.post(URL, json={"image": base64.b64encode(image).decode()})) == expected
    one = speaker.text(loaded(png, max_length=1).sentence, Voice("en-gb", rate=300)).seconds
    assert seconds(client.post(URL + "?max_length=1&voice=en-gb&rate=300", data=png)) == one


def test_text_and_phones_are_spoken(client: FlaskClient, speaker: EspeakSpeaker) -> None:
    assert seconds(client.post(URL, json={"text": "A dog."})) == speaker.text("A dog.").seconds
    phones = ["AH0", "|", "D", "AO1", "G"]
    assert (
        seconds(client.post(URL, json={"phones": phones, "rate": 80})) == speaker.phones(phones, Voice(rate=80)).seconds
    )


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"text": 5}, "bad_request"),
        ({"phones": "AH0"}, "bad_request"),
        ({"phones": ["AH0", 5]}, "bad_request"),
        ({"phones": ["QQ"]}, "bad_option"),
        ({"phones": []}, "bad_option"),
        ({"phones": [" ".join(["AA |"] * 10_001)]}, "bad_option"),
        ({"text": " "}, "bad_option"),
        ({"text": "a", "phones": ["AH0"]}, "bad_request"),
        ({"text": "a", "image": "YQ=="}, "bad_request"),
        ({}, "bad_request"),
        ({"text": "a", "beam_size": 3}, "bad_option"),
        ({"phones": ["AA"] * 10_001}, "bad_option"),
        ({"text": "a", "voice": 3}, "bad_option"),
        ({"text": "a", "voice": "klingon-x"}, "bad_option"),
        ({"text": "a", "rate": 1000}, "bad_option"),
        ({"text": "a", "rate": "fast"}, "bad_option"),
    ],
)
def test_what_cannot_be_spoken_is_refused(
    client: FlaskClient, refused: Refused, fields: dict[str, object], code: str
) -> None:
    refused(client.post(URL, json=fields), 400, code)


def test_bad_images_are_refused_as_for_captions(client: FlaskClient, refused: Refused, jpeg: bytes) -> None:
    refused(client.post(URL, data=b"hello"), 415, "not_an_image")
    refused(client.post(URL, data=jpeg[:-100]), 422, "image_broken")
    refused(client.post(URL), 400, "empty_body")
    two = {"image": [(io.BytesIO(jpeg), "a"), (io.BytesIO(jpeg), "b")]}
    refused(client.post(URL, data=two), 413, "too_many_images")


@pytest.mark.parametrize("option", ["n_best=2", "attention=true", "text=a"])
def test_what_would_be_ignored_is_refused(client: FlaskClient, refused: Refused, jpeg: bytes, option: str) -> None:
    assert "no meaning here" in refused(client.post(f"{URL}?{option}", data=jpeg), 400, "bad_option")


def test_what_is_spoken_stands_in_the_body(client: FlaskClient, refused: Refused) -> None:
    assert "text" in refused(client.post(f"{URL}?text=a", json={"phones": ["AH0"]}), 400, "bad_option")


LONG = "A dog runs through the grass. " * 500


@pytest.mark.parametrize("where", ["field", "query"])
def test_speech_is_streamed_as_it_is_made(client: FlaskClient, where: str) -> None:
    fields = {"text": LONG, "rate": 450} | ({"stream": True} if where == "field" else {})
    response = client.post(URL + ("?stream=true" if where == "query" else ""), json=fields, buffered=False)
    assert (response.status_code, response.mimetype) == (200, "audio/wav")
    assert "Content-Length" not in response.headers
    parts = response.iter_encoded()
    header = next(parts)
    assert header.startswith(b"RIFF\xff\xff\xff\xffWAVE")
    assert len(next(parts)) > 10_000
    response.close()
    assert client.post(URL, json={"text": "A dog."}).status_code == 200, "who stops early leaves the speaker usable"


def test_what_is_streamed_is_what_is_spoken(client: FlaskClient, speaker: EspeakSpeaker, png: bytes) -> None:
    phones = ["AH0", "|", "D", "AO1", "G"]
    for given, whole in (
        (client.post(URL, json={"text": "A dog. A cat.", "stream": True}), speaker.text("A dog. A cat.")),
        (client.post(URL, json={"phones": phones, "stream": True}), speaker.phones(phones)),
    ):
        with given:
            assert (len(given.get_data()) - 44) / 2 / 22050 == pytest.approx(whole.seconds, rel=0.01)
    assert client.post(URL + "?stream=1", data=png).get_data().startswith(b"RIFF\xff")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text": LONG}, "too long to speak"),
        ({"text": LONG, "stream": True}, "at most 12000"),
        ({"phones": ["AA"] * 12_001, "stream": True}, "too many phones"),
        ({"text": " ", "stream": True}, "no text"),
        ({"text": "a", "voice": "klingon-x", "stream": True}, "no voice"),
        ({"text": "a", "stream": "perhaps"}, "true or false"),
    ],
)
def test_what_cannot_be_streamed_is_refused_at_once(
    client: FlaskClient, refused: Refused, monkeypatch: pytest.MonkeyPatch, fields: dict[str, object], message: str
) -> None:
    monkeypatch.setattr(speech, "MAX_STREAM", 12_000)
    assert message in refused(client.post(URL, json=fields), 400, "bad_option")


def test_streams_leave_room_for_other_requests(client: FlaskClient, refused: Refused) -> None:
    streams = [client.post(URL, json={"text": LONG, "stream": True}) for _ in range(speech.MAX_STREAMS)]
    refused_one = client.post(URL, json={"text": "A dog.", "stream": True})
    assert "try again later" in refused(refused_one, 429, "busy")
    assert int(refused_one.headers["Retry-After"]) > 0
    assert client.post(URL, json={"text": "A dog."}).status_code == 200
    streams[0].close()
    refused(client.post(URL, json={"text": " ", "stream": True}), 400, "bad_option")
    last = client.post(URL, json={"text": "A dog.", "stream": True})
    assert last.get_data().startswith(b"RIFF")
    last.close()
    streams[1].close()


def test_a_stream_ends_some_time(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech, "MAX_STREAM_SECONDS", 3)
    with pytest.raises(OptionError, match="ends after 3 seconds"):
        client.post(URL, json={"text": "A dog. " * 1000, "stream": True}).get_data()


def test_a_failure_within_a_stream_breaks_it_off_and_is_logged(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: EspeakSpeaker, text: str, voice: Voice) -> Iterator[Sound]:
        yield Sound(b"\1\0" * 100, 22050)
        raise SpeechError("espeak-ng broke down")

    monkeypatch.setattr(EspeakSpeaker, "stream", broken)
    response = client.post(URL, json={"text": "a", "stream": True}, headers={"X-Request-ID": "this-one"})
    parts = response.iter_encoded()
    assert [next(parts)[:4], next(parts)] == [b"RIFF", b"\1\0" * 100]
    with pytest.raises(SpeechError):  # the server closes the connection before its end: the listener can tell
        next(parts)
    assert "request this-one broke off" in caplog.text


def test_refusals_stay_short(client: FlaskClient, refused: Refused) -> None:
    for fields in ({"phones": ["A" * 50_000]}, {"text": "a", "voice": "x" * 50_000}, {"text": "a", "y" * 50_000: 1}):
        assert len(refused(client.post(URL, json=fields), 400, "bad_option")) < 500


def test_without_the_extra_the_reply_names_it(
    client: FlaskClient, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "captioner[speech]" in refused(client.post(URL, json={"text": "a"}), 501, "missing_dependency")
