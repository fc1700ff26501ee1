"""What a run is asked to do: where its output and its record lie, and what it makes of what is there already."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from captioner.batch.choices import ALT_TEXTS, APPEND, EMBED, FORMATS, ON_EXISTING, OVERWRITE, SKIP, TXT
from captioner.batch.dealing import Collection
from captioner.batch.lists import STDIN
from captioner.batch.outputs.files import Files
from captioner.batch.outputs.formats import TABLES, make_files
from captioner.batch.outputs.places import Places
from captioner.batch.outputs.replacing import make_folder
from captioner.batch.outputs.tables import Table
from captioner.batch.pictures import is_archive, is_picture
from captioner.batch.record import DONE, FAILED, FAILED_BEFORE, KEPT, Record
from captioner.batch.remote import is_url
from captioner.batch.rows import Entry
from captioner.config import require
from captioner.errors import CaptionerError, OptionError


@dataclass(frozen=True)
class Job:
    """What is to be captioned and where that goes.

    Attributes:
        collection: the pictures.
        format: one of :data:`captioner.batch.choices.FORMATS`.
        output: the file of a table, or the folder of a share's; for other formats a folder, or None: beside pictures.
        on_existing: one of :data:`captioner.batch.choices.ON_EXISTING`.
        retry_failed: try those again that failed before.
        record: where the record lies, if not at its own place.

    Raises:
        OptionError: these do not go together.
    """

    collection: Collection
    format: str
    output: Path | None = None
    on_existing: str = SKIP
    retry_failed: bool = False
    record: Path | None = None

    def __post_init__(self) -> None:
        require(self.format in FORMATS, f"unknown format {self.format!r}; choose one of {', '.join(FORMATS)}")
        require(
            self.on_existing in ON_EXISTING,
            f"unknown --on-existing {self.on_existing!r}; choose one of {', '.join(ON_EXISTING)}",
        )
        require(bool(self.collection.inputs or self.collection.lists), "give an INPUT, or a --list of them")
        require(
            self.output is not None or not self.is_table,
            f"give --output FILE for the captions, or --format {TXT} to have each beside its picture",
        )
        require(
            not (self.retry_failed and self.on_existing != SKIP),
            f"--retry-failed goes on with what is there: leave --on-existing {self.on_existing} out",
        )
        require(
            not (self.format in ALT_TEXTS and self.on_existing == APPEND),
            f"--format {self.format} has one alt text a picture: choose --on-existing skip or overwrite",
        )
        if self.format == EMBED and self.output is not None:
            around = _around(self.output, self.collection.inputs, recursive=self.collection.recursive)
            require(
                around is None,
                f"{self.output} belongs to the input {around}: name another folder for copies, or leave --output out "
                "to change the pictures themselves",
            )

    @property
    def is_table(self) -> bool:
        """Whether the output is one file of all pictures."""
        return self.format in TABLES

    def table(self) -> Table | None:
        """The table, if the output is one. The folder of a share's table is made.

        Raises:
            CaptionerError: it cannot be written.
        """
        if not self.is_table:
            return None
        assert self.output is not None
        path, share = self.output, self.collection.share
        if share.of > 1:
            make_folder(path)
            path = path / f"captions-{share}.{self.format}"
        table = TABLES[self.format](path)
        table.check()
        require(
            not (is_picture(path.name) or is_archive(path.name)),
            f"{path} is called like a picture or an archive: name a file for the captions",
        )
        for given in [*self.collection.inputs, *self.collection.lists]:
            require(not _same(path, Path(given)), f"{path} is an input: name another output")
        return table

    def is_finished(self, table: Table, record: Path) -> bool:
        """Whether a share's table is there, so that nothing is left to do. It is not looked for new pictures."""
        whole = self.collection.share.of == 1 or self.on_existing != SKIP or self.retry_failed
        return not whole and table.path.exists() and not record.exists()

    def files(self, models: Sequence[str]) -> Files | None:
        """What writes the files, if the output is not a table.

        Raises:
            CaptionerError: the folder cannot be made.
        """
        if self.is_table:
            return None
        if self.output is not None:
            make_folder(self.output)
        places = Places(self.collection.inputs, self.output)
        return make_files(self.format, places, models, self.on_existing, copies=self.output is not None)

    def record_path(self, table: Table | None) -> Path:
        """Where the record lies: beside a table, else where the system keeps such things for the user.

        Raises:
            CaptionerError: the user has no such place.
        """
        if self.record is not None:
            others = [table.path] if table is not None else []
            others += [Path(given) for given in [*self.collection.inputs, *self.collection.lists]]
            same = any(self.record == other or _same(self.record, other) for other in others)
            require(not same, f"--progress {self.record} is a file of its own: name another one")
            return self.record
        if table is not None:
            return table.path.with_name(f"{table.path.name}.progress")
        try:
            folder = platformdirs.user_state_path("captioner", appauthor=False) / "batch"
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home
            raise CaptionerError(
                f"there is no place for the record of this run: {error}. Name a file for it with --progress"
            ) from error
        return folder / f"{self._key()}.progress"

    def _asked(self) -> dict[str, Any]:
        """What is to be captioned, as JSON values by what the user calls them.

        The record knows pictures by name, and what is named relative to a folder is another picture in another one.
        """
        given = [*self.collection.inputs, *self.collection.lists]
        listed = bool(self.collection.lists) or STDIN in given
        relative = listed or not all(is_url(name) or Path(name).is_absolute() for name in given)
        return {
            "INPUT": [*self.collection.inputs],
            "--list": [*self.collection.lists],
            "--recursive": self.collection.recursive,
            "--shard": str(self.collection.share),
            "the folder it was in": str(Path.cwd()) if relative else None,
        }

    def _key(self) -> str:
        """The same for the same job, and for no other."""
        output = None if self.output is None else str(self.output.resolve())
        facts = [self.format, output, *self._asked().values()]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]

    def begin(self, record: Record, table: Table | None, settings: Mapping[str, Any], models: Sequence[str]) -> bool:
        """Make the record ready: go on with a run that was not finished, or begin one.

        Args:
            record: of this job.
            table: its output, if that is one.
            settings: what the captions depend on, JSON values by what the user calls them.
            models: their names.

        Returns:
            Whether the table that is there holds all that the record does.

        Raises:
            OptionError: what is there does not go with what is asked.
        """
        settings = {**self._asked(), "--format": self.format, "--on-existing": self.on_existing, **settings}
        try:
            return self._begin(record, table, settings, models)
        except CaptionerError:
            if record.is_blank:
                record.remove()
            raise

    def _begin(self, record: Record, table: Table | None, settings: Mapping[str, Any], models: Sequence[str]) -> bool:
        if record.begun:
            record.check(settings)
            return False
        if table is None:
            record.begin(settings, afresh=self.on_existing != SKIP)
            return False
        there = self.on_existing != OVERWRITE and table.path.exists()
        record.begin(settings, self.kept(table, models) if there else (), afresh=True)
        return there

    def kept(self, table: Table, models: Sequence[str]) -> Iterator[tuple[Entry, str]]:
        """What is there already, each entry with its status for the record.

        Raises:
            OptionError: it holds captions of other models, and is not to be appended to.
        """
        for entry in table.entries():
            if self.on_existing == APPEND:
                yield entry, KEPT
                continue
            own = [line.model for line in entry.lines]
            if not entry.failed and own != [*models]:
                raise OptionError(
                    f"{table.path} holds captions of {', '.join(map(str, own))}, not of {', '.join(models)}: give "
                    "--on-existing append or overwrite, or name another output"
                )
            yield entry, FAILED_BEFORE if entry.failed else DONE

    def finish(self, record: Record, table: Table | None) -> None:
        """Write the table, if there is one, and remove the record, unless it alone remembers what failed."""
        if table is not None:
            table.write(record.lines())
            record.remove()
        elif record.counts().get(FAILED):
            record.finish()
        else:
            record.remove()


def _same(path: Path, given: Path) -> bool:
    try:
        return path.exists() and path.samefile(given)
    except (OSError, ValueError):  # ValueError: a null character in what is given
        return False


def _around(folder: Path, inputs: Sequence[str], *, recursive: bool) -> str | None:
    """The input that a folder is, or lies in."""
    own = folder.resolve()
    for given in inputs:
        other = Path(given).resolve()
        if not is_url(given) and (own == other or (recursive and own.is_relative_to(other))):
            return given
    return None
