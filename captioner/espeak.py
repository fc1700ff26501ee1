"""A process that speaks with espeak-ng. :mod:`captioner.speech` runs this file as a program, never imports it.

espeak-ng is a C library with hazards: some inputs crash it, and its state is global. In a process of its own a crash is
an error to report. It reads requests from standard input, a JSON object a line, and answers each on standard output
with a JSON line; ``bytes`` of 16-bit PCM follow it.

Request: ``{"voice", "rate", "pitch", "said", "phones": bool, "most_bytes"}``, ``said`` being short. Answer: ``{"bytes",
"sample_rate", "spoken"}``, ``spoken`` being the phones as espeak-ng reports them.
Request: ``{"voice", "transcribe": [...]}``. Answer: ``{"ipa": [...]}``.
Answer to either: ``{"refused"}``, why the request is wrong, or ``{"failed"}``, why espeak-ng is.

This file imports nothing of the package, so that it starts fast.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

# Names and values of espeak-ng 1.52, speak_lib.h.
SYNCHRONOUS = 2
PHONEME_EVENTS = 1
DONT_EXIT = 0x8000
RATE, PITCH = 1, 3
UTF8, PHONEMES, IPA = 1, 0x100, 0x02
CHARACTER = 1
EVENT_END, EVENT_PHONEME = 0, 7


class Event(ctypes.Structure):
    """``espeak_EVENT``; of its union ``id`` only the phoneme's name is read."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


class Voice(ctypes.Structure):
    """``espeak_VOICE``, as a wish."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))


class Espeak:
    """The library, initialised once for this process.

    Args:
        library: its shared object.
        data: folder that holds its voices.
    """

    def __init__(self, library: str, data: str) -> None:
        self._library = ctypes.CDLL(library)
        self._data = data
        self._library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self.sample_rate = self._library.espeak_Initialize(
            SYNCHRONOUS, 0, os.fsencode(data), PHONEME_EVENTS | DONT_EXIT
        )
        # Where it cannot read the folder, as one whose path is too long, it looks elsewhere and has no voice.
        self.works = self.sample_rate > 0 and self._select(b"en-us")
        self._pcm = bytearray()
        self._most = 0
        self._spoken: list[str] = []
        self._callback = CALLBACK(self._receive)  # kept: the library holds only its address
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self._pcm += ctypes.string_at(samples, 2 * count)
        index = 0
        while events[index].type != EVENT_END:
            if events[index].type == EVENT_PHONEME:
                self._spoken.append(events[index].id.decode("utf-8", "replace"))
            index += 1
        return int(len(self._pcm) > self._most)  # 1 ends the synthesis

    def _select(self, voice: bytes) -> bool:
        """Choose a voice by its name or, as en-gb is one, by its language; ``+`` and a variant may follow."""
        name, plus, variant = voice.partition(b"+")
        if plus and not (Path(self._data) / "voices" / "!v" / os.fsdecode(variant)).is_file():
            return False  # espeak-ng would leave the variant out
        if name == b"variant":
            return False  # it knows this one, but it says nothing
        if self._library.espeak_SetVoiceByName(voice) == 0:
            return True
        return bool(self._library.espeak_SetVoiceByProperties(ctypes.byref(Voice(languages=name))) == 0)

    def _transcribe(self, text: str) -> str:
        """IPA of one text, all its clauses."""
        buffer = ctypes.create_string_buffer(text.encode())  # named, because the library holds only its address
        rest = ctypes.c_void_p(ctypes.addressof(buffer))
        clauses = []
        while rest.value:
            clauses.append(self._library.espeak_TextToPhonemes(ctypes.byref(rest), UTF8, IPA))
        return " ".join(clause.decode() for clause in clauses if clause)

    def speak(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Answer one request."""
        if not self._select(request["voice"].encode()):
            return {"refused": f"espeak-ng has no voice {request['voice']!r}; try en-us or en-gb"}, b""
        if "transcribe" in request:
            return {"ipa": [self._transcribe(text) for text in request["transcribe"]]}, b""
        self._pcm.clear()
        self._spoken.clear()
        self._most = request["most_bytes"]
        self._library.espeak_SetParameter(RATE, request["rate"], 0)
        self._library.espeak_SetParameter(PITCH, request["pitch"], 0)
        flags = UTF8 | (PHONEMES if request["phones"] else 0)
        text = request["said"].encode()
        failed = self._library.espeak_Synth(text, len(text) + 1, 0, CHARACTER, 0, flags, None, None)
        if failed or self._library.espeak_Synchronize():
            return {"failed": "espeak-ng could not speak this"}, b""
        if len(self._pcm) > self._most:
            return {"refused": f"this would take longer than {self._most // 2 // self.sample_rate} seconds"}, b""
        pcm = bytes(self._pcm)
        return {"bytes": len(pcm), "sample_rate": self.sample_rate, "spoken": self._spoken}, pcm


def main() -> None:
    """Serve requests until standard input ends."""
    import espeakng_loader

    espeak = Espeak(espeakng_loader.get_library_path(), espeakng_loader.get_data_path())
    out = sys.stdout.buffer
    broken = {"failed": f"espeak-ng cannot read its data in {espeakng_loader.get_data_path()}"}
    for line in sys.stdin.buffer:
        answer, pcm = espeak.speak(json.loads(line)) if espeak.works else (broken, b"")
        out.write(json.dumps(answer).encode() + b"\n" + pcm)
        out.flush()


if __name__ == "__main__":
    main()
