"""The API as an object: a request's body in, the answer out, without a socket."""

import logging
from dataclasses import dataclass, replace
from enum import Enum
from time import monotonic
from typing import Any, Callable, Dict, Generator, Iterator, List, Mapping, Optional, Tuple, Union

import graphql
from graphql import GraphQLError
from sqlalchemy import Connection

from . import document, hooks, reading, schema, strict_json, tables, traversal
from .database import Database
from .deadline import within
from .document import InvalidDocument, Operation, Selection
from .errors import NotStored, Refused, TookTooLong
from .limits import Limits
from .queries import QUERIES
from .room import Large, Room
from .rules import (
    agents,
    artifacts,
    cloud_hooks,
    flow_groups,
    flow_runs,
    flows,
    logs,
    messages,
    schedules,
    states,
    task_runs,
    tenants,
)
from .transaction import Row

logger = logging.getLogger(__name__)

Answer = Dict[str, Any]


class Step(Enum):
    """Which kind of thread does a part of a request."""

    #: it parses JSON and GraphQL
    PARSE = "parse"
    READ = "read"
    #: it reads what is a large part of the memory; one at a time
    LARGE = "large"
    #: one at a time; others may come between two such steps
    WRITE = "write"
    #: it waits for somebody outside
    OUTSIDE = "outside"


#: What is left of a request: yields the kind of the next step, and returns HTTP status and JSON value
Steps = Generator[Step, None, Tuple[int, Any]]

_RULES = (
    agents,
    artifacts,
    cloud_hooks,
    flow_groups,
    flow_runs,
    flows,
    logs,
    messages,
    schedules,
    states,
    task_runs,
    tenants,
)

#: Mutations that wait for somebody outside, and so begin and end their transactions themselves
_OUTSIDE: Dict[str, Callable[..., Row]] = {"test_cloud_hook": hooks.test_cloud_hook}

#: Mutations that store a list in several transactions, with writes of other callers in between -> name of that list
_IN_PARTS: Dict[str, str] = {"write_run_logs": "logs"}

#: Items of such a list in one transaction
PART = 500

#: Said of a request with which Python's stack overflows
NESTED = "The request is nested too deeply."

#: Characters of an error. Many quote what they refuse, however long it is.
LONGEST_MESSAGE = 2_000

#: Terms of a statement that is kept, compiled, for the next one like it
KEPT_TERMS = 100

#: Characters of an answer that is read among the others
SMALL = 2 * 1024 * 1024

#: Operations in one batch
LARGEST_BATCH = 25


class BadRequest(Exception):
    """A body that is no GraphQL request."""


@dataclass
class _Asked:
    """What holds for all operations of one request."""

    #: by lower-case names
    headers: Mapping[str, str]
    #: the reading of `time.monotonic` at which it was begun to be answered
    begun: float
    #: for all answers; at first little, as most are small
    room: Room
    #: it has asked for more, and is answered on a thread for such requests
    is_large: bool = False

    def step(self, operation: Operation, field: Selection) -> Step:
        """The next one, which answers a field."""
        if not operation.is_mutation or field.name == "__typename":
            return Step.LARGE if self.is_large else Step.READ
        return Step.OUTSIDE if field.name in _OUTSIDE else Step.WRITE


class Api:
    """Answers GraphQL requests from a database.

    Args:
        database: where everything is kept.
        url: the address of this backend, for links to its page.
        limits: how much one request may ask for.
    """

    def __init__(self, database: Database, url: str = "", limits: Limits = Limits()) -> None:  # noqa: B008 - frozen
        self._database = database
        self._url = url
        self._limits = limits
        self._schema = schema.build()
        assert self._schema.mutation_type is not None
        #: mutation name -> the rule of that name
        self._rules: Dict[str, Callable[..., Row]] = {
            name: next(getattr(module, name) for module in _RULES if hasattr(module, name))
            for name in self._schema.mutation_type.fields
            if name not in _OUTSIDE
        }

    def answer(self, body: bytes, headers: Optional[Mapping[str, str]] = None) -> Tuple[int, Any]:
        """HTTP status and JSON value for a request's body, see `steps`."""
        steps = self.steps(body, headers)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                status, answer = end.value
                return status, answer

    def steps(self, body: Union[bytes, bytearray], headers: Optional[Mapping[str, str]] = None) -> Steps:
        """The same in steps, of which each may be done by another thread. The first is `Step.PARSE`.

        A document that cannot be executed is answered with 400. One that can is answered with 200, also when a
        field of it fails, because the Prefect client repeats a request that is answered with 5xx.
        """
        asked = _Asked(headers or {}, monotonic(), Room(self._limits.answer, SMALL))
        try:
            request = strict_json.loads(body)
        except (ValueError, RecursionError) as error:
            return 400, _bad_request(f"The request's body is not JSON: {error}")
        # it may be the largest part of all that is held for this request
        del body
        requests = request if isinstance(request, list) else [request]
        if len(requests) > LARGEST_BATCH:
            return 400, _bad_request(f"A batch holds at most {LARGEST_BATCH} operations, not {len(requests)}.")
        characters = sum(len(each["query"]) for each in requests if _is_request(each))
        if characters > self._limits.document:
            return 400, _bad_request(
                f"The documents of a request have at most {self._limits.document} characters, not {characters}. "
                "Send values as variables."
            )
        limits = replace(self._limits, tokens=self._limits.tokens // max(1, len(requests)))
        # the errors of one operation are its own
        parsed = [self._parse(each, asked, limits) for each in requests]
        answers: List[Tuple[int, Answer]] = []
        for each in parsed:
            answers.append(each if isinstance(each, tuple) else (yield from self._execute(each, asked)))
        if isinstance(request, list):
            return 200, [answer for _, answer in answers]
        return answers[0]

    def _parse(self, request: Any, asked: _Asked, limits: Limits) -> Union[Operation, Tuple[int, Answer]]:
        """The operation of a request, or the answer where there is nothing to be executed any more."""
        try:
            text, variables, name = _request(request)
            self._check_going_on("The request")
            _check_lists(variables, limits.objects)
            _check_texts(variables, limits.texts)
            operation = document.read(self._schema, text, variables, name, limits)
            if not operation.is_introspection:
                return operation
            with within(limits.seconds, lambda: self._database.is_interrupted):
                result = graphql.graphql_sync(self._schema, text, variable_values=variables, operation_name=name)
            return 200, dict(result.formatted)
        except (BadRequest, Refused) as error:
            return 400, _bad_request(str(error))
        except InvalidDocument as invalid:
            return 400, {"errors": [_error(each, "GRAPHQL_VALIDATION_FAILED") for each in invalid.errors]}
        except RecursionError:
            return 400, _bad_request(NESTED)
        except TookTooLong:
            return 400, _bad_request(f"The schema was not read within {limits.seconds:g} s. Ask for less of it.")
        except Exception:
            return 200, {"data": None, "errors": [_fault("The request", [])]}

    def _execute(self, operation: Operation, asked: _Asked) -> Steps:
        data: Answer = {}
        errors: List[Answer] = []
        for field in operation.selections:
            # items of its list that are stored
            stored = 0
            try:
                try:
                    for part in _parts(field):
                        yield asked.step(operation, field)
                        value = self._field(operation, part, asked, is_begun=stored > 0)
                        stored += PART if field.name in _IN_PARTS else 0
                except Large:
                    # an exception holds what was read until then, as long as it is handled
                    asked.is_large = True
                if asked.is_large and asked.room.is_small:
                    asked.room = Room(self._limits.answer)
                    yield asked.step(operation, field)
                    value = self._field(operation, field, asked)
                try:
                    asked.room.write(value, field)
                except Large:
                    asked.is_large, asked.room = True, Room(self._limits.answer)
                    asked.room.write(value, field)
                data[field.key] = value
                del value
            except Refused as refused:
                data[field.key] = None
                message = f"{refused} {_stored_before(field, stored)}" if stored else str(refused)
                errors.append(_error(GraphQLError(message, path=[field.key]), refused.CODE))
            except RecursionError:
                data[field.key] = None
                errors.append(_error(GraphQLError(NESTED, path=[field.key]), "INTERNAL_SERVER_ERROR"))
            except NotStored as error:
                data[field.key] = None
                outcome = _stored_before(field, stored) if stored else error.OUTCOME.format(field.name)
                errors.append(_fault(field.name, [field.key], f"{error} {outcome}"))
            except Exception:
                data[field.key] = None
                errors.append(_fault(field.name, [field.key]))
        if asked.is_large:
            # to be written there
            yield Step.LARGE
        return 200, {"data": data, "errors": errors} if errors else {"data": data}

    def _field(self, operation: Operation, field: Selection, asked: _Asked, is_begun: bool = False) -> Any:
        if field.name == "__typename":
            return field.parent
        # a mutation that has begun is carried out as a whole
        if not is_begun:
            self._check_going_on(field.name)
        if operation.is_mutation:
            if not is_begun:
                self._check_time(field.name, asked)
            return document.pick(self._mutate(field, asked), field)
        terms = document.terms_in(field)
        if terms > self._limits.terms:
            raise Refused(
                f"{field.name} has {terms} terms in where and order_by, and at most {self._limits.terms} are taken. "
                "Ask for many values of one column by _in."
            )
        try:
            with self._database.read(asked.begun + self._limits.seconds) as connection:
                connection.execution_options(room=asked.room)
                if terms > KEPT_TERMS:
                    # SQLAlchemy keeps hundreds of statements that it has compiled, however large
                    connection.execution_options(compiled_cache=None)
                if field.name in QUERIES:
                    return document.pick(QUERIES[field.name](connection, **field.arguments), field)
                found = _read(connection, field, self._limits.rows)
        except TookTooLong as error:
            raise Refused(
                f"{field.name} was not read within the {self._limits.seconds:g} seconds that a request has. "
                "Ask for fewer rows with where and limit."
            ) from error
        if document.rows_in(found, field.fields) > self._limits.rows:
            raise Refused(
                f"{field.name} has more than {self._limits.rows} rows, those of relationships included. "
                "Ask for some at a time with where and limit."
            )
        return found

    def _check_going_on(self, what: str) -> None:
        if self._database.is_interrupted:
            raise Refused(f"{what} was not carried out: the backend is stopping. Try again.")

    def _check_time(self, what: str, asked: _Asked) -> None:
        if monotonic() > asked.begun + self._limits.seconds:
            raise Refused(
                f"{what} was not carried out: those before it took the {self._limits.seconds:g} seconds that a "
                "request has. Ask for fewer at a time."
            )

    def _mutate(self, field: Selection, asked: _Asked) -> Row:
        input = field.arguments["input"]
        if field.name in _OUTSIDE:
            return _OUTSIDE[field.name](self._database, self._url, asked.begun, **input)
        caller = {
            "agent_id": asked.headers.get("x-prefect-agent-id"),
            "core_version": asked.headers.get("x-prefect-core-version"),
        }
        with self._database.write(**caller) as tx:
            return self._rules[field.name](tx, **input)


def _parts(field: Selection) -> Iterator[Selection]:
    """A field as the fields that are answered one after the other: itself, or its list in parts."""
    name = _IN_PARTS.get(field.name)
    if name is None:
        yield field
        return
    input = field.arguments["input"]
    items = input[name]
    # an empty list is one part
    for first in range(0, max(1, len(items)), PART):
        yield replace(field, arguments={"input": {**input, name: items[first : first + PART]}})


def _stored_before(field: Selection, stored: int) -> str:
    """Say how many items of a list were stored before an error."""
    return f"The first {stored:,} {_IN_PARTS[field.name]} of {field.name} were stored."


def _read(connection: Connection, field: Selection, most: int) -> Any:
    """A root field that is a table or a walk, or the ``_aggregate`` of one, or a table's ``_by_pk``.

    Of rows, one too many at most.
    """
    if field.name.endswith("_by_pk"):
        table = tables.readable[field.name[: -len("_by_pk")]]
        found = reading.rows(connection, table, field.fields, {"where": {"id": {"_eq": field.arguments["id"]}}})
        return found[0] if found else None
    is_aggregate = field.name.endswith("_aggregate")
    name = field.name[: -len("_aggregate")] if is_aggregate else field.name
    order: Dict[str, Any] = {}
    if name in traversal.WALKS:
        table, computed = tables.utility_traversal, traversal.walk(name, **field.arguments["args"])
        order = {"order_by": [{"depth": "asc"}, {"task_id": "asc"}]}
    else:
        table, computed = tables.readable[name], None
    if is_aggregate:
        return reading.aggregate(connection, table, field, computed)
    given = field.arguments.get("limit")
    limit = most + 1 if given is None else min(given, most + 1)
    return reading.rows(connection, table, field.fields, {**order, **field.arguments, "limit": limit}, computed)


def _check_lists(variables: Dict[str, Any], most: int) -> None:
    """Refuses inputs with more objects in a list than are checked against the schema within a moment."""
    for input in variables.values():
        for name, value in input.items() if isinstance(input, dict) else ():
            if isinstance(value, list) and len(value) > most and isinstance(value[0], dict):
                raise BadRequest(
                    f"{name} is a list of {len(value):,} objects: at most {most:,} are taken. Send several."
                )


def _check_texts(variables: Dict[str, Any], most: int) -> None:
    """Refuses texts that are too long together, before they are written as JSON or stored: others wait meanwhile."""
    left: List[Any] = [variables]
    characters = 0
    while left:
        value = left.pop()
        if isinstance(value, str):
            characters += len(value)
        elif isinstance(value, dict):
            characters += sum(map(len, value))
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
        if characters > most:
            raise BadRequest(
                f"The texts in the variables have more than {most:,} characters together. Send several requests, or "
                "store large values in files or a database and pass their locations."
            )


def _is_request(request: Any) -> bool:
    return isinstance(request, dict) and isinstance(request.get("query"), str)


def _request(request: Any) -> Tuple[str, Dict[str, Any], Optional[str]]:
    """Query text, variables and operation name of a request."""
    if not _is_request(request):
        raise BadRequest('A request is an object {"query": "...", "variables": {...}}.')
    # taken out of it, as they may be large
    variables = request.pop("variables", None)
    if isinstance(variables, str):
        # the Prefect client sends variables as JSON text inside the JSON
        try:
            variables = strict_json.loads(variables)
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"The variables are not JSON: {error}") from error
    if not isinstance(variables, (dict, type(None))):
        raise BadRequest("The variables must be an object.")
    name = request.get("operationName")
    if not isinstance(name, (str, type(None))):
        raise BadRequest("The operationName must be a string.")
    return request["query"], variables or {}, name


def _error(error: GraphQLError, code: str) -> Answer:
    formatted: Answer = dict(error.formatted)
    message = formatted["message"]
    if len(message) > LONGEST_MESSAGE:
        # what is wrong with it often comes last
        half = LONGEST_MESSAGE // 2
        formatted["message"] = f"{message[:half]} ... {message[-half:]}"
    formatted["extensions"] = {"code": code}
    return formatted


def _fault(what: str, path: List[Any], reason: str = "") -> Answer:
    """The error for an exception that is being handled. Its details, such as SQL and paths, are for the log."""
    id = tables.new_id()
    logger.exception("%s could not be answered, which the caller knows as error %s", what, id)
    message = reason or f"{what} failed inside the backend. Its log says why: look there for {id}."
    error = _error(GraphQLError(message, path=path or None), "INTERNAL_SERVER_ERROR")
    error["extensions"]["id"] = id
    return error


def _bad_request(message: str) -> Answer:
    return {"errors": [_error(GraphQLError(message), "BAD_REQUEST")]}
