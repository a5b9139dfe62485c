"""A copy of the database as it is at one moment, while a backend goes on writing."""

import os
import sqlite3
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Callable, Union

from .database import Database


class BackupFailed(Exception):
    """There is no copy."""


def backup(
    database: Database,
    file: Union[str, Path],
    overwrite: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Copies a database into a file, which is there as a whole or not at all, and which its owner alone can read.

    Of an SQLite file the copy is one too; of a PostgreSQL database it is what ``pg_restore`` takes.

    Args:
        database: what to copy.
        file: where to.
        overwrite: takes the place of a file that is there.
        report: called with how many parts are done, and how many there are.

    Raises:
        BackupFailed: the file is there already, is a database in use, or cannot be written.
    """
    file = Path(file)
    _check(database, file, overwrite)
    try:
        number, name = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
        os.close(number)
        try:
            database.store.copy(name, report)
            _check(database, file, overwrite)
            os.replace(name, file)
        finally:
            for left in (name, f"{name}-journal"):
                with suppress(FileNotFoundError):
                    os.remove(left)
    except (OSError, sqlite3.Error) as error:
        raise BackupFailed(f"The backup {str(file)!r} cannot be written: {error}") from error


def _check(database: Database, file: Path, overwrite: bool) -> None:
    if database.store.is_in(file):
        raise BackupFailed(f"{str(file)!r} is the database itself, or a part of it. Name another file.")
    if not file.exists():
        return
    if not file.is_file():
        raise BackupFailed(f"{str(file)!r} is no file. Name one.")
    if not overwrite:
        raise BackupFailed(f"{str(file)!r} is there already. Name another file, or take its place with --force.")
    if Path(f"{file}-wal").exists():
        # what is in there would be taken for a part of the copy
        raise BackupFailed(f"{str(file)!r} is a database in use, or one that was not closed. Name another file.")
