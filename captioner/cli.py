"""The ``captioner`` command: the one place that may import every room.

Exit codes: 0 all well; 1 some input failed, and stderr says which; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import io
import itertools
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import captioner
from captioner.batch.arguments import add_parser as add_batch
from captioner.captioner import Result
from captioner.checkpoint import ModelInfo, bundled_models, read_info, resolve
from captioner.config import ModelConfig
from captioner.errors import CaptionerError, DependencyError, ModelError, OptionError, one_line
from captioner.graphs import FOLDER, make
from captioner.images import ImageSource, open_image
from captioner.loading import AUTO, ENGINES
from captioner.sound import Sound, wav_header, wav_stream
from service.config import ServiceConfig, add_flags, read_flags

STDIN = "-"
AS_IT_CAME = "captioner.as_it_came"  # what is done about letters that a stream cannot take
OPTIONS = ("beam_size", "n_best", "max_length", "length_penalty", "no_repeat_ngram", "rank")
READ_AT_ONCE = 10_000  # characters of text to speak


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    _prepare_streams()
    arguments = _parse(make_parser(), argv)
    if arguments.run is not serve_command:  # which keeps a log of its own
        _tell_what_takes_long()
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()  # here, where a failure can be told
    except CaptionerError as error:
        print(f"captioner: {one_line(str(error))}", file=sys.stderr)
        return 2 if isinstance(error, OptionError | ModelError) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains again as it ends
        return 1
    except OSError as error:
        print(f"captioner: cannot write the output: {error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _prepare_streams() -> None:
    """Let names go out whatever they are: as the bytes they came in, or spelt out where the locale lacks a letter."""
    codecs.register_error(AS_IT_CAME, _as_it_came)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by who started this; print() would take the other one
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - to the end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=AS_IT_CAME)


def _as_it_came(error: UnicodeError) -> tuple[str | bytes, int]:
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.backslashreplace_errors(error)


def _require_other(output: Path, given: str) -> None:
    """Raise :class:`OptionError` where an output would take the place of an input."""
    same = False
    with contextlib.suppress(OSError, ValueError):  # one of them is no file, yet or at all
        same = output.samefile(given)
    if same:
        raise OptionError(f"{output} is the picture itself: name another file for the output")


def _parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """What the arguments say; those that may be several may have options between them, too.

    argparse takes them to be complete where the first option stands, and what follows to be unknown.
    """
    arguments, rest = parser.parse_known_args(argv)
    several: list[str] | None = getattr(arguments, getattr(arguments, "several", ""), None)
    names_alone = rest.index("--") if "--" in rest else len(rest)
    more = rest[:names_alone]
    if rest and (several is None or any(one.startswith("-") and one != STDIN for one in more)):
        arguments.parser.error(f"unrecognized arguments: {' '.join(rest)}; a name that begins with - goes behind --")
    if several is not None:
        several += more + rest[names_alone + 1 :]
    return arguments


class _Told(logging.Handler):
    """Messages of the library as the command's own."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"captioner: {record.getMessage()}", file=sys.stderr)


def _tell_what_takes_long() -> None:
    log = logging.getLogger("captioner")
    log.setLevel(logging.INFO)
    if not any(isinstance(handler, _Told) for handler in log.handlers):
        log.addHandler(_Told())


def make_parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    parser = argparse.ArgumentParser(prog="captioner", description="Say what a picture shows.")
    parser.add_argument("--version", action="version", version=f"captioner {captioner.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    caption = commands.add_parser("caption", help="caption pictures", description="Prints path, tab, caption a line.")
    caption.set_defaults(run=caption_command, several="images")
    caption.add_argument("images", nargs="+", metavar="IMAGE", help="a picture's path; - reads a picture from stdin")
    caption.add_argument("--model", default="words", help="a bundled model's name or a model directory [words]")
    caption.add_argument("--beam-size", type=int, metavar="N", help="hypotheses kept; 1 is greedy [the model's own]")
    caption.add_argument("--n-best", type=int, metavar="K", help="captions a picture, a line each [1]")
    caption.add_argument("--max-length", type=int, metavar="T", help="tokens at most [the model's own]")
    caption.add_argument("--length-penalty", type=float, metavar="P", help="0 prefers short ones [the model's own]")
    caption.add_argument("--no-repeat-ngram", type=int, metavar="N", help="say no N tokens twice [the model's own]")
    caption.add_argument("--rank", metavar="BY", help="score, cider or consensus, see README.md [the model's own]")
    caption.add_argument(
        "--sentence", action="store_true", help="a capital first letter and a full stop; of phones, their words"
    )
    caption.add_argument("--json", action="store_true", help="a JSON row a picture instead")
    caption.add_argument(
        "--attention", type=Path, metavar="OUT.png", help="draw where the model looked; one IMAGE only"
    )
    caption.add_argument("--engine", default=AUTO, help=f"what runs the network: {', '.join(ENGINES)} [{AUTO}]")
    caption.add_argument("--device", help="for engine torch: cpu, cuda or mps [the best one here]")
    caption.add_argument("--precision", default="fp32", help="fp32, or bf16 or int8: faster, less exact [fp32]")
    caption.add_argument("--threads", type=int, metavar="N", help="cores that the network may use [all]")

    add_batch(commands)

    speak = commands.add_parser(
        "speak", help="say aloud what a picture shows", description="Writes a WAV file, and prints what it says."
    )
    speak.set_defaults(run=speak_command)
    said = speak.add_mutually_exclusive_group(required=True)
    said.add_argument("image", nargs="?", metavar="IMAGE", help="a picture's path; - reads a picture from stdin")
    said.add_argument("--text", help="speak this text instead; - reads a text of any length from stdin")
    said.add_argument("--phones", help="speak these ARPAbet phones instead: 'DH AH0 | D AO1 G'")
    speak.add_argument("--output", required=True, type=Path, metavar="OUT.wav", help="16-bit mono; - writes to stdout")
    speak.add_argument("--from", dest="model", metavar="MODEL", help="with IMAGE: the model that captions it [words]")
    speak.add_argument("--voice", default="en-us", help="a voice of espeak-ng, such as en-gb or en-us+f3 [en-us]")
    speak.add_argument("--rate", type=int, default=160, help="words a minute [160]")
    speak.add_argument("--pitch", type=int, default=50, help="0 to 99 [50]")

    models = commands.add_parser("models", help="list the bundled models with their figures")
    models.set_defaults(run=models_command)

    info = commands.add_parser("info", help="all that a model says of itself")
    info.set_defaults(run=info_command)
    info.add_argument("model", metavar="MODEL", help="a bundled model's name or a model directory")
    info.add_argument("--json", action="store_true", help="as JSON, vocabulary included")

    export = commands.add_parser(
        "export",
        help="prepare models for running without torch",
        description="Exports models and puts the graphs beside their weights, where all users of the model find them. "
        "Otherwise each user's first use does that, for his own cache.",
    )
    export.set_defaults(run=export_command)
    export.add_argument("models", nargs="+", metavar="MODEL", help="a bundled model's name or a model directory")

    serve = commands.add_parser("serve", help="caption over HTTP")
    serve.set_defaults(run=serve_command)
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all [127.0.0.1]")
    serve.add_argument("--port", type=int, default=8000, help="TCP port [8000]")
    serve.add_argument("--workers", type=int, default=1, help="processes, each with its own models [1]")
    serve.add_argument("--threads", type=int, default=0, help="requests that a worker has in hand [as its queue needs]")
    add_flags(serve)
    for command in commands.choices.values():
        command.set_defaults(parser=command)  # which tells its own usage
    return parser


def caption_command(arguments: argparse.Namespace) -> int:
    """``captioner caption``: every picture gets its line, failures theirs on stderr."""
    if arguments.attention and len(arguments.images) != 1:
        raise OptionError("--attention draws one picture: give one IMAGE")
    if arguments.attention:
        _require_other(arguments.attention, arguments.images[0])
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


def speak_command(arguments: argparse.Namespace) -> int:
    """``captioner speak``: a picture, a text or phones, as a WAV file that is written as it is spoken."""
    from captioner.phones import parse_phones
    from captioner.speech import EspeakSpeaker, Voice, speak_caption

    if arguments.model is not None and arguments.image is None:
        raise OptionError("--from names the model that captions a picture: give an IMAGE")
    if arguments.image is not None:
        _require_other(arguments.output, arguments.image)
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


def models_command(_arguments: argparse.Namespace) -> int:
    """``captioner models``: a line a model, its dev figures behind its name."""
    for name in bundled_models():
        info = read_info(name)
        print(f"{name}\t{_figures(info)}\t{info.description}")
    return 0


def info_command(arguments: argparse.Namespace) -> int:
    """``captioner info``."""
    info = read_info(arguments.model)
    if arguments.json:
        print(json.dumps(info.to_dict(), ensure_ascii=False, indent=2))
        return 0
    model, image = info.model, info.image
    facts = {
        "name": info.name,
        "description": info.description,
        "figures": _figures(info) or "none recorded",
        "pictures": f"{image.width} x {image.height} pixels, {image.fit}",
        "encoder": f"{model.encoder}, grid {model.grid_rows} x {model.grid_columns} x {model.grid_features}",
        "decoder": _decoder(model),
        "vocabulary": f"{len(info.vocabulary)} {info.tokenizer}",
        "decoding": ", ".join(f"{name} {value}" for name, value in info.decoding.to_dict().items()),
        "trained on": ", ".join(f"{count} {split}" for split, count in info.provenance.get("images", {}).items()),
    }
    for name, fact in facts.items():
        print(f"{name:12} {fact}")
    print(f"{'engine':12} {_engine(arguments.model)}", flush=True)
    return 0


def _engine(model: str) -> str:
    """What runs a model here, and why."""
    try:
        loaded = captioner.load(model)
    except CaptionerError as error:  # the rest is true all the same
        return f"none: {error}"
    return f"{loaded.engine.name}: {loaded.reason}"


def _decoder(model: ModelConfig) -> str:
    """An architecture behind its grid: what it consists of with the widths, then what it does besides."""
    attention = f"{model.attention} attention" + f" {model.attention_size}" * (model.attention == "additive")
    besides = ("gated_context", "input_feeding", "sentinel", "tied_output")
    return ", ".join(
        [
            f"reader {model.reader} {model.value_size}",
            f"{model.layers} x {model.cell} {model.hidden_size}",
            "no attention" if model.attention == "none" else f"{attention} {model.attend} the cells",
            f"image at {model.image_input.replace('both', 'start and steps')}",
            f"embedding {model.embedding_size}",
            *(name.replace("_", " ") for name in besides if getattr(model, name)),
        ]
    )


def _figures(info: ModelInfo) -> str:
    return "; ".join(
        f"{split} " + " ".join(f"{metric} {value:.3f}" for metric, value in values["scores"].items())
        for split, values in info.figures.items()
    )


def export_command(arguments: argparse.Namespace) -> int:
    """``captioner export``: a line a model, where its graphs are."""
    for name in arguments.models:
        model = resolve(name)
        try:
            made = make(model, model / FOLDER)
        except OSError as error:
            reason = error.strerror or error
            raise CaptionerError(f"cannot write beside the model {name}: {reason}; copy it to where you may") from error
        print(f"{name}\t{made}", flush=True)
    return 0


def serve_command(arguments: argparse.Namespace) -> int:
    """``captioner serve``."""
    config = ServiceConfig.from_environment(flags=read_flags(arguments))

    missing = [package for package in ("flask", "gunicorn", "prometheus_client") if not find_spec(package)]
    if missing:
        raise DependencyError(f"serving needs {', '.join(missing)}: pip install 'captioner[serve]' brings it")
    from service.server import run

    run(config, host=arguments.host, port=arguments.port, workers=arguments.workers, threads=arguments.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
