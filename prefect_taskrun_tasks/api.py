"""The one place that speaks to the Prefect API: query text, paging, connections, errors that say what was sought."""

import json
import os
import threading
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Optional

import prefect
import requests
from prefect.exceptions import AuthorizationError, ClientError
from requests.exceptions import ChunkedEncodingError

from .errors import AnswerCutOff, BackendUnreachable, BadAnswer

Row = Dict[str, Any]
Where = Dict[str, Any]

#: Rows in one answer, where there may be many
PAGE = 500

#: table name -> fields that its view is made of: those that prefect.backend 1.4.1 queries, and `version`
FIELDS = {
    "flow": (
        "id settings run_config serialized_flow name archived project { name } core_version storage "
        "flow_group { labels }"
    ),
    "flow_run": (
        "id name flow_id serialized_state states { timestamp serialized_state } labels parameters context updated "
        "run_config"
    ),
    "task_run": "id name task { id slug } map_index serialized_state flow_run_id version",
    "log": "id timestamp message level",
    "agent": "id name labels last_queried",
}

_connections = threading.local()


class _Client(prefect.Client):
    """Prefect's client, over connections that are kept from one request to the next."""

    def _send_request(self, session: requests.Session, *args: Any, **kwargs: Any) -> requests.Response:
        # prefect.Client._request makes a session for each request (client/client.py); a thread's first one is kept,
        # with the retries that are set up there
        kept = _connections.__dict__.setdefault("session", session)
        response = super()._send_request(kept, *args, **kwargs)
        announced = response.headers.get("Content-Length")
        if announced and "Content-Encoding" not in response.headers and len(response.content) < int(announced):
            # urllib3 notices from version 2 on
            raise ChunkedEncodingError(f"{len(response.content)} of {announced} bytes came")
        if not response.content.lstrip().startswith(b"{"):
            # Prefect fails with an AttributeError at JSON that is no object
            raise BadAnswer(response.text[:500])
        return response


# a process that was forked must not write to the connections of the thread that did it
os.register_at_fork(after_in_child=lambda: _connections.__dict__.clear())


def _ask(document: str, variables: Row, purpose: str) -> Row:
    """The data that the Prefect API answers a query with."""
    client = _Client()
    with _reaching(client, purpose):
        # not Client.graphql, which makes a Box of every object in the answer: ten times the time of reading the JSON
        answer: Any = client.post(
            "", server=client.api_server, params={"query": document, "variables": json.dumps(variables)}
        )
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


def _sought(table: str, where: Optional[Where]) -> str:
    rows = table.replace("_", " ") + "s"
    return f"querying for {rows} where {where}" if where else f"querying for {rows}"


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
    return _rows(_ask(document, {"where": where, "order_by": order_by, "limit": limit}, sought), table, sought)


def pages(table: str, where: Where, by: str = "id", fields: Optional[str] = None) -> Iterator[List[Row]]:
    """All rows of a table that fit, in pages of at most 500; for where there may be many.

    The first answer also counts them, and so does what should be the last one, for rows that came since. So the last
    page is known, also when the backend gives fewer rows at once than it was asked for, and N rows take N / 500
    requests, rounded up.

    Args:
        table: such as ``"task_run"``.
        where: a Hasura filter.
        by: the column to go by, in which no two of the rows are alike; pages are sorted by it.
        fields: what to select, `by` included; default: what the table's view needs.

    Raises:
        Like `find`.
    """
    sought = _sought(table, where)
    select = f"{table}(where: $where, order_by: {{{by}: asc}}, limit: {PAGE}) {{ {fields or FIELDS[table]} }}"
    count = f"{table}_aggregate(where: $where) {{ aggregate {{ count }} }}"
    after, left = where, 0
    while True:
        # not in every answer: the more there are, the more it costs the backend
        is_counted = left <= PAGE
        document = f"query($where: {table}_bool_exp) {{ {select} {count if is_counted else ''} }}"
        data = _ask(document, {"where": after}, sought)
        page = _rows(data, table, sought)
        if is_counted:
            left = _count(data, table, sought)
        if not page:
            return
        yield page
        left -= len(page)
        if left <= 0:
            return
        after = {"_and": [where, {by: {"_gt": page[-1][by]}}]}


def _rows(data: Row, table: str, purpose: str) -> List[Row]:
    rows = data.get(table)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _bad(data, purpose)
    return rows


def _count(data: Row, table: str, purpose: str) -> int:
    try:
        return int(data[f"{table}_aggregate"]["aggregate"]["count"])
    except (KeyError, TypeError) as error:
        raise _bad(data, purpose) from error


@contextmanager
def _reaching(client: prefect.Client, purpose: str) -> Iterator[None]:
    """Says what for the Prefect API was asked when it does not answer, or not with an answer."""
    try:
        yield
    except requests.ConnectionError as error:
        raise BackendUnreachable(
            f"The Prefect API at {client.api_server} did not answer while {purpose}: {error}. Is the backend running, "
            "and are PREFECT__BACKEND and PREFECT__SERVER__ENDPOINT set for it?"
        ) from error
    except ChunkedEncodingError as error:
        raise AnswerCutOff(f"The answer was cut off while {purpose}: {error}") from error
    except BadAnswer as error:
        raise _bad(error, purpose) from error
    except AttributeError as error:
        # Prefect's client takes what it has asked for out of an answer without a look whether it is there
        raise _bad(error, purpose) from error
    except AuthorizationError:
        raise
    except ClientError as error:
        # Prefect's words for a body that is not JSON, "Malformed response received from API.", do not show it
        if isinstance(error.__cause__, json.JSONDecodeError):
            raise _bad(error.__cause__.doc, purpose) from error
        raise


def create_flow_run(name: str, **options: Any) -> str:
    """Creates a flow run; `options` are those of `prefect.Client.create_flow_run`. Returns its id.

    Raises:
        BackendUnreachable: no answer.
        prefect.exceptions.ClientError: the API refused, for example because a required parameter is missing.
    """
    client = _Client()
    with _reaching(client, f"creating a flow run of {name!r}"):
        return client.create_flow_run(**options)


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
    """Where the flow run is to be seen in Prefect's UI.

    Raises:
        BackendUnreachable: no answer.
    """
    client = _Client()
    with _reaching(client, f"looking for the address of flow run {flow_run_id!r}"):
        return client.get_cloud_url("flow-run", flow_run_id)
