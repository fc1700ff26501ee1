"""The options of ``captioner batch``. What it does with them is imported when it is to be done."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from captioner.batch.choices import FORMATS, ON_EXISTING, SKIP
from captioner.batch.cluster.options import add_arguments as add_cluster
from captioner.flags import add_decoding_flags, add_network_flags

BATCH_SIZE = 32

DESCRIPTION = """\
Captions every picture once, whatever happens in between: a run that was stopped, killed or cut off goes on where it
was when the same command is given again, and its output is then the same as if nothing had happened. --prefix,
--suffix, --max-length and --sentence shape the text in all formats alike. The exit code is 1 where a picture failed;
the output and stderr say why.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of a parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "batch", help="caption folders, archives and lists", description=DESCRIPTION
    )
    parser.set_defaults(run=_run, several="inputs")
    add = parser.add_argument
    add("inputs", nargs="*", metavar="INPUT", help="pictures, folders, patterns, .tar archives, URLs; - reads a list")
    add("--list", dest="lists", action="append", default=[], metavar="FILE", help="a file that has a path on each line")
    add("--recursive", action="store_true", help="take the folders below a folder, too")
    add("--shard", metavar="I/N", help="one of N runs that share the pictures, 0/N to N-1/N; --output is their folder")

    add = parser.add_argument_group("output").add_argument
    add("--output", type=Path, metavar="PATH", help="a table's file; or a folder for files, else beside the pictures")
    add(
        "--format", choices=FORMATS, help="embed writes alt text into the pictures themselves [as --output ends, jsonl]"
    )
    add("--on-existing", choices=ON_EXISTING, default=SKIP, help="what to do where captions are already [skip]")
    add("--retry-failed", action="store_true", help="try those again, too, that failed in an earlier run")
    add("--progress", type=Path, metavar="FILE", help="the record of the run [beside a table; else with the user's]")

    add = parser.add_argument_group("texts").add_argument
    add("--prefix", default="", metavar="TEXT", help="what stands before every caption")
    add("--suffix", default="", metavar="TEXT", help="what stands behind it")
    add("--max-length", type=int, metavar="N", help="characters of the whole, at most; cut between words [no limit]")
    add("--sentence", action="store_true", help="a capital first letter and a full stop; of phones, their words")
    add("--n-best", type=int, metavar="K", help="captions a picture [1]")

    add = parser.add_argument_group("models").add_argument
    add("--model", dest="models", action="append", metavar="MODEL", help="a name or directory; may be repeated [words]")
    add_decoding_flags(add)
    add("--batch-size", type=int, default=BATCH_SIZE, metavar="N", help=f"pictures at a time [{BATCH_SIZE}]")
    add_network_flags(add)
    add_cluster(parser)


def _run(arguments: argparse.Namespace) -> int:
    from captioner.batch.command import batch_command

    return batch_command(arguments)
