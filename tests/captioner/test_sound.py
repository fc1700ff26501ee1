from __future__ import annotations

import io
import wave

import pytest

from captioner import sound as sounds
from captioner.errors import OptionError
from captioner.sound import OPEN_END, Sound, join, wav_header, wav_stream

SOUND = Sound(b"\1\0\2\0", 22050, ("a",))


def test_a_wav_file_says_how_long_it_is() -> None:
    with wave.open(io.BytesIO(SOUND.wav())) as file:
        assert file.getparams()[:4] == (1, 2, 22050, 2)
        assert file.readframes(5) == SOUND.pcm


def test_a_stream_leaves_its_end_open_and_is_read_all_the_same() -> None:
    header, *parts = wav_stream([SOUND, SOUND])
    assert parts == [SOUND.pcm] * 2
    assert header == wav_header(22050)
    assert header[4:8] == header[40:44] == b"\xff\xff\xff\xff"
    with wave.open(io.BytesIO(header + b"".join(parts))) as file:
        assert file.readframes(5) == SOUND.pcm * 2


def test_a_stream_starts_with_its_first_sound() -> None:
    def broken() -> object:
        yield SOUND
        raise OptionError("no more")

    stream = wav_stream(broken())  # type: ignore[arg-type]
    assert [next(stream), next(stream)] == [wav_header(22050), SOUND.pcm]
    with pytest.raises(OptionError, match="no more"):
        next(stream)


def test_what_the_format_cannot_hold_is_left_open() -> None:
    assert wav_header(22050, OPEN_END - 36) == wav_header(22050)
    assert wav_header(22050, OPEN_END - 38) != wav_header(22050)


def test_sounds_become_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert join([SOUND, SOUND]) == Sound(SOUND.pcm * 2, 22050, ("a", "a"))
    assert join([SOUND]) is SOUND
    monkeypatch.setattr(sounds, "MAX_SECONDS", SOUND.seconds)
    with pytest.raises(OptionError, match="longer than"):
        join([SOUND, SOUND])
