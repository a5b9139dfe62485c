"""Conditions that SQLite and PostgreSQL have different words for."""

from typing import Any

from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class InBoth(FunctionElement[Any]):
    """The same condition in SQLite's words and in PostgreSQL's, of which the database gets its own.

    It does not say that it is true or false: if it did, `= 1` would be written behind it for SQLite, and no index used.

    Example:
        >>> InBoth(func.json_type(column) == "array", func.jsonb_typeof(column) == "array")
    """

    inherit_cache = True


@compiles(InBoth, "sqlite")
def _in_sqlite(element: InBoth, compiler: Any, **options: Any) -> str:
    sqlite, _ = element.clauses
    return str(compiler.process(sqlite.self_group(), **options))


@compiles(InBoth, "postgresql")
def _in_postgresql(element: InBoth, compiler: Any, **options: Any) -> str:
    _, postgresql = element.clauses
    return str(compiler.process(postgresql.self_group(), **options))
