"""The one place that speaks to the Prefect API: query text, paging, connections, errors that say what was sought."""

import json
import math
import os
import re
import threading
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import lru_cache, partial
from time import monotonic
from typing import Any, Callable, Dict, FrozenSet, Iterator, List, Optional, Sequence, Set, Tuple, Union

import prefect
import requests
import urllib3
from prefect.engine.state import State
from prefect.exceptions import AuthorizationError, ClientError
from prefect.utilities.logging import get_logger
from requests.exceptions import ChunkedEncodingError
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_before_delay, wait_random_exponential

from . import transport
from .errors import AnswerCutOff, BackendUnreachable, BadAnswer, WrongType

_logger = get_logger(__name__)

Row = Dict[str, Any]
Where = Dict[str, Any]

#: Rows in one answer, where there may be many
PAGE = 500

#: table name -> fields that its view is made of: those that prefect.backend 1.4.1 queries, and some more
FIELDS = {
    "flow": (
        "id settings run_config serialized_flow name archived project { name } core_version storage "
        "flow_group { labels }"
    ),
    "flow_run": (
        "id name flow_id flow { name } serialized_state states { timestamp serialized_state } labels parameters "
        "context updated run_config"
    ),
    "task_run": "id name task { id slug } map_index serialized_state flow_run_id version start_time state_timestamp",
    "log": "id timestamp message level",
    "agent": "id name labels last_queried",
}

_TEXT, _TEXT_OR_NULL, _OBJECT_OR_NULL = (str,), (str, type(None)), (dict, type(None))

#: Columns, which mean the same in each table -> kinds of their values
_KINDS: Dict[str, Tuple[type, ...]] = {
    **dict.fromkeys(("id", "flow_id", "task_id", "flow_run_id", "timestamp", "updated", "created"), _TEXT),
    **dict.fromkeys(("name", "message", "level", "start_time", "state_timestamp", "last_queried"), _TEXT_OR_NULL),
    **dict.fromkeys(("serialized_state", "parameters", "context", "run_config", "storage"), _OBJECT_OR_NULL),
    **dict.fromkeys(("flow", "task", "flow_group", "project"), (dict,)),
    **dict.fromkeys(("map_index", "version"), (int,)),
    "labels": (list, type(None)),
    "states": (list,),
}

#: How long a request is tried again, in seconds; about what the retries of prefect.Client come to
PATIENCE = 60.0

#: Seconds for which a task run of a running flow run has to be due until an agent takes that up, and one more
#: (`_get_flow_run_metadata` in prefect 1.4.1's agent/agent.py)
OVERDUE = 4.0

#: Seconds for which the embedded backend holds an answer at most
LONGEST_HOLD = 30.0

#: What Prefect Server's gateway says in an ordinary answer when it has not reached what is behind it; seen in public
#: issues of Prefect (5829, 4783) and in PrefectHQ/server, services/apollo
_GATEWAY_FAULT = re.compile(r"ECONN|ETIMEDOUT|EAI_AGAIN|socket hang up|API_ERROR|request to \S+ failed")

#: HTTP statuses of an API that may answer the next time
_PASSING = {408, 429, *range(500, 600)}

#: Values in an answer, such as texts and objects: 10 for each of the rows that the embedded backend answers at most
MOST_VALUES = 2_500_000

_connections = threading.local()

#: addresses of Prefect APIs that have answered
_answered: Set[str] = set()

#: tenant -> the address of its flow runs
_urls: Dict[Tuple[Any, ...], str] = {}

_patience: "ContextVar[float]" = ContextVar("patience", default=PATIENCE)


def patience_now() -> float:
    """For how many seconds requests of this thread are tried again."""
    return _patience.get()


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Within the block, requests of this thread are tried again for so long when the API does not answer."""
    token = _patience.set(max(0.0, seconds))
    try:
        yield
    finally:
        _patience.reset(token)


#: The reading of `time.monotonic` at which the patience for the request of this thread is over
_deadline: "ContextVar[float]" = ContextVar("deadline", default=0.0)

_is_sent_once: "ContextVar[bool]" = ContextVar("is_sent_once", default=False)


@contextmanager
def sent_once(seconds: float) -> Iterator[None]:
    """Within the block, requests of this thread are sent once, and may take so long: what comes too late may harm."""
    token = _is_sent_once.set(True)
    try:
        with patience(seconds):
            yield
    finally:
        _is_sent_once.reset(token)


class Released(Exception):
    """A held request was released before the answer had come."""


class Hold:
    """Leave for the Prefect API to answer a query only when there is something in the answer, or after some seconds.

    Asked for by the header ``Prefer: wait=N`` (RFC 7240). The embedded backend holds a query whose first field is an
    empty list; any other answers at once, which is how it is told apart. A held request is sent once, and not again.
    """

    def __init__(self, seconds: float) -> None:
        #: Seconds; some versions of urllib3 cannot release a request, so that it must not last
        longest = LONGEST_HOLD if hasattr(urllib3.HTTPResponse, "shutdown") else 1.0
        self.seconds = math.ceil(min(seconds, longest))
        #: whether the API has held, or would have
        self.is_applied = False
        self._released = False
        self._response: Optional[urllib3.HTTPResponse] = None
        self._lock = threading.Lock()

    def release(self) -> None:
        """Ends the request; for another thread."""
        with self._lock:
            self._released = True
            if self._response is not None:
                # it may have just been answered
                with suppress(Exception):
                    self._response.shutdown()

    def send(self, send: Callable[[], requests.Response]) -> requests.Response:
        """Sends the request, and reads the answer.

        Args:
            send: sends it, and returns as soon as the answer's headers have come.

        Raises:
            Released: `release` was called.
        """
        try:
            response = send()
            self.is_applied = "Preference-Applied" in response.headers
            with self._lock:
                self._response = response.raw
                if self._released:
                    raise Released
            transport.read(response)
            return response
        except (requests.ConnectionError, ChunkedEncodingError):
            if self._released:
                raise Released from None
            raise
        finally:
            with self._lock:
                self._response = None


_hold: "ContextVar[Optional[Hold]]" = ContextVar("hold", default=None)


class _Faults:
    """Tells people once when the Prefect API stops answering, and once when it answers again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: Optional[float] = None

    def failed(self, attempt: RetryCallState) -> None:
        """For tenacity's `after`."""
        assert attempt.outcome is not None
        with self._lock:
            if self._since is None:
                self._since = monotonic()
                error = attempt.outcome.exception()
                assert error is not None
                _logger.warning("The Prefect API does not answer (%s). Trying again...", _reason(error))

    def answered(self) -> None:
        with self._lock:
            if self._since is not None:
                _logger.warning("The Prefect API answers again, after %.1f s.", monotonic() - self._since)
                self._since = None


_faults = _Faults()


def _may_pass(error: BaseException) -> bool:
    """Whether the same request may be answered the next time, unlike one that is definitely refused."""
    if isinstance(error, requests.HTTPError):
        return error.response is not None and error.response.status_code in _PASSING
    if isinstance(error, BadAnswer):
        return error.may_pass
    return isinstance(error, (requests.ConnectionError, requests.Timeout, ChunkedEncodingError))


_backoff = wait_random_exponential(multiplier=0.2, max=5)


def _pause(attempt: RetryCallState) -> float:
    """Seconds until the next attempt: what the API asks for, or else a random and growing time."""
    assert attempt.outcome is not None
    return _retry_after(attempt.outcome.exception()) or _backoff(attempt)


def _retry_after(error: Any) -> float:
    """Seconds after which the API wants to be asked again; 0 if it does not say."""
    response = getattr(error, "response", None)
    asked = "" if response is None else response.headers.get("Retry-After", "")
    return float(asked) if asked.isdecimal() else 0.0


class _Session(transport.Session):
    """Connections on which no answer begins, or goes on, more than a second after the patience."""

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        if isinstance(options["timeout"], urllib3.Timeout):
            # of a request that follows a redirect of this one
            return super().send(request, **options)
        hold = _hold.get()
        held = hold.seconds if hold else 0
        longest = min(options["timeout"], max(1.0, _patience.get())) + held
        options["timeout"] = urllib3.Timeout(total=longest)
        until = max(_deadline.get(), monotonic() + 1.0) + held
        if hold is None:
            response = self.send_until(until, request, **options)
            transport.read(response)
            return response
        request.headers["Prefer"] = f"wait={hold.seconds}"
        return hold.send(partial(self.send_until, until, request, **options))


class _Client(prefect.Client):
    """Prefect's client, over connections that are kept, and patient with an API that is not there for a while.

    What is sent again has the same effect as when it is sent once: queries, cancellations, and flow runs that are
    created with an idempotency key, which prefect.Client.create_flow_run always sends.
    """

    def _send_request(self, session: requests.Session, *args: Any, **kwargs: Any) -> requests.Response:
        # prefect.Client._request makes a session for each request (client/client.py); a thread's own is kept instead
        kept = _connections.__dict__.setdefault("session", _Session())
        attempts = Retrying(
            retry=retry_if_exception(_may_pass),
            wait=_pause,
            # a pause that would end too late is not begun
            stop=stop_before_delay(0.0 if _hold.get() or _is_sent_once.get() else _patience.get()),
            after=_faults.failed,
            reraise=True,
        )
        token = _deadline.set(monotonic() + _patience.get())
        try:
            response: requests.Response = attempts(self._send_once, kept, *args, **kwargs)
        finally:
            _deadline.reset(token)
        _faults.answered()
        return response

    def _send_once(self, session: requests.Session, *args: Any, **kwargs: Any) -> requests.Response:
        # by then prefect.Client has given up to wait for the end of a rate limit, which takes it three minutes a time
        attempt = prefect.config.cloud.rate_limiting.max_retries + 1
        try:
            response = super()._send_request(session, *args, **{**kwargs, "rate_limit_counter": attempt})
        except (AttributeError, IndexError, KeyError, RecursionError, TypeError) as error:
            # prefect.Client takes the errors of an answer for granted (`_format_graphql_request_error`)
            raise BadAnswer(f"{type(error).__name__}: {error}") from error
        announced = response.headers.get("Content-Length")
        if announced and "Content-Encoding" not in response.headers and len(response.content) < int(announced):
            # urllib3 notices from version 2 on
            raise ChunkedEncodingError(f"{len(response.content)} of {announced} bytes came")
        if not _is_answer(response) or (b'"errors"' in response.content and _GATEWAY_FAULT.search(response.text)):
            raise BadAnswer(response.text[:500])
        return response


def _is_answer(response: requests.Response) -> bool:
    """Whether a response is a JSON object of GraphQL."""
    content = response.content
    # an upper bound, which costs little: each value takes a hundred bytes of memory or more, and two in an answer
    if content.count(b",") + content.count(b"[") + content.count(b"{") > MOST_VALUES:
        raise BadAnswer(f"The answer has more than {MOST_VALUES:,} values.", may_pass=False)
    try:
        answer = response.json()
    except (ValueError, RecursionError):
        return False
    if not isinstance(answer, dict):
        return False
    errors = answer.get("errors") or []
    return isinstance(errors, list) and all(isinstance(each, dict) for each in errors)


def has_answered() -> bool:
    """Whether the Prefect API that is configured has ever answered this process with rows that it was asked for."""
    return prefect.context.config.cloud.api in _answered


def _forget() -> None:
    """A process that was forked must not write to the connections, or wait for the locks, of the one that did it."""
    global _faults
    _connections.__dict__.clear()
    _faults = _Faults()


os.register_at_fork(after_in_child=_forget)


def ask(document: str, variables: Row, purpose: str, hold: Optional[Hold] = None) -> Row:
    """The data that the Prefect API answers a query with.

    Args:
        document: the query's text.
        variables: its variables.
        purpose: what it is for, in words for an error.
        hold: gives the API leave to answer later.

    Raises:
        BackendUnreachable: no answer.
        BadAnswer: an answer without data.
        Released: see `Hold`.
        prefect.exceptions.ClientError: the API refused the query.
    """
    client = _Client()
    token = _hold.set(hold)
    try:
        with _reaching(client, purpose):
            # not Client.graphql: it makes a Box of every object, which takes ten times as long as reading the JSON
            answer: Any = client.post(
                "", server=client.api_server, params={"query": document, "variables": json.dumps(variables)}
            )
    finally:
        _hold.reset(token)
    errors = answer.get("errors")
    if errors:
        # the two texts for which prefect.Client.graphql raises AuthorizationError
        unauthorized = any(text in str(errors) for text in ("UNAUTHENTICATED", "Malformed Authorization header"))
        raise (AuthorizationError if unauthorized else ClientError)(errors)
    data = answer.get("data")
    if not isinstance(data, dict):
        raise _bad(answer, purpose)
    return data


def _bad(answer: Any, purpose: str) -> BadAnswer:
    return BadAnswer(f"Received bad result while {purpose}: {str(answer)[:500]}")


def _reason(error: BaseException) -> str:
    """What is behind an error of a connection, without what requests and urllib3 wrap around it."""
    wrapped = [each for each in (getattr(error, "reason", None), *error.args) if isinstance(each, BaseException)]
    return _reason(wrapped[0]) if wrapped else str(error).rpartition("): ")[2]


def _sought(table: str, where: Optional[Where]) -> str:
    rows = table.replace("_", " ") + "s"
    # of one that is composed, most is nobody's business
    return f"querying for {rows} where {where}" if where and "_and" not in where else f"querying for {rows}"


def find(
    table: str,
    where: Optional[Where] = None,
    order_by: Optional[Row] = None,
    fields: Optional[str] = None,
    limit: Optional[int] = None,
) -> List[Row]:
    """Rows of a table of the Prefect API, all in one answer; for where there are few.

    Args:
        table: such as ``"task_run"``.
        where: a Hasura filter, such as ``{"id": {"_eq": "..."}}``; default: all rows.
        order_by: a Hasura order, such as ``{"map_index": "asc"}``.
        fields: what to select; default: what the table's view needs.
        limit: how many at most; default: all.

    Raises:
        BackendUnreachable: no answer.
        BadAnswer: an answer without rows.
        prefect.exceptions.ClientError: the API refused the query.
    """
    # values travel as variables, so that nothing needs escaping and a backend can keep the parsed document
    document = (
        f"query($where: {table}_bool_exp, $order_by: [{table}_order_by!], $limit: Int) "
        f"{{ {table}(where: $where, order_by: $order_by, limit: $limit) {{ {fields or FIELDS[table]} }} }}"
    )
    sought = _sought(table, where)
    data = ask(document, {"where": where, "order_by": order_by, "limit": limit}, sought)
    return rows_of(data, table, sought, fields or FIELDS[table])


def pages(
    table: str, where: Where, by: Union[str, Tuple[str, str]] = "id", fields: Optional[str] = None
) -> Iterator[List[Row]]:
    """All rows of a table that fit, in pages of at most 500; for where there may be many.

    The first answer also counts them, and so does what should be the last one, for rows that came since. So the last
    page is known, also when the backend gives fewer rows at once than it was asked for, and N rows take N / 500
    requests, rounded up.

    Args:
        table: such as ``"task_run"``.
        where: a Hasura filter.
        by: the column to go by, in which no two of the rows are alike; pages are sorted by it. Or two columns, the
            second of which tells apart what is alike in the first. None of them is null.
        fields: what to select, `by` included; default: what the table's view needs.

    Raises:
        Like `find`.
    """
    sought = _sought(table, where)
    columns = (by,) if isinstance(by, str) else by
    order = ", ".join(f"{{{column}: asc}}" for column in columns)
    select = f"{table}(where: $where, order_by: [{order}], limit: {PAGE}) {{ {fields or FIELDS[table]} }}"
    count = f"{table}_aggregate(where: $where) {{ aggregate {{ count }} }}"
    after, left = where, 0
    while True:
        # not in every answer: the more there are, the more it costs the backend
        is_counted = left <= PAGE
        document = f"query($where: {table}_bool_exp) {{ {select} {count if is_counted else ''} }}"
        data = ask(document, {"where": after}, sought)
        page = rows_of(data, table, sought, fields or FIELDS[table])
        if is_counted:
            left = count_of(data, table, sought)
        if not page:
            return
        yield page
        left -= len(page)
        if left <= 0:
            return
        after = {"_and": [where, *_after(page[-1], columns)]}


def _after(row: Row, columns: Sequence[str]) -> List[Where]:
    """Filters for the rows that come after one, in the order of some columns."""
    first, *rest = columns
    if not rest:
        return [{first: {"_gt": row[first]}}]
    # the first of the two says nothing more, but lets the backend begin where it has to
    return [{first: {"_gte": row[first]}}, {"_or": [{first: {"_gt": row[first]}}, *_after(row, rest)]}]


def rows_of(data: Row, key: str, purpose: str, fields: str = "") -> List[Row]:
    """The rows that an answer holds under a key.

    Args:
        data: the answer.
        key: of the rows.
        purpose: what they are for, in words for an error.
        fields: what was selected of each.

    Raises:
        BadAnswer: there are none, not even an empty list, or some lack a field or have a value of the wrong kind.
    """
    rows = data.get(key)
    keys = _keys(fields)
    if not isinstance(rows, list) or not all(_is_row(row) and keys <= row.keys() for row in rows):
        raise _bad(data, purpose)
    _answered.add(prefect.context.config.cloud.api)
    return rows


@lru_cache(maxsize=64)
def _keys(fields: str) -> FrozenSet[str]:
    """The keys that a selection gives an object, without those of objects in it."""
    outer = None
    while outer != fields:
        outer, fields = fields, re.sub(r"\{[^{}]*\}|\([^()]*\)", " ", fields)
    return frozenset(re.findall(r"(\w+)(?:\s*:\s*\w+)?", fields))


def _is_row(row: Any) -> bool:
    """Whether a row has values of the kinds that its columns have."""
    return isinstance(row, dict) and all(isinstance(row[name], _KINDS[name]) for name in _KINDS.keys() & row.keys())


@contextmanager
def reading(what: str, value: Any) -> Iterator[None]:
    """Say which part of an answer could not be read, and why; Prefect's schemas fail with errors of any kind.

    Raises:
        BadAnswer: see there.
    """
    try:
        yield
    except BadAnswer:
        raise
    except Exception as error:
        raise BadAnswer(
            f"The Prefect API answered with {what} that cannot be read ({type(error).__name__}: {_brief(error)}): "
            f"{_brief(value)}"
        ) from error


def _brief(value: Any) -> str:
    return " ".join(str(value).split())[:200]


def count_of(data: Row, table: str, purpose: str) -> int:
    """The count of a table's rows that an answer holds.

    Raises:
        BadAnswer: there is none.
    """
    try:
        return int(data[f"{table}_aggregate"]["aggregate"]["count"])
    except (KeyError, TypeError) as error:
        raise _bad(data, purpose) from error


@contextmanager
def _reaching(client: prefect.Client, purpose: str) -> Iterator[None]:
    """Says what for the Prefect API was asked when it does not answer, or not with an answer."""
    try:
        yield
    except (requests.ConnectionError, requests.Timeout) as error:
        raise BackendUnreachable(
            f"The Prefect API at {client.api_server} did not answer while {purpose}: {_reason(error)}. Is the backend "
            "running, and are PREFECT__BACKEND and PREFECT__SERVER__ENDPOINT set for it?"
        ) from error
    except requests.HTTPError as error:
        if not _may_pass(error):
            raise
        unreachable = BackendUnreachable(
            f"The Prefect API at {client.api_server} could not answer while {purpose}: {error}"
        )
        unreachable.retry_after = _retry_after(error)
        raise unreachable from error
    except ChunkedEncodingError as error:
        raise AnswerCutOff(f"The answer was cut off while {purpose}: {error}") from error
    except BadAnswer as error:
        raise _bad(error, purpose) from error
    except AttributeError as error:
        # Prefect's client takes what it has asked for out of an answer without a look whether it is there
        raise _bad(error, purpose) from error


def _check_json(what: str, value: Any) -> None:
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise WrongType(
            f"The {what} cannot be sent as JSON: {error}. Pass text, numbers, booleans, lists and dictionaries: "
            "`value.isoformat()` for a date or a datetime, `list(value)` for a set."
        ) from error


def create_flow_run(name: str, **options: Any) -> str:
    """Creates a flow run; `options` are those of `prefect.Client.create_flow_run`. Returns its id.

    Raises:
        WrongType: a parameter or a context variable is not JSON (a `TypeError`).
        BackendUnreachable: no answer.
        prefect.exceptions.ClientError: the API refused, for example because a required parameter is missing.
    """
    for kind in ("parameters", "context"):
        for key, value in (options.get(kind) or {}).items():
            _check_json(f"{'parameter' if kind == 'parameters' else 'context variable'} {key!r} of {name!r}", value)
    client = _Client()
    with _reaching(client, f"creating a flow run of {name!r}"):
        return client.create_flow_run(**options)


def write_logs(logs: List[Row]) -> None:
    """Adds lines to the logs of flow runs, as `prefect.Client.write_run_logs` does.

    Raises:
        BackendUnreachable: no answer.
        prefect.exceptions.ClientError: the API refused.
    """
    client = _Client()
    with _reaching(client, "writing logs"):
        try:
            client.write_run_logs(logs)
        except ClientError:
            raise
        except ValueError as error:
            # what prefect.Client makes of an answer that it was not done
            raise ClientError(str(error)) from error


def set_flow_run_state(flow_run_id: str, state: State) -> None:
    """Sets the state of a flow run, as `prefect.Client.set_flow_run_state` does.

    Raises:
        BackendUnreachable: no answer.
        prefect.exceptions.ClientError: the API refused.
    """
    client = _Client()
    with _reaching(client, f"setting the state of flow run {flow_run_id!r}"):
        client.set_flow_run_state(flow_run_id, state)


def set_task_run_state(task_run_id: str, state: State) -> None:
    """Sets the state of a task run, as `prefect.Client.set_task_run_state` does.

    Raises:
        BackendUnreachable: no answer.
        prefect.exceptions.ClientError: the API refused.
    """
    client = _Client()
    with _reaching(client, f"setting the state of task run {task_run_id!r}"):
        client.set_task_run_state(task_run_id, state)


def cancel_flow_run(flow_run_id: str) -> bool:
    """Asks for a flow run to be cancelled; true when the API has taken note.

    Raises:
        BackendUnreachable: no answer.
        prefect.exceptions.ClientError: the API refused, for example because there is no such flow run.
    """
    client = _Client()
    with _reaching(client, f"cancelling flow run {flow_run_id!r}"):
        return bool(client.cancel_flow_run(flow_run_id))


def flow_run_url(flow_run_id: str) -> str:
    """Where the flow run is to be seen in Prefect's UI. Asks the API once for each tenant.

    Raises:
        BackendUnreachable: no answer.
    """
    client = _Client()
    config = prefect.context.config
    tenant = (client.api_server, client.api_key, client._tenant_id, config.server.ui.endpoint)
    if tenant not in _urls:
        with _reaching(client, f"looking for the address of flow run {flow_run_id!r}"):
            _urls[tenant] = _url_of_a_server(client) or client.get_cloud_url("flow-run", "")
    return _urls[tenant] + flow_run_id


def _url_of_a_server(client: prefect.Client) -> Optional[str]:
    """What `client.get_cloud_url` says of Prefect Server; None of Prefect Cloud.

    Prefect's client asks this process's own configuration which of them it is (prefect 1.4.1's client/client.py). A
    Dask worker may have none, and gets its flow run's together with its tasks.
    """
    config = prefect.context.config
    if config.backend != "server":
        return None
    tenants = client.graphql({"query": {"tenant": {"id", "slug"}}}).data.tenant or ()
    slugs = [tenant.slug for tenant in tenants if client._tenant_id in (None, tenant.id)]
    return "/".join([config.server.ui.endpoint.rstrip("/"), slugs[0], "flow-run", ""]) if slugs else None
