"""What one look of the triggerer has led to."""

from dataclasses import dataclass
from typing import Tuple


@dataclass(frozen=True)
class Wake:
    """A task run that was made due, because what it waits for is over."""

    #: UUID of the task run
    task_run_id: str
    #: UUID of its flow run, which the queue has for an agent now
    flow_run_id: str
    #: name of that flow run
    flow_run_name: str
    #: why: a sentence about the flow run that it waits for
    reason: str


@dataclass(frozen=True)
class Cancellation:
    """A flow run without a process that was being cancelled, and is Cancelled now."""

    #: UUID of the flow run
    flow_run_id: str
    #: its name
    flow_run_name: str
    #: UUIDs of its children, and theirs, that were cancelled with it
    children: Tuple[str, ...]


@dataclass(frozen=True)
class Tick:
    """What one look has led to."""

    #: deferred waits there are, which are not due within a few seconds
    waits: int
    #: task runs that were made due
    woken: Tuple[Wake, ...] = ()
    #: flow runs whose cancelling was finished
    cancelled: Tuple[Cancellation, ...] = ()
    #: whether there is more to do at once
    is_more: bool = False
