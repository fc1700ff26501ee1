"""``captioner caption``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import captioner
from captioner.commands.streams import STDIN, require_other
from captioner.decoding.options import listed
from captioner.errors import CaptionerError, OptionError, one_line
from captioner.flags import decoding_of, network_of
from captioner.images import ImageSource, open_image
from captioner.results import Result

DRAWINGS = (".png", ".jpg", ".jpeg", ".webp")  # endings


def caption_command(arguments: argparse.Namespace) -> int:
    """``captioner caption``: every picture gets its line, failures theirs on stderr."""
    if arguments.attention and len(arguments.images) != 1:
        raise OptionError("--attention draws one picture: give one IMAGE")
    if arguments.attention:
        require_other(arguments.attention, arguments.images[0])
        _require_drawable(arguments.attention)
    options = decoding_of(arguments, "n_best", "max_length")
    model = captioner.load(arguments.model, **network_of(arguments))
    if arguments.sentence and model.info.tokenizer == "symbols" and model.word_reader is None:
        raise OptionError("--sentence: this model says symbols, and python -m training.words has not taught it words")
    sources = [sys.stdin.buffer.read() if name == STDIN else name for name in arguments.images]
    failed = False
    for name, source, result in zip(arguments.images, sources, model.batch(sources, **options), strict=True):
        failed |= result.error is not None
        _print_result(name, result, as_json=arguments.json, sentence=arguments.sentence)
        if arguments.attention and result.error is None:
            _draw(arguments.attention, source, result)
    return 1 if failed else 0


def _print_result(name: str, result: Result, *, as_json: bool, sentence: bool) -> None:
    if as_json:
        print(json.dumps({"image": name} | result.to_row(), ensure_ascii=False), flush=True)
    else:
        for caption in result.captions:
            print(f"{name}\t{caption.sentence if sentence else caption.text}", flush=True)
    if result.error is not None:
        print(f"captioner: {one_line(str(result.error))}", file=sys.stderr)


def _require_drawable(path: Path) -> None:
    if path.suffix.lower() not in DRAWINGS:
        raise OptionError(f"--attention: {path} is no name for a drawing, it must end in {listed(DRAWINGS)}")


def _draw(path: Path, source: ImageSource, result: Result) -> None:
    from captioner.attention import draw_attention

    try:
        draw_attention(open_image(source), result.captions[0]).save(path)
    except OSError as error:
        raise CaptionerError(f"cannot write {path}: {error.strerror or error}") from error
