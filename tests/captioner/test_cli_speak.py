"""``captioner speak`` as it is typed."""

from __future__ import annotations

import io
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest

from captioner import Captioner
from captioner.cli import main
from captioner.errors import SpeechError
from captioner.sound import Sound
from captioner.speech import EspeakSpeaker, Voice


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    return tmp_path / "out.wav"


def seconds(path: Path) -> object:
    """espeak-ng never says the same twice: its samples differ by a little, and their number too."""
    with wave.open(str(path)) as file:
        return pytest.approx(file.getnframes() / file.getframerate(), rel=0.01)


def test_a_picture_is_described_aloud(
    tiny_model_dir: Path, tiny_captioner: Captioner, photo: Path, wav: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["speak", str(photo), "--output", str(wav), "--from", str(tiny_model_dir)]) == 0
    caption = tiny_captioner(photo)
    assert capsys.readouterr().out == caption.text + "\n"
    with EspeakSpeaker() as speaker:
        assert seconds(wav) == speaker.text(caption.sentence).seconds


def test_text_and_phones_are_spoken_as_asked(wav: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with EspeakSpeaker() as speaker:
        assert main(["speak", "--text", "A dog.", "--output", str(wav), "--voice", "en-gb", "--rate", "200"]) == 0
        assert seconds(wav) == speaker.text("A dog.", Voice("en-gb", rate=200)).seconds
        assert main(["speak", "--phones", "AH0 | D AO1 G", "--output", str(wav), "--rate", "90"]) == 0
        assert seconds(wav) == speaker.phones(["AH0", "|", "D", "AO1", "G"], Voice(rate=90)).seconds
    assert capsys.readouterr().out == "A dog.\nAH0 | D AO1 G\n"


def test_speech_can_go_to_standard_output() -> None:
    command = [sys.executable, "-m", "captioner.cli", "speak", "--text", "hello", "--output", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout.startswith(b"RIFF")
    assert len(done.stdout) > 10_000


def test_a_long_text_is_read_from_standard_input(
    wav: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = b"A dog runs through the grass. " * 50
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert main(["speak", "--rate", "450", "--text", "-", "--output", str(wav)]) == 0
    assert capsys.readouterr().out == ""
    with wave.open(str(wav)) as file:
        assert file.getnframes() / file.getframerate() > 25
        assert wav.stat().st_size == 44 + 2 * file.getnframes()


def test_speech_starts_before_its_text_has_ended() -> None:
    command = [sys.executable, "-m", "captioner.cli", "speak", "--text", "-", "--output", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"A first line.\nA second one, caf\xe9.\nA third")
        process.stdin.flush()
        heard = process.stdout.read(20_000)
        process.stdin.close()
        heard += process.stdout.read()
    assert process.returncode == 0
    assert heard.startswith(b"RIFF\xff\xff\xff\xffWAVE")
    assert len(heard) > 80_000


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--text", " "], 2, "no text"),
        (["--phones", "QQ"], 2, "'QQ' is no ARPAbet phone"),
        (["--text", "a", "--voice", "klingon-x"], 2, "no voice"),
        (["--text", "a", "--rate", "1"], 2, "rate"),
        (["--text", "a", "--pitch", "100"], 2, "pitch"),
        (["--text", "a", "--from", "words"], 2, "give an IMAGE"),
        (["missing.jpg", "--from", "no-such-model"], 2, "no-such-model"),
    ],
)
def test_what_cannot_be_spoken_is_told(
    wav: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert main(["speak", *arguments, "--output", str(wav)]) == code
    assert message in capsys.readouterr().err
    assert not wav.exists()


def test_a_picture_that_is_not_there_is_told(bundled: None, wav: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speak", "missing.jpg", "--output", str(wav)]) == 1
    assert "missing.jpg does not exist" in capsys.readouterr().err
    assert not wav.exists()


def test_what_broke_off_is_told_and_what_was_spoken_stays(
    wav: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: EspeakSpeaker, text: str, voice: Voice) -> Iterator[Sound]:
        yield Sound(b"\1\0" * 100, 22050)
        raise SpeechError("espeak-ng broke down")

    monkeypatch.setattr(EspeakSpeaker, "stream", broken)
    assert main(["speak", "--text", "a", "--output", str(wav)]) == 1
    assert "broke down" in capsys.readouterr().err
    with wave.open(str(wav)) as file:
        assert file.readframes(200) == b"\1\0" * 100


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speak", "--text", "a", "--output", str(tmp_path / "none" / "out.wav")]) == 1
    assert "out.wav: No such file or directory" in capsys.readouterr().err


def test_speaking_takes_one_thing(photo: Path, wav: Path) -> None:
    for arguments in ([], [str(photo), "--text", "a"]):
        with pytest.raises(SystemExit, match="2"):
            main(["speak", *arguments, "--output", str(wav)])
