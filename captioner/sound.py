"""Spoken audio, and how it becomes a WAV file: whole, or in parts as it is made."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from captioner.config import require

MAX_SECONDS = 1200  # of one sound: numbers and symbols are longer aloud than on paper
OPEN_END = 0xFFFFFFFF  # in place of a length that is not known yet


@dataclass(frozen=True)
class Sound:
    """Spoken audio.

    Attributes:
        pcm: 16-bit little-endian mono samples.
        sample_rate: samples a second.
        spoken: the phones as the engine reports them, in its own spelling, stress and pauses included.
    """

    pcm: bytes = field(repr=False)
    sample_rate: int
    spoken: tuple[str, ...] = field(default=(), repr=False)

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.pcm) / 2 / self.sample_rate

    def wav(self) -> bytes:
        """The content of a WAV file."""
        return wav_header(self.sample_rate, len(self.pcm)) + self.pcm


def join(sounds: Iterable[Sound]) -> Sound:
    """One sound of one or more that follow one another.

    Raises:
        OptionError: it would take longer than :data:`MAX_SECONDS`.
    """
    parts: list[Sound] = []
    seconds = 0.0
    for sound in sounds:
        parts.append(sound)
        seconds += sound.seconds
        require(seconds <= MAX_SECONDS, f"this would take longer than {MAX_SECONDS} seconds")
    if len(parts) == 1:
        return parts[0]
    spoken = tuple(phone for part in parts for phone in part.spoken)
    return Sound(b"".join(part.pcm for part in parts), parts[0].sample_rate, spoken)


def wav_header(sample_rate: int, size: int = OPEN_END) -> bytes:
    """What stands before ``size`` bytes of 16-bit mono samples in a WAV file.

    Without ``size``, or where it is too large for the format, the header leaves the end open, as is usual in streams.
    """
    size, whole = (size, size + 36) if size + 36 < OPEN_END else (OPEN_END, OPEN_END)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", whole, b"WAVE") + form + struct.pack("<4sI", b"data", size)


def wav_stream(sounds: Iterable[Sound]) -> Iterator[bytes]:
    """A WAV file in parts, each as soon as it is spoken; its header leaves the end open."""
    started = False
    for sound in sounds:
        if not started:
            yield wav_header(sound.sample_rate)
            started = True
        yield sound.pcm
