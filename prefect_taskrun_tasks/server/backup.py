"""A copy of the database as it is at one moment, while a backend goes on writing."""

import os
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import Callable, Union

from .database import Database

#: Pages that are copied between two reports
PAGES = 1000


class BackupFailed(Exception):
    """There is no copy."""


def backup(
    database: Database,
    file: Union[str, Path],
    overwrite: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Copies a database into a file, which is there as a whole or not at all, and which its owner alone can read.

    Args:
        database: what to copy.
        file: where to.
        overwrite: takes the place of a file that is there.
        report: called with how many pages are done, and how many there are.

    Raises:
        BackupFailed: the file is there already, is a database in use, or cannot be written.
    """
    file = Path(file)
    _check(database, file, overwrite)
    try:
        number, name = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
        os.close(number)
        try:
            _copy(database.path, name, report)
            _check(database, file, overwrite)
            os.replace(name, file)
        finally:
            for left in (name, f"{name}-journal"):
                with suppress(FileNotFoundError):
                    os.remove(left)
    except (OSError, sqlite3.Error) as error:
        raise BackupFailed(f"The backup {str(file)!r} cannot be written: {error}") from error


def _check(database: Database, file: Path, overwrite: bool) -> None:
    if not file.exists():
        return
    if os.path.samefile(file, database.path):
        raise BackupFailed(f"{str(file)!r} is the database itself. Name another file.")
    if not file.is_file():
        raise BackupFailed(f"{str(file)!r} is no file. Name one.")
    if not overwrite:
        raise BackupFailed(f"{str(file)!r} is there already. Name another file, or take its place with --force.")
    if Path(f"{file}-wal").exists():
        # what is in there would be taken for a part of the copy
        raise BackupFailed(f"{str(file)!r} is a database in use, or one that was not closed. Name another file.")


def _copy(source: str, target: str, report: Callable[[int, int], None]) -> None:
    with closing(sqlite3.connect(source, isolation_level=None)) as reading, closing(sqlite3.connect(target)) as writing:
        # one moment for all steps: without, SQLite would begin anew whenever somebody has written in between
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM sqlite_master").fetchall()
        reading.backup(writing, pages=PAGES, progress=lambda status, left, total: report(total - left, total))
        reading.execute("ROLLBACK")
