"""The ``captioner`` command: the one place that may import every room.

Exit codes: 0 all well; 1 some input failed, and stderr says which; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import captioner
from captioner.batch.arguments import add_parser as add_batch
from captioner.checkpoint import resolve
from captioner.commands.about import info_command, models_command
from captioner.commands.caption import caption_command
from captioner.commands.speak import speak_command
from captioner.commands.streams import STDIN, prepare_streams
from captioner.errors import CaptionerError, DependencyError, ModelError, OptionError, one_line
from captioner.flags import add_decoding_flags, add_network_flags
from captioner.graphs import FOLDER, make
from service.config import ServiceConfig, add_flags, read_flags


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    prepare_streams()
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
    caption.add_argument("--n-best", type=int, metavar="K", help="captions a picture, a line each [1]")
    caption.add_argument("--max-length", type=int, metavar="T", help="tokens at most [the model's own]")
    add_decoding_flags(caption.add_argument)
    caption.add_argument(
        "--sentence", action="store_true", help="a capital first letter and a full stop; of phones, their words"
    )
    caption.add_argument("--json", action="store_true", help="a JSON row a picture instead")
    caption.add_argument(
        "--attention", type=Path, metavar="OUT.png", help="draw where the model looked; one IMAGE only"
    )
    add_network_flags(caption.add_argument)

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

    info = commands.add_parser("info", help="all that a model says of itself, and what runs it here")
    info.set_defaults(run=info_command)
    info.add_argument("model", metavar="MODEL", help="a bundled model's name or a model directory")
    info.add_argument("--json", action="store_true", help="as JSON, with the vocabulary, without what runs it here")
    add_network_flags(info.add_argument)

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


def export_command(arguments: argparse.Namespace) -> int:
    """``captioner export``: a line a model, where its graphs are."""
    for name in dict.fromkeys(arguments.models):
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
