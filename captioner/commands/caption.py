"""``captioner caption``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import captioner
from captioner.captioner import Result
from captioner.commands.streams import STDIN, require_other
from captioner.errors import CaptionerError, OptionError, one_line
from captioner.images import ImageSource, open_image

OPTIONS = ("beam_size", "n_best", "max_length", "length_penalty", "no_repeat_ngram", "rank")


def caption_command(arguments: argparse.Namespace) -> int:
    """``captioner caption``: every picture gets its line, failures theirs on stderr."""
    if arguments.attention and len(arguments.images) != 1:
        raise OptionError("--attention draws one picture: give one IMAGE")
    if arguments.attention:
        require_other(arguments.attention, arguments.images[0])
    given = {name: getattr(arguments, name) for name in OPTIONS}
    options = {name: value for name, value in given.items() if value is not None}
    model = captioner.load(
        arguments.model,
        engine=arguments.engine,
        device=arguments.device,
        precision=arguments.precision,
        threads=arguments.threads,
    )
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


def _draw(path: Path, source: ImageSource, result: Result) -> None:
    from captioner.attention import draw_attention

    try:
        draw_attention(open_image(source), result.captions[0]).save(path)
    except (OSError, ValueError) as error:  # ValueError: a file name whose ending is no picture format
        reason = error.strerror if isinstance(error, OSError) else "its name must end in .png or .jpg"
        raise CaptionerError(f"cannot write {path}: {reason}") from error
