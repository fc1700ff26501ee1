"""Phones or text → sound, through espeak-ng in a process of its own (:mod:`captioner.espeak`).

espeak-ng 1.52 drops the rest of a word behind an unknown symbol, crashes on some two hundred phones without a space
and misreads calls of more than some seven hundred bytes. So only known phones reach it, in chunks far below both; what
is long becomes a stream of sounds, a request to the process each.
"""

from __future__ import annotations

import importlib.util
import json
import re
import reprlib
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from captioner.chunks import phone_chunks, read_back, text_chunks
from captioner.config import require
from captioner.errors import DependencyError, OptionError, SpeechError
from captioner.phones import split_words, without_stress
from captioner.results import Caption
from captioner.sound import MAX_SECONDS, Sound, join

RATES = range(80, 451)  # words a minute
PITCHES = range(100)
MAX_TEXT = 10_000  # characters or phones of one sound; a stream has no limit
TIMEOUT = 60.0  # seconds that one chunk may take; twenty minutes of sound take a few


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
        require(self.rate in RATES, f"rate must be {RATES[0]} to {RATES[-1]} words a minute, not {self.rate}")
        require(self.pitch in PITCHES, f"pitch must be {PITCHES[0]} to {PITCHES[-1]}, not {self.pitch}")


DEFAULT_VOICE = Voice()


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
        return join(self.stream(text, voice))

    def phones(self, tokens: Sequence[str], voice: Voice = DEFAULT_VOICE) -> Sound:
        """Speak a phone sequence, with a voice of English: those of other languages lack some of its phones.

        Stress that is not told and pauses come from :mod:`captioner.prosody`. With ``en-us`` and ``en-gb``, what is
        reported as spoken equals what was asked for, variants of a phone being read back as that phone
        (:func:`captioner.chunks.read_back`); other accents say some phones in their own way.

        Raises:
            OptionError: a token is no phone, there are none or too many, or there is no such English voice.
            SpeechError: espeak-ng failed.
            DependencyError: stress is missing, and so is the dictionary that tells it.
        """
        require(len(tokens) <= MAX_TEXT, f"these are too many phones to speak: {len(tokens)}, at most {MAX_TEXT}")
        return join(self.stream_phones(tokens, voice))

    def stream(self, text: str | Iterable[str], voice: Voice = DEFAULT_VOICE) -> Iterator[Sound]:
        """Speak written words as they come; between two sounds, others may use the speaker.

        Args:
            text: of any length, whole or in parts, as the lines of a file are.
            voice: how.

        Raises:
            OptionError: the text is empty, or there is no such voice; with the first sound.
            SpeechError: espeak-ng failed.
        """
        return self._sounds(text_chunks(text), "there is no text to speak", voice, phones=False)

    def stream_phones(self, tokens: Sequence[str], voice: Voice = DEFAULT_VOICE) -> Iterator[Sound]:
        """Speak a phone sequence of any length, as :meth:`phones` and :meth:`stream` do.

        Raises:
            OptionError, SpeechError, DependencyError: as there, with the first sound.
        """
        require(
            voice.name.startswith("en"), f"phones are of English: voice must be one such as en-us, not {voice.name}"
        )
        return self._sounds(phone_chunks(tokens), "there are no phones to speak", voice, phones=True)

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

    def _sounds(self, chunks: Iterable[str], nothing: str, voice: Voice, *, phones: bool) -> Iterator[Sound]:
        settings = {"voice": voice.name, "rate": voice.rate, "pitch": voice.pitch, "phones": phones}
        limits = {"most_bytes": MAX_SECONDS * 2 * 22_050}
        empty = True
        for chunk in chunks:
            answer, pcm = self._request({**settings, **limits, "said": chunk})
            spoken = read_back(answer["spoken"]) if phones else answer["spoken"]
            yield Sound(pcm, answer["sample_rate"], tuple(spoken))
            empty = False
        require(not empty, nothing)

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
        try:
            without_stress(phone for word in split_words(caption.tokens) for phone in word)
        except OptionError as error:
            raise OptionError(f"model {caption.model!r} says phones that are not of English: {error}") from error
        return speaker.phones(caption.tokens, voice)
    return speaker.text(caption.sentence, voice)
