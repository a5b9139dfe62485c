"""One write transaction, as the rules see it."""

import json
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Dict, FrozenSet, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set

from sqlalchemy import JSON, ColumnElement, Connection, Select, Table, UniqueConstraint, bindparam, select

from . import tables
from .errors import Refused

Row = Mapping[str, Any]

#: Bytes of a text by which rows are looked for. An entry of PostgreSQL's indexes has 2,704, ids and instants included.
LONGEST_KEY = 2_000


#: Characters of a text, and of JSON. Prefect's client cuts the messages of logs to as much
LARGEST_TEXT, LARGEST_JSON = 1_000_000, 5_000_000


#: Values in one statement; early versions of SQLite take 999
MOST_VALUES = 900

#: Among the ids of what has changed: it may be anything
ANYTHING = "*"


class Call(NamedTuple):
    """Something that somebody outside wants to know."""

    #: a row of `cloud_hook`
    hook: Row
    #: what has happened, as JSON
    event: Dict[str, Any]


class Transaction:
    """What a rule works on: one write transaction, and who asked for it.

    Args:
        connection: an open SQLAlchemy connection.
        agent_id: the agent that sent the request, from its ``X-PREFECT-AGENT-ID`` header.
        core_version: the caller's Prefect version, from ``X-PREFECT-CORE-VERSION``.
    """

    def __init__(
        self, connection: Connection, agent_id: Optional[str] = None, core_version: Optional[str] = None
    ) -> None:
        self.connection = connection
        self.agent_id = agent_id
        self.core_version = core_version
        #: a run became ready for an agent: agents are told once the transaction is stored
        self.queued = False
        #: ids of flow runs that changed their state, of their flows and tenants; or `ANYTHING`, where some are gone
        self.news: Set[str] = set()
        #: what cloud hooks are to be told once the transaction is stored
        self.calls: List[Call] = []

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Undoes what a block has done when it raises, and keeps what was done before it."""
        calls = len(self.calls)
        try:
            with self.connection.begin_nested():
                yield
        except BaseException:
            del self.calls[calls:]
            raise

    def rows(self, statement: Any, values: Optional[Dict[str, Any]] = None) -> List[Row]:
        return [dict(row) for row in self.connection.execute(statement, values).mappings()]

    def rows_with(self, query: "Select[Any]", column: "ColumnElement[Any]", values: Iterable[Any]) -> List[Row]:
        """The rows of a query whose column has one of some values, however many these are."""
        some = list(values)
        found: List[Row] = []
        for first in range(0, len(some), MOST_VALUES):
            found += self.rows(query.where(column.in_(some[first : first + MOST_VALUES])))
        return found

    def row(self, statement: Any, values: Optional[Dict[str, Any]] = None) -> Optional[Row]:
        found = self.connection.execute(statement, values).mappings().first()
        return None if found is None else dict(found)

    def get(self, table: Table, id: str) -> Optional[Row]:
        return self.row(_by_id(table), {"id": id})

    def insert(self, table: Table, **values: Any) -> str:
        """Stores one row and returns its id."""
        values.setdefault("id", tables.new_id())
        _check(table, [values])
        self.connection.execute(table.insert().values(values))
        return str(values["id"])

    def insert_many(self, table: Table, rows: Iterable[Dict[str, Any]]) -> None:
        rows = list(rows)
        _check(table, rows)
        if rows:
            self.connection.execute(table.insert(), rows)

    def as_stored(self, value: Any) -> Any:
        """What becomes of JSON in the database, which may not take all characters."""
        write = self.connection.dialect._json_serializer
        return json.loads(write(value)) if write else value

    def update(self, table: Table, *where: Any, **values: Any) -> int:
        """Changes the rows that match and returns how many did."""
        _check(table, [values])
        return self.connection.execute(table.update().where(*where).values(values)).rowcount

    def delete(self, table: Table, *where: Any) -> int:
        """Deletes the rows that match, and all that hangs on them; returns how many matched."""
        self.news.add(ANYTHING)
        return self.connection.execute(table.delete().where(*where)).rowcount


@lru_cache(maxsize=None)
def _keys(table: Table) -> FrozenSet[str]:
    """The columns of text that people or programs wrote, and by which rows are looked for."""
    columns = [column for index in table.indexes for column in index.columns]
    columns += [column for each in table.constraints if isinstance(each, UniqueConstraint) for column in each.columns]
    return frozenset(column.name for column in columns if isinstance(column.type, tables.Words))


@lru_cache(maxsize=None)
def _largest(table: Table) -> Dict[str, int]:
    """How many characters the columns of JSON take."""
    columns = [column for column in table.columns if isinstance(column.type, JSON)]
    return {column.name: column.info.get("largest", LARGEST_JSON) for column in columns}


def _check(table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuses what is too large to be stored, or would be too large to be read together with others."""
    keys, largest = _keys(table), _largest(table)
    # many rows have the same state
    seen: Any = None
    for row in rows:
        for name, value in row.items():
            if isinstance(value, str):
                _check_text(table, name, value, name in keys)
            elif isinstance(value, (dict, list)) and value and value is not seen:
                seen = value
                length = len(json.dumps(value))
                if length > largest.get(name, LARGEST_JSON):
                    raise Refused(
                        f"The {name} of a {table.name} has at most {largest[name]:,} characters as JSON, not "
                        f"{length:,}. Store large values in files or a database, and pass where they are."
                    )


def _check_text(table: Table, name: str, value: str, is_key: bool) -> None:
    if len(value) > LARGEST_TEXT:
        raise Refused(
            f"The {name} of a {table.name} has at most {LARGEST_TEXT:,} characters, not {len(value):,}. Shorten it."
        )
    # most are far from it, and need not be encoded for that
    if is_key and len(value) * 4 > LONGEST_KEY and len(value.encode("utf-8", "replace")) > LONGEST_KEY:
        raise Refused(f"The {name} of a {table.name} has at most {LONGEST_KEY} bytes. {value[:40]!r}... is longer.")


@lru_cache(maxsize=None)
def _by_id(table: Table) -> "Select[Any]":
    # kept: to make it, and to see that it is the same as before, takes SQLAlchemy as long as to run it
    return select(table).where(table.c.id == bindparam("id"))
