"""The one place that speaks to the Prefect API: query text, and errors that say what was looked for."""

from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Optional

import prefect
import requests

from .errors import BackendUnreachable, BadAnswer, NotFound

Row = Dict[str, Any]
Where = Dict[str, Any]

#: table name -> fields that its view is made of, as prefect.backend 1.4.1 queries them
FIELDS = {
    "flow": (
        "id settings run_config serialized_flow name archived project { name } core_version storage "
        "flow_group { labels }"
    ),
    "flow_run": (
        "id name flow_id serialized_state states { timestamp serialized_state } labels parameters context updated "
        "run_config"
    ),
    "task_run": "id name task { id slug } map_index serialized_state flow_run_id",
    "log": "timestamp message level",
    "agent": "id name labels last_queried",
}


def find(
    table: str,
    where: Optional[Where] = None,
    order_by: Optional[Row] = None,
    fields: Optional[str] = None,
) -> List[Row]:
    """Rows of a table of the Prefect API.

    Args:
        table: such as ``"task_run"``.
        where: a Hasura filter, such as ``{"id": {"_eq": "..."}}``; default: all rows.
        order_by: a Hasura order, such as ``{"map_index": "asc"}``.
        fields: what to select; default: what the table's view needs.

    Raises:
        NotFound: `where` compares something with None, which nothing is.
        BackendUnreachable: no answer.
        BadAnswer: an answer without rows.
        prefect.exceptions.ClientError: the API refused the query.
    """
    # values travel as variables, so that nothing needs escaping and a backend can keep the parsed document
    document = (
        f"query($where: {table}_bool_exp, $order_by: [{table}_order_by!]) "
        f"{{ {table}(where: $where, order_by: $order_by) {{ {fields or FIELDS[table]} }} }}"
    )
    sought = f"{table.replace('_', ' ')}s where {where}" if where else f"{table.replace('_', ' ')}s"
    if _compares_with_null(where):
        raise NotFound(f"There are no {sought}: None was given where a value is needed.")
    client = prefect.Client()
    with _reaching(client, f"looking for {sought}"):
        answer: Any = client.graphql(document, variables={"where": where, "order_by": order_by})
    rows = (answer.get("data") or {}).get(table)
    if rows is None:
        raise BadAnswer(f"Received bad result while querying for {sought}: {answer}")
    return list(rows)


def _compares_with_null(where: Any) -> bool:
    """Hasura takes a comparison with null as true, so that any row would be found."""
    return isinstance(where, dict) and any(value is None or _compares_with_null(value) for value in where.values())


@contextmanager
def _reaching(client: prefect.Client, purpose: str) -> Iterator[None]:
    """Says what for the Prefect API was asked when it does not answer. A bad answer is left to Prefect's own errors."""
    try:
        yield
    except requests.ConnectionError as error:
        raise BackendUnreachable(
            f"The Prefect API at {client.api_server} did not answer while {purpose}: {error}. Is the backend running, "
            "and are PREFECT__BACKEND and PREFECT__SERVER__ENDPOINT set for it?"
        ) from error


def create_flow_run(name: str, **options: Any) -> str:
    """Creates a flow run; `options` are those of `prefect.Client.create_flow_run`. Returns its id.

    Raises:
        BackendUnreachable: no answer.
        prefect.exceptions.ClientError: the API refused, for example because a required parameter is missing.
    """
    client = prefect.Client()
    with _reaching(client, f"creating a flow run of {name!r}"):
        return client.create_flow_run(**options)


def cancel_flow_run(flow_run_id: str) -> bool:
    """Asks for a flow run to be cancelled; true when the API has taken note.

    Raises:
        BackendUnreachable: no answer.
        prefect.exceptions.ClientError: the API refused, for example because there is no such flow run.
    """
    client = prefect.Client()
    with _reaching(client, f"cancelling flow run {flow_run_id!r}"):
        return bool(client.cancel_flow_run(flow_run_id))


def flow_run_url(flow_run_id: str) -> str:
    """Where the flow run is to be seen in Prefect's UI.

    Raises:
        BackendUnreachable: no answer.
    """
    client = prefect.Client()
    with _reaching(client, f"looking for the address of flow run {flow_run_id!r}"):
        return client.get_cloud_url("flow-run", flow_run_id)
