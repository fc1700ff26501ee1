"""Phones or text → sound, through espeak-ng in a process of its own (:mod:`captioner.espeak`).

espeak-ng 1.52 drops the rest of a word behind an unknown symbol, crashes on some two hundred phones without a space
and misreads calls of more than some seven hundred bytes. So only known phones reach it, in chunks far below both.
"""

from __future__ import annotations

import importlib.util
import io
import json
import re
import reprlib
import subprocess
import sys
import threading
import unicodedata
import wave
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from captioner.captioner import Caption
from captioner.config import require
from captioner.errors import DependencyError, OptionError, SpeechError
from captioner.phones import SCHWA, split_stress, split_words

MAX_PHONES = 40  # a chunk
MAX_BYTES = 600
MAX_TEXT = 10_000  # characters or phones
MAX_SECONDS = 1200  # of sound: numbers and symbols are longer aloud than on paper
TIMEOUT = 60.0  # seconds that one request may take; twenty minutes of sound take a few

STRESS_MARKS = {"": "", "0": "", "1": "'", "2": ","}


@dataclass(frozen=True)
class Voice:
    """How to speak.

    Attributes:
        name: by espeak-ng's names: ``en-us``, ``en-gb``, ``en-us+f3``, ...
        rate: words a minute, 80 to 450.
        pitch: 0 to 99.

    Raises:
        OptionError: a value is out of its range.
    """

    name: str = "en-us"
    rate: int = 160
    pitch: int = 50

    def __post_init__(self) -> None:
        named = re.fullmatch(r"[A-Za-z0-9+_-]{1,40}", self.name)
        require(named is not None, f"voice must be a name such as en-us, not {reprlib.repr(self.name)}")
        require(80 <= self.rate <= 450, f"rate must be 80 to 450 words a minute, not {self.rate}")
        require(0 <= self.pitch <= 99, f"pitch must be 0 to 99, not {self.pitch}")


DEFAULT_VOICE = Voice()


@dataclass(frozen=True)
class Sound:
    """Spoken audio.

    Attributes:
        pcm: 16-bit little-endian mono samples.
        sample_rate: samples a second.
        spoken: the phones as the engine reports them, in its own spelling.
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
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(self.sample_rate)
            file.writeframes(self.pcm)
        return buffer.getvalue()


class Speaker(Protocol):
    """Whatever speaks: espeak-ng here, another engine or a cloud voice elsewhere."""

    def text(self, text: str, voice: Voice = DEFAULT_VOICE) -> Sound:
        """Speak written words."""
        ...

    def phones(self, tokens: Sequence[str], voice: Voice = DEFAULT_VOICE) -> Sound:
        """Speak a phone sequence, see :mod:`captioner.phones`."""
        ...


class EspeakSpeaker:
    """Speaks with espeak-ng. Several threads may share one; it speaks one request at a time.

    Its process starts with the first request and ends with :meth:`close`, a ``with`` block or the object itself.

    Raises:
        DependencyError: the ``speech`` extra is not installed.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec("espeakng_loader") is None:
            raise DependencyError("speaking needs espeak-ng: pip install 'captioner[speech]' brings it")
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()

    def text(self, text: str, voice: Voice = DEFAULT_VOICE) -> Sound:
        """Speak written words.

        Raises:
            OptionError: the text is empty or takes too long to say, or there is no such voice.
            SpeechError: espeak-ng failed.
        """
        require(len(text) <= MAX_TEXT, f"the text is too long to speak: {len(text)} characters, at most {MAX_TEXT}")
        chunks = list(text_chunks(text))
        require(bool(chunks), "there is no text to speak")
        return self._speak(chunks, voice, phones=False)

    def phones(self, tokens: Sequence[str], voice: Voice = DEFAULT_VOICE) -> Sound:
        """Speak a phone sequence, with a voice of English: those of other languages lack some of its phones.

        Raises:
            OptionError: a token is no phone, there are none or too many, or there is no such English voice.
            SpeechError: espeak-ng failed.
        """
        require(
            voice.name.startswith("en"), f"phones are of English: voice must be one such as en-us, not {voice.name}"
        )
        require(len(tokens) <= MAX_TEXT, f"these are too many phones to speak: {len(tokens)}, at most {MAX_TEXT}")
        chunks = list(phone_chunks(tokens))
        require(bool(chunks), "there are no phones to speak")
        return self._speak(chunks, voice, phones=True)

    def transcribe(self, words: Sequence[str], voice: Voice = DEFAULT_VOICE) -> list[str]:
        """IPA of each word by the rules of espeak-ng.

        Raises:
            OptionError: there is no such voice.
            SpeechError: espeak-ng failed.
        """
        texts = [next(text_chunks(word), "") for word in words]
        answer, _ = self._request({"voice": voice.name, "transcribe": texts})
        ipa: list[str] = answer["ipa"]
        return ipa

    def close(self) -> None:
        """End the process; the next request would start another."""
        with self._turn:
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _speak(self, chunks: list[str], voice: Voice, *, phones: bool) -> Sound:
        settings = {"voice": voice.name, "rate": voice.rate, "pitch": voice.pitch}
        limits = {"most_bytes": MAX_SECONDS * 2 * 22_050}
        answer, pcm = self._request({**settings, **limits, "chunks": chunks, "phones": phones})
        return Sound(pcm, answer["sample_rate"], tuple(answer["spoken"]))

    def _request(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        with self._turn:
            answer, pcm = self._ask(json.dumps(request).encode() + b"\n")
        if "refused" in answer:
            raise OptionError(answer["refused"])
        if "failed" in answer:
            raise SpeechError(answer["failed"])
        return answer, pcm

    def _ask(self, request: bytes) -> tuple[dict[str, Any], bytes]:
        """One request to the process; it ends with the process if that crashes, hangs or babbles."""
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        watch = threading.Timer(TIMEOUT, process.kill)
        watch.start()
        try:
            process.stdin.write(request)
            process.stdin.flush()
            answer: dict[str, Any] = json.loads(process.stdout.readline())
            pcm = process.stdout.read(answer.get("bytes", 0))
            complete = len(pcm) == answer.get("bytes", 0)
        except (OSError, ValueError):  # a closed pipe, or no answer
            complete = False
        except BaseException:  # interrupted within an answer: the rest of it must not become the next one
            self._stop()
            raise
        finally:
            watch.cancel()
        if not complete:
            self._stop()
            raise SpeechError("espeak-ng broke down on this request; others will be spoken")
        return answer, pcm

    def _start(self) -> subprocess.Popen[bytes]:
        program = Path(__file__).with_name("espeak.py")
        try:
            process = subprocess.Popen(
                [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            raise SpeechError(f"espeak-ng's process cannot be started: {error.strerror}") from error
        self._end = weakref.finalize(self, _end, process)  # a speaker that is forgotten leaves nothing behind
        return process

    def _stop(self) -> None:
        if self._process is not None:
            self._end()
            self._process = None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def speak_caption(speaker: Speaker, caption: Caption, tokenizer: str, voice: Voice = DEFAULT_VOICE) -> Sound:
    """Speak what a model says, words as text and symbols as phones.

    Args:
        speaker: an engine.
        caption: to be spoken.
        tokenizer: of the model that said it.
        voice: how.

    Raises:
        OptionError: the caption is empty, or its symbols are no ARPAbet phones.
        SpeechError: the engine failed.
    """
    if tokenizer == "symbols":
        return speaker.phones(caption.tokens, voice)
    return speaker.text(caption.sentence, voice)


def text_chunks(text: str) -> Iterator[str]:
    """Text in parts that espeak-ng reads in one call: whole sentences where they fit, else whole words."""
    plain = "".join(" " if unicodedata.category(character)[0] == "C" else character for character in text)
    for sentence in re.split(r"(?<=[.!?;:])\s+", plain):
        part = ""
        for word in sentence.split():
            for piece in _cut(word):
                longer = f"{part} {piece}".strip()
                if len(longer.encode()) > MAX_BYTES:
                    yield part
                    longer = piece
                part = longer
        if part:
            yield part


def _cut(word: str) -> Iterator[str]:
    """A word in pieces of at most :data:`MAX_BYTES` bytes; four bytes are the most that a character has."""
    for start in range(0, len(word), MAX_BYTES // 4):
        yield word[start : start + MAX_BYTES // 4]


def phone_chunks(tokens: Sequence[str]) -> Iterator[str]:
    """Phones in parts that espeak-ng speaks in one call, in its spelling: ``"[[D|@ d|'O:|g]]"``.

    Raises:
        OptionError: a token is no phone.
    """
    chunk: list[str] = []
    count = 0
    for word in split_words(tokens):
        spelt = mnemonics(word)
        for start in range(0, len(spelt), MAX_PHONES):
            piece = spelt[start : start + MAX_PHONES]
            if count + len(piece) > MAX_PHONES:
                yield f"[[{' '.join(chunk)}]]"
                chunk, count = [], 0
            chunk.append("|".join(piece))
            count += len(piece)
    if chunk:
        yield f"[[{' '.join(chunk)}]]"


def mnemonics(word: Sequence[str]) -> list[str]:
    """A word's phones as espeak-ng spells them, stressed.

    Where the phones tell no stress, the first vowel other than AH gets it, and else an AH within consonants; what
    is left, such as DH AH, stays unstressed, its AH a schwa, as articles and most short function words are.

    Raises:
        OptionError: a token is no phone.
    """
    pairs = [split_stress(token) for token in word]
    if any(stress for _, stress in pairs):
        return [STRESS_MARKS[stress] + phone.espeak for phone, stress in pairs]
    full = [index for index, (phone, _) in enumerate(pairs) if phone.vowel and phone.arpabet != "AH"]
    short = [index for index, (phone, _) in enumerate(pairs) if phone.vowel and 0 < index < len(pairs) - 1]
    stressed = (full or short or [-1])[0]
    return [
        ("'" if index == stressed else "")
        + (SCHWA.espeak if phone.arpabet == "AH" and index != stressed else phone.espeak)
        for index, (phone, _) in enumerate(pairs)
    ]
