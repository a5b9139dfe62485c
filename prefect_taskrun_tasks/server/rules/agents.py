"""Agents, and the queue that they take flow runs from."""

from datetime import timedelta
from typing import Any, Dict, List, Optional, Set

from sqlalchemy import TIMESTAMP, and_, cast, func, not_, or_, select

from .. import tables
from ..clock import ago, now
from ..errors import Refused
from ..in_both import InBoth
from ..transaction import Row, Transaction
from .deferrals import BETWEEN_TASKS
from .states import FINISHED, SCHEDULED

#: The label of an agent that takes flow runs with any labels, and without, but for those that another agent takes
ANY_LABELS = "*"

#: Seconds since an agent has asked for work for which it counts as at work; as in
#: `check_for_compatible_agents` in prefect 1.4.1's backend/flow_run.py
AT_WORK = 60

#: Flow runs in one answer of the queue
QUEUE_LENGTH = 25

#: Seconds after which a process that an agent was about to start is taken for lost
STARTING = 600

#: Seconds for which a process sleeps at most until it tries a task again, and after which it has begun that
#: (`CloudTaskRunner.run` in prefect 1.4.1's engine/cloud/task_runner.py)
LONGEST_SLEEP, AWAKE = 600, 3

#: Seconds between two writes of an agent's `last_queried`; an agent may poll several times a second
LAST_QUERIED_PRECISION = 1


def register_agent(
    tx: Transaction,
    type: str,
    tenant_id: Optional[str] = None,
    labels: Optional[List[str]] = None,
    agent_config_id: Optional[str] = None,
    name: Optional[str] = None,
) -> Row:
    """The agent of that name, type, version and labels: an agent that starts again is still the same."""
    if tenant_id is None:
        first = tx.row(select(tables.tenant.c.id).order_by(tables.tenant.c.created).limit(1))
        tenant_id = first["id"] if first else None
    if tenant_id is None or tx.get(tables.tenant, tenant_id) is None:
        raise Refused("No tenant found.")
    if agent_config_id is not None and tx.get(tables.agent_config, agent_config_id) is None:
        raise Refused(f"Agent config {agent_config_id} not found.")
    agents, labels = tables.agent, sorted(labels or [])
    alike = select(agents).where(
        agents.c.tenant_id == tenant_id, agents.c.type == type, agents.c.core_version == tx.core_version
    )
    if name is not None:
        alike = alike.where(agents.c.name == name)
    for known in tx.rows(alike):
        if known["labels"] == labels:
            return {"id": known["id"]}
    id = tx.insert(
        agents,
        tenant_id=tenant_id,
        agent_config_id=agent_config_id,
        name=name,
        type=type,
        core_version=tx.core_version,
        labels=labels,
    )
    return {"id": id}


def delete_agent(tx: Transaction, agent_id: str) -> Row:
    return {"success": tx.delete(tables.agent, tables.agent.c.id == agent_id) > 0}


def create_agent_config(tx: Transaction, tenant_id: str, name: Optional[str] = None, settings: Any = None) -> Row:
    """The config of that name and with these settings: one that is asked for twice is still one."""
    if tx.get(tables.tenant, tenant_id) is None:
        raise Refused(f"There is no tenant {tenant_id}.")
    configs, settings = tables.agent_config, _checked(settings or {})
    for known in tx.rows(select(configs).where(configs.c.tenant_id == tenant_id, configs.c.name == name)):
        if known["settings"] == settings:
            return {"id": known["id"]}
    return {"id": tx.insert(configs, tenant_id=tenant_id, name=name, settings=settings)}


def update_agent_config(tx: Transaction, agent_config_id: str, name: Optional[str] = None, settings: Any = None) -> Row:
    """Changes what is given, and leaves the rest as it is."""
    given: Dict[str, Any] = {} if name is None else {"name": name}
    if settings is not None:
        given["settings"] = _checked(settings)
    configs = tables.agent_config
    return {"success": tx.update(configs, configs.c.id == agent_config_id, **given) > 0}


def _checked(settings: Any) -> Dict[str, Any]:
    if not isinstance(settings, dict):
        raise Refused(f"The settings of an agent config must be an object, not {settings!r}.")
    return settings


def delete_agent_config(tx: Transaction, agent_config_id: str) -> Row:
    configs = tables.agent_config
    return {"success": tx.delete(configs, configs.c.id == agent_config_id) > 0}


def _is_within(earlier: Any, seconds: float, later: Any) -> Any:
    """Whether of two columns of timestamps, one is at most some seconds after the other."""
    kind = TIMESTAMP(timezone=True)
    return InBoth(
        func.julianday(later) - func.julianday(earlier) <= seconds / 86400,
        cast(later, kind) - cast(earlier, kind) <= timedelta(seconds=seconds),
    )


def get_runs_in_queue(
    tx: Transaction, tenant_id: str, before: Optional[str] = None, labels: Optional[List[str]] = None
) -> Row:
    """Flow runs that an agent with `labels` should start: due ones, and running ones with a task run that is due.

    An agent with the label ``*`` takes all that no other agent at work takes. A run keeps its place in the queue until
    its state changes.
    """
    before, offered = before or now(), set(labels or [])
    runs, task_runs = tables.flow_run, tables.task_run
    due = and_(runs.c.state.in_(SCHEDULED), runs.c.state_start_time <= before)
    # for each flow run that is running, of which there are few; runs that have ended leave task runs that wait for ever
    waiting = select(1).where(
        task_runs.c.flow_run_id == runs.c.id,
        task_runs.c.state.in_(SCHEDULED),
        task_runs.c.state_start_time <= before,
    )
    # a second process beside one that is at work would not run what needs both
    busy = select(1).where(
        task_runs.c.flow_run_id == runs.c.id,
        or_(
            task_runs.c.state == "Running",
            # where it is lost before it is Running, another one takes up what else is due
            and_(task_runs.c.state == "Submitted", task_runs.c.state_timestamp > ago(STARTING)),
            # asleep until it tries again
            and_(
                task_runs.c.state == "Retrying",
                task_runs.c.state_start_time > ago(AWAKE),
                task_runs.c.state_start_time <= ago(-LONGEST_SLEEP),
                # or else it was left behind
                _is_within(task_runs.c.state_timestamp, LONGEST_SLEEP, task_runs.c.state_start_time),
            ),
        ),
    )
    # nor beside one that is between two tasks
    lately = select(1).where(
        task_runs.c.flow_run_id == runs.c.id,
        task_runs.c.state.in_(FINISHED),
        task_runs.c.state_timestamp > ago(BETWEEN_TASKS),
    )
    resumable = and_(runs.c.state == "Running", waiting.exists(), not_(busy.exists()), not_(lately.exists()))
    queue = (
        select(runs.c.id, runs.c.labels)
        .where(runs.c.tenant_id == tenant_id, or_(due, resumable))
        .order_by(runs.c.state_start_time.asc().nulls_last())
    )
    others = _others_at_work(tx) if ANY_LABELS in offered else []
    ready: List[str] = []
    # labels are compared before the list is cut, so that runs for other agents cannot crowd out this one's
    for run in tx.connection.execute(queue).mappings():
        # early versions of this package have stored labels that are no text; they keep nobody else's runs back
        wanted = {str(each) for each in run["labels"] or []}
        takes_any = ANY_LABELS in offered and not any(_fits(wanted, labels) for labels in others)
        if takes_any or _fits(wanted, offered):
            ready.append(run["id"])
            if len(ready) == QUEUE_LENGTH:
                break
    if tx.agent_id:
        agents = tables.agent
        stale = agents.c.last_queried < ago(LAST_QUERIED_PRECISION)
        tx.update(agents, agents.c.id == tx.agent_id, stale, last_queried=now())
    return {"flow_run_ids": ready}


def _fits(wanted: Set[str], offered: Set[str]) -> bool:
    """Whether a flow run's labels are among an agent's. A run without labels is for agents without labels."""
    return wanted <= offered and bool(wanted) == bool(offered)


def _others_at_work(tx: Transaction) -> List[Set[str]]:
    """The labels of each other agent that has asked for work lately."""
    agents = tables.agent
    lately = select(agents.c.id, agents.c.labels).where(agents.c.last_queried > ago(AT_WORK))
    return [set(row["labels"] or []) for row in tx.rows(lately) if row["id"] != tx.agent_id]
