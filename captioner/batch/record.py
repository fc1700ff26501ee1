"""What a run has done so far, in a file that outlives it: killed at any moment, the next run knows where to go on.

The file is an SQLite database. A transaction is there as a whole or not at all, whoever is killed; the lock on it keeps
a second run away and goes with its process; and memory stays small, however many pictures there are. It is written
ahead (``journal_mode=WAL``), under an exclusive lock and thus without shared memory, so that it may lie on a network's
file system: a transaction then costs no wait for the disk. A power failure may take the last chunks with it, which are
then captioned anew.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from captioner.batch.rows import Entry
from captioner.batch.settings import differences
from captioner.errors import CaptionerError, OptionError

APPLICATION = 0x43_41_50_54  # "CAPT", where SQLite keeps the kind of a file
FORMAT = 1
BEGUN, DONE, FAILED, KEPT = "begun", "done", "failed", "kept"
FAILED_BEFORE = "failed before"  # in an earlier run, and not met in this one yet
SETTINGS, FINISHED = "settings", "finished"
AT_ONCE = 1000  # rows
IN_MEMORY = Path(":memory:")  # SQLite's name for what is in no file
SCHEMA = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    # A name is what the system has: bytes, and not always text.
    "CREATE TABLE pictures (position INTEGER PRIMARY KEY, image BLOB NOT NULL, status TEXT NOT NULL)",
    "CREATE INDEX pictures_by_image ON pictures (image)",
    """CREATE TABLE lines (
        position INTEGER NOT NULL, place INTEGER NOT NULL, model TEXT, digest BLOB, line TEXT NOT NULL,
        PRIMARY KEY (position, place)
    ) WITHOUT ROWID""",
    "CREATE INDEX lines_by_digest ON lines (digest, model) WHERE digest IS NOT NULL",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {FORMAT}",
)
KIND = (
    "PRAGMA application_id",
    "PRAGMA user_version",
    "SELECT count(*) FROM sqlite_master WHERE type = 'table'",
)
FAILURES_OF = "SELECT position FROM pictures WHERE image = ? AND status IN (?, ?) AND position != ?"


class Record:
    """The record of one output, this process's alone until it is closed.

    Its methods may be called by several threads.

    Args:
        path: of the file; made if there is none.

    Raises:
        CaptionerError: another run has it, it is something else, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        try:
            self._database = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise self._told(error) from error
        try:
            with self._errors():
                self._open()
        except BaseException:
            self._database.close()
            raise

    def _open(self) -> None:
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
        kind, version, tables = (self._one(query)[0] for query in KIND)
        if tables and (kind, version) != (APPLICATION, FORMAT):
            raise CaptionerError(
                f"{self.path} is no record of this version of captioner batch; finish that run with the version that "
                "began it, or move the file away"
            )
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        with self._transaction():  # from here on the lock is held
            if not tables:
                for statement in SCHEMA:
                    self._database.execute(statement)
        if self.path != IN_MEMORY and not self.path.exists():
            raise CaptionerError("another run of the same output has just ended: give the command again")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others have it."""
        with self._lock, self._errors():
            self._database.close()

    def remove(self) -> None:
        """Close it and remove the file: nothing of it is needed any longer."""
        with self._lock, contextlib.suppress(sqlite3.Error):  # a full disk
            self._database.execute("PRAGMA journal_mode = DELETE")  # a log that is left would be the next record's
            self._unlink()  # under the lock, so that no other run goes on with it
        self.close()
        self._unlink()  # what is left, which on Windows is all that was open

    def _unlink(self) -> None:
        for path in (self.path, self.path.with_name(f"{self.path.name}-wal")):  # which a full disk leaves
            with contextlib.suppress(OSError):
                path.unlink()

    # a run's beginning and end

    @property
    def begun(self) -> bool:
        """Whether a run has begun and not finished."""
        return self._fact(SETTINGS) is not None and self._fact(FINISHED) is None

    @property
    def is_blank(self) -> bool:
        """Whether nothing has ever been recorded."""
        return self._fact(SETTINGS) is None

    def check(self, settings: Mapping[str, Any]) -> None:
        """Compare with the settings of the run that is to be finished.

        Raises:
            OptionError: some differ.
        """
        different = differences(json.loads(self._fact(SETTINGS) or "{}"), settings)
        if different:
            raise OptionError(
                f"a run is unfinished, and it was begun otherwise: {different}. Finish it with the same options, or "
                f"remove {self.path} to begin anew"
            )

    def begin(self, settings: Mapping[str, Any], kept: Iterable[tuple[Entry, str]] = (), *, afresh: bool) -> None:
        """Note the settings of a run, as one transaction with what comes before it.

        Args:
            settings: JSON values.
            kept: what an output holds already, each with its status.
            afresh: forget everything first.
        """
        with self._errors(), self._transaction():
            if afresh:
                self._database.execute("DELETE FROM pictures")
                self._database.execute("DELETE FROM lines")
            self._database.execute("UPDATE pictures SET status = ? WHERE status = ?", (FAILED_BEFORE, FAILED))
            self._database.execute("DELETE FROM facts")
            for entry, status in kept:
                self._note(entry, status)
            self._database.execute("INSERT INTO facts VALUES (?, ?)", (SETTINGS, json.dumps(settings)))

    def finish(self) -> None:
        """The run is over: forget all but what failed, unless the run has not met it any more."""
        with self._errors():
            with self._transaction():
                self._database.execute("DELETE FROM pictures WHERE status != ?", (FAILED,))
                self._database.execute("DELETE FROM lines WHERE position NOT IN (SELECT position FROM pictures)")
                self._database.execute("INSERT OR REPLACE INTO facts VALUES (?, '1')", (FINISHED,))
            self._database.execute("VACUUM")

    # pictures

    def find(self, image: str) -> tuple[int, str] | None:
        """The position of a picture and its status, unless this run has never met it; a failure before all else."""
        with self._errors():
            found: tuple[int, str] | None = self._one(
                "SELECT position, status FROM pictures WHERE image = ? AND status != ? "
                "ORDER BY status NOT IN (?, ?), position",
                (_bytes(image), KEPT, FAILED, FAILED_BEFORE),
            )
        return found

    def captions(self, digest: bytes, model: str) -> list[dict[str, Any]] | None:
        """What a model said when it saw the same before."""
        with self._errors():
            found = self._one("SELECT line FROM lines WHERE digest = ? AND model = ? LIMIT 1", (digest, model))
        return json.loads(found[0])["captions"] if found else None

    def mark(self, pictures: Sequence[tuple[str, int | None]]) -> list[int]:
        """Note pictures, by name and position, as begun: files of theirs may be there from now on.

        Returns:
            Their positions, also of those that had none.
        """
        with self._errors(), self._transaction():
            return [self._picture(image, position, BEGUN) for image, position in pictures]

    def commit(self, entries: Sequence[Entry]) -> None:
        """Note what became of pictures: of all of them or, if that fails, of none."""
        with self._errors(), self._transaction():
            for entry in entries:
                self._note(entry, FAILED if entry.failed else DONE)

    def fail_again(self, position: int) -> None:
        """Note that a picture that failed in an earlier run is there still, and not to be tried again."""
        with self._errors(), self._transaction():
            self._database.execute("UPDATE pictures SET status = ? WHERE position = ?", (FAILED, position))

    def forget(self, position: int) -> None:
        """Leave a picture out."""
        with self._errors(), self._transaction():
            self._database.execute("DELETE FROM pictures WHERE position = ?", (position,))
            self._database.execute("DELETE FROM lines WHERE position = ?", (position,))

    def counts(self) -> dict[str, int]:
        """How many pictures have each status."""
        with self._lock, self._errors():
            return dict(self._database.execute("SELECT status, count(*) FROM pictures GROUP BY status").fetchall())

    def failures(self, most: int) -> list[dict[str, Any]]:
        """The rows of the first pictures that failed."""
        query = "SELECT line FROM lines JOIN pictures USING (position) WHERE status = ? ORDER BY position LIMIT ?"
        with self._lock, self._errors():
            return [json.loads(line) for (line,) in self._database.execute(query, (FAILED, most)).fetchall()]

    def lines(self) -> Iterator[str]:
        """All rows in their order."""
        with self._lock, self._errors():
            found = self._database.execute("SELECT line FROM lines ORDER BY position, place")
            while some := found.fetchmany(AT_ONCE):
                yield from (line for (line,) in some)

    # SQL

    def _note(self, entry: Entry, status: str) -> None:
        position = self._picture(entry.image, entry.position, status)
        if entry.position is not None:
            # What it replaces, and what else failed by that name: appending may have brought several.
            same = self._database.execute(
                FAILURES_OF, (_bytes(entry.image), FAILED, FAILED_BEFORE, position)
            ).fetchall()
            self._database.executemany("DELETE FROM pictures WHERE position = ?", same)
            self._database.executemany("DELETE FROM lines WHERE position = ?", [*same, (position,)])
        values = [(position, place, line.model, line.digest, line.text) for place, line in enumerate(entry.lines)]
        self._database.executemany("INSERT INTO lines VALUES (?, ?, ?, ?, ?)", values)

    def _picture(self, image: str, position: int | None, status: str) -> int:
        query = "INSERT OR REPLACE INTO pictures VALUES (?, ?, ?)"
        made = self._database.execute(query, (position, _bytes(image), status)).lastrowid
        assert made is not None
        return made

    def _fact(self, name: str) -> str | None:
        with self._errors():
            found = self._one("SELECT value FROM facts WHERE name = ?", (name,))
        return found[0] if found else None

    def _one(self, query: str, values: Sequence[Any] = ()) -> Any:
        with self._lock:
            return self._database.execute(query, values).fetchone()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:  # on some errors SQLite has gone back already
                    self._database.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._told(error) from error

    def _told(self, error: sqlite3.Error) -> CaptionerError:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith("SQLITE_BUSY"):
            return CaptionerError(f"another run is writing the same output: wait until it is done ({self.path} is its)")
        if name == "SQLITE_NOTADB":
            return CaptionerError(f"{self.path} is no record of captioner batch; move it away or name another output")
        if name == "SQLITE_CANTOPEN":
            return CaptionerError(f"{self.path} cannot be made: name another output, or another place with --progress")
        return CaptionerError(
            f"cannot write {self.path}: {error}. What is done is kept: see to the disk, and give the same command again"
        )


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")
