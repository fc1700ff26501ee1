"""``captioner speak``."""

from __future__ import annotations

import argparse
import io
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import captioner
from captioner.commands.streams import STDIN, require_other
from captioner.errors import CaptionerError, OptionError
from captioner.sound import Sound, wav_header, wav_stream

READ_AT_ONCE = 10_000  # characters of text to speak


def speak_command(arguments: argparse.Namespace) -> int:
    """``captioner speak``: a picture, a text or phones, as a WAV file that is written as it is spoken."""
    from captioner.phones import parse_phones
    from captioner.speech import EspeakSpeaker, Voice, speak_caption

    if arguments.model is not None and arguments.image is None:
        raise OptionError("--from names the model that captions a picture: give an IMAGE")
    if arguments.image is not None:
        require_other(arguments.output, arguments.image)
    voice = Voice(arguments.voice, arguments.rate, arguments.pitch)
    with EspeakSpeaker() as speaker:
        if arguments.text == STDIN:
            said, sounds = "", speaker.stream(_read_text(), voice)
        elif arguments.text is not None:
            said, sounds = arguments.text, speaker.stream(arguments.text, voice)
        elif arguments.phones is not None:
            said, sounds = arguments.phones, speaker.stream_phones(parse_phones(arguments.phones), voice)
        else:
            model = captioner.load(arguments.model or "words")
            caption = model(sys.stdin.buffer.read() if arguments.image == STDIN else arguments.image)
            said = caption.text if caption.words is None else f"{caption.text}\n{caption.words}"
            sounds = iter([speak_caption(speaker, caption, model.info.tokenizer, voice)])
        _write_sounds(arguments.output, sounds)
    if said and str(arguments.output) != STDIN:
        print(said)
    return 0


def _read_text() -> Iterator[str]:
    """Standard input, a line at a time or what of a line is bearable at once."""
    text = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", errors="replace")
    return iter(lambda: text.readline(READ_AT_ONCE), "")


def _write_sounds(path: Path, sounds: Iterator[Sound]) -> None:
    first = next(sounds)  # what cannot be spoken leaves no file
    parts = wav_stream(itertools.chain([first], sounds))
    if str(path) == STDIN:
        for part in parts:
            sys.stdout.buffer.write(part)
            sys.stdout.buffer.flush()
        return
    try:
        with path.open("wb") as file:
            size = sum(file.write(part) for part in parts) - len(wav_header(first.sample_rate))
            if file.seekable():  # now that its length is known
                file.seek(0)
                file.write(wav_header(first.sample_rate, size))
    except OSError as error:
        raise CaptionerError(f"cannot write {path}: {error.strerror or error}") from error
