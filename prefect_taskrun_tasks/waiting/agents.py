"""Agents, and whether one of them would take a flow run."""

from datetime import timedelta
from functools import lru_cache
from time import monotonic
from typing import Any, Dict, Iterable, List, Set

import pendulum
import prefect

from .. import api

#: The label of an agent that takes flow runs with any labels, and without, but for those that another agent takes. The
#: embedded backend knows it (`server/rules/agents.py`), Prefect Server does not
ANY_LABELS = "*"

#: Seconds for which many waits share one look at the agents
SHARED = 15.0


def check_for_compatible_agents(labels: Iterable[str], since_minutes: int = 1) -> str:
    """Says whether an agent is there that would run a flow run with these labels.

    Drop-in for `prefect.backend.flow_run.check_for_compatible_agents`.

    Args:
        labels: of the flow run.
        since_minutes: an agent that has not asked for work for so long counts as unhealthy.

    Returns:
        A sentence or two for people.
    """
    return _told(api.find("agent"), labels, since_minutes)


def tell_of_agents(labels: Iterable[str]) -> str:
    """The same, of what one of many waits has found out some seconds ago."""
    return _told(_agents(prefect.context.config.cloud.api, monotonic() // SHARED), labels, since_minutes=1)


@lru_cache(maxsize=1)
def _agents(api_url: str, when: float) -> List[api.Row]:
    return api.find("agent")


def _told(found: List[api.Row], labels: Iterable[str], since_minutes: int) -> str:
    wanted = set(labels)
    wanted_blurb = f"labels {sorted(wanted)!r}" if wanted else "empty labels"
    oldest = pendulum.now() - timedelta(minutes=since_minutes)
    agents = [{**agent, "seen": pendulum.parse(agent["last_queried"])} for agent in found if agent["last_queried"]]
    healthy = [agent for agent in agents if agent["seen"] >= oldest]
    matching = [agent for agent in agents if _fits(wanted, set(agent["labels"] or ()))]
    able = [agent for agent in matching if agent in healthy]

    if len(able) > 1:
        return f"Found {len(able)} healthy agents with matching labels. One of them should pick up your flow."
    if able:
        return f"{_described(able[0])} It should deploy your flow run."
    if len(matching) > 1:
        return (
            f"Found {len(matching)} agents with matching labels but they have not queried recently and look "
            f"unhealthy. Restart one of them or start a new agent with {wanted_blurb} to deploy your flow run."
        )
    if matching:
        return (
            f"{_described(matching[0])} Since it hasn't queried recently, it looks unhealthy. Restart it or start a "
            f"new agent with {wanted_blurb} to deploy your flow run."
        )
    if healthy:
        return (
            f"You have {len(healthy)} healthy agents in your tenant but do not have an agent with {wanted_blurb}. "
            "Start an agent with matching labels to deploy your flow run."
        )
    return (
        "There are no healthy agents in your tenant and it does not look like an agent with the required labels has "
        f"been run recently. Start an agent with {wanted_blurb} to run your flow."
    )


def _fits(wanted: Set[str], offered: Set[str]) -> bool:
    # an agent with labels does not take a flow run without labels
    return ANY_LABELS in offered or (wanted <= offered and bool(wanted) == bool(offered))


def _described(agent: Dict[str, Any]) -> str:
    name = f" ({agent['name']})" if agent["name"] else ""
    return f"Agent {agent['id']}{name} has matching labels and last queried {agent['seen'].diff_for_humans()}."
