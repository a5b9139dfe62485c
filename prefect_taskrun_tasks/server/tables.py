"""
What the backend stores: the tables of Prefect Server, by the names its API exposes.

This metadata is all that reading knows. A table listed here can be queried, filtered, ordered and joined over
GraphQL; a column made by `parent` is also a relationship, from the child by its name and back by `reverse`.
"""

import uuid
from typing import Any, Dict, Optional

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    func,
    literal_column,
)
from sqlalchemy.dialects.postgresql import JSONB

from .clock import now


class Characters(TypeDecorator[str]):
    """Text that is compared and ordered by the numbers of its characters, in every database."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        return dialect.type_descriptor(Text(collation="C" if dialect.name == "postgresql" else None))


class Words(Characters):
    """Text that people or programs wrote.

    Python reads undecodable bytes, of file names and of output, as halves of surrogate pairs. Databases refuse those,
    PostgreSQL the character 0 too, and a log with one in it would be sent again for ever, so they are kept as question
    marks.
    """

    cache_ok = True

    def process_bind_param(self, value: Optional[str], dialect: Dialect) -> Optional[str]:
        if value is not None and dialect.name == "postgresql":
            value = value.replace("\0", "?")
        # Python knows without a search whether a text is ASCII; most texts are
        return value if value is None or value.isascii() else value.encode("utf-8", "replace").decode()


class Uuid(Words):
    """A UUID as its lower-case hyphenated text; what is looked for among them may be any."""

    cache_ok = True


class Timestamp(Characters):
    """An instant in the form of `clock.instant`."""

    cache_ok = True


class Interval(Words):
    """A duration as ``HH:MM:SS``."""

    cache_ok = True


#: Characters of a flow with all its tasks, as JSON; few bytes that are sent compressed may stand for more
LARGEST_FLOW = 32 * 1024 * 1024

metadata = MetaData()


def new_id() -> str:
    return str(uuid.uuid4())


def parent(
    table: str,
    name: Optional[str] = None,
    *,
    reverse: Optional[str] = None,
    hidden: bool = False,
    nullable: bool = False,
    ondelete: str = "CASCADE",
    index: bool = True,
) -> "Column[Any]":
    """A foreign key to `table`, which is the relationship `name` here (unless `hidden`) and `reverse` there."""
    name = name or table
    return Column(
        f"{name}_id",
        Uuid,
        ForeignKey(f"{table}.id", ondelete=ondelete),
        nullable=nullable,
        index=index,
        info={"name": None if hidden else name, "reverse": reverse},
    )


def tenant_id(reverse: Optional[str] = None, hidden: bool = False) -> "Column[Any]":
    # no index: nearly all rows have the same, and SQLite would go by it instead of by one that tells rows apart
    return parent("tenant", reverse=reverse, hidden=hidden, nullable=True, index=False)


def json(name: str, default: Any = None, **info: Any) -> "Column[Any]":
    kind = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
    return Column(name, kind, nullable=default is None, default=default, info=info)


def flag(name: str) -> "Column[Any]":
    return Column(name, Boolean, nullable=False, default=False)


def stored(name: str, *columns: Any) -> Table:
    return Table(
        name,
        metadata,
        Column("id", Uuid, primary_key=True, default=new_id),
        *columns,
        Column("created", Timestamp, nullable=False, default=now),
        Column("updated", Timestamp, nullable=False, default=now, onupdate=now),
    )


def run_columns() -> "list[Column[Any]]":
    """What a flow run and a task run have in common: times, and a copy of the latest state."""
    return [
        Column("name", Words),
        Column("version", Integer, nullable=False, default=0),
        Column("heartbeat", Timestamp),
        Column("start_time", Timestamp),
        Column("end_time", Timestamp),
        Column("state", Words),
        Column("state_message", Words),
        Column("state_timestamp", Timestamp),
        Column("state_start_time", Timestamp),
        json("state_result"),
        json("serialized_state"),
    ]


def state_columns() -> "list[Column[Any]]":
    return [
        Column("timestamp", Timestamp, nullable=False),
        Column("state", Words, nullable=False),
        Column("message", Words),
        json("result"),
        Column("start_time", Timestamp),
        json("serialized_state", default=dict),
        Column("version", Integer, default=1),
    ]


tenant = stored(
    "tenant",
    Column("name", Words, nullable=False),
    Column("slug", Words, nullable=False, unique=True),
    json("info"),
    json("settings", default=dict),
)

project = stored(
    "project",
    tenant_id(reverse="projects"),
    Column("name", Words, nullable=False),
    Column("description", Words),
    UniqueConstraint("tenant_id", "name"),
)

flow_group = stored(
    "flow_group",
    tenant_id(reverse="flow_groups"),
    Column("name", Words, index=True),
    Column("description", Words),
    json("labels"),
    json("schedule"),
    json("run_config"),
    json("default_parameters", default=dict),
    json("settings", default=dict),
)

flow = stored(
    "flow",
    tenant_id(reverse="flows"),
    parent("project", reverse="flows"),
    parent("flow_group", reverse="flows", index=False),
    Column("name", Words, nullable=False),
    Column("description", Words),
    Column("version", Integer),
    Column("version_group_id", Words, index=True),
    flag("archived"),
    json("serialized_flow", largest=LARGEST_FLOW),
    json("environment"),
    json("run_config"),
    json("storage"),
    json("parameters", default=list),
    Column("core_version", Words),
    json("schedule"),
    flag("is_schedule_active"),
    json("settings", default=dict),
)

task = stored(
    "task",
    tenant_id(hidden=True),
    parent("flow", reverse="tasks"),
    Column("name", Words),
    Column("slug", Words),
    Column("description", Words),
    Column("type", Words),
    Column("max_retries", Integer),
    Column("retry_delay", Interval),
    Column("trigger", Words),
    Column("cache_key", Words),
    json("tags", default=list),
    flag("auto_generated"),
    flag("mapped"),
    flag("is_root_task"),
    flag("is_terminal_task"),
    flag("is_reference_task"),
    UniqueConstraint("flow_id", "slug"),
)

edge = stored(
    "edge",
    tenant_id(hidden=True),
    parent("flow", reverse="edges"),
    parent("task", "upstream_task", reverse="downstream_edges"),
    parent("task", "downstream_task", reverse="upstream_edges"),
    Column("key", Words),
    flag("mapped"),
    UniqueConstraint("flow_id", "downstream_task_id", "upstream_task_id"),
)

agent_config = stored(
    "agent_config",
    tenant_id(hidden=True),
    Column("name", Words),
    json("settings", default=dict),
)

agent = stored(
    "agent",
    tenant_id(hidden=True),
    parent("agent_config", reverse="agents", nullable=True, ondelete="SET NULL"),
    Column("name", Words),
    Column("type", Words),
    Column("core_version", Words),
    json("labels", default=list),
    Column("last_queried", Timestamp, default=now),
)

flow_run = stored(
    "flow_run",
    tenant_id(),
    parent("flow", reverse="flow_runs"),
    parent("agent", reverse="flow_runs", nullable=True, ondelete="SET NULL"),
    *run_columns(),
    json("parameters", default=dict),
    json("context", default=dict),
    json("labels", default=list),
    json("run_config"),
    Column("scheduled_start_time", Timestamp, nullable=False),
    flag("auto_scheduled"),
    Column("idempotency_key", Words),
    Column("times_resurrected", Integer, nullable=False, default=0),
    UniqueConstraint("flow_id", "idempotency_key"),
)

flow_run_state = stored(
    "flow_run_state",
    tenant_id(hidden=True),
    parent("flow_run", reverse="states"),
    *state_columns(),
)

task_run = stored(
    "task_run",
    tenant_id(),
    parent("flow_run", reverse="task_runs", index=False),
    parent("task", reverse="task_runs", index=False),
    Column("map_index", Integer, nullable=False, default=-1),
    *run_columns(),
    Column("cache_key", Words),
    UniqueConstraint("flow_run_id", "task_id", "map_index"),
)

task_run_state = stored(
    "task_run_state",
    tenant_id(hidden=True),
    parent("task_run", reverse="states"),
    *state_columns(),
)

log = stored(
    "log",
    tenant_id(hidden=True),
    parent("flow_run", reverse="logs", hidden=True, nullable=True, index=False),
    parent("task_run", reverse="logs", hidden=True, nullable=True),
    Column("timestamp", Timestamp, nullable=False),
    Column("name", Words),
    Column("level", Words),
    Column("message", Words),
    json("info"),
    Column("is_loaded_from_archive", Boolean),
)

task_run_artifact = stored(
    "task_run_artifact",
    tenant_id(hidden=True),
    parent("task_run"),
    Column("kind", Words, nullable=False),
    json("data", default=dict),
)

cloud_hook = stored(
    "cloud_hook",
    tenant_id(hidden=True),
    Column("version_group_id", Words),
    Column("name", Words),
    Column("type", Words, nullable=False),
    json("states", default=list),
    json("config", default=dict),
    Column("active", Boolean, nullable=False, default=True),
)

message = stored(
    "message",
    tenant_id(hidden=True),
    flag("read"),
    Column("type", Words),
    Column("text", Words),
    json("content", default=dict),
)

#: Rows that are computed when they are asked for, and not kept
computed = MetaData()

#: What `traversal` finds
utility_traversal = Table(
    "utility_traversal",
    computed,
    Column("task_id", Uuid, ForeignKey(task.c.id), info={"name": "task", "reverse": None}),
    Column("tenant_id", Uuid),
    Column("depth", Integer),
)

#: All that can be asked for, by name
readable: Dict[str, Table] = {**metadata.tables, **computed.tables}

# the queue asks for flow runs by state and start time, several times a second and agent; services for both by state
Index("ix_flow_run_state_start_time", flow_run.c.state, flow_run.c.state_start_time)
Index("ix_task_run_state_start_time", task_run.c.state, task_run.c.state_start_time)
Index("ix_flow_run_created", flow_run.c.created)
# people call flow runs by name, of which there may be many; keys are looked for in the runs of all flows
Index("ix_flow_run_named", flow_run.c.name, flow_run.c.created)
Index("ix_flow_run_idempotency_key", flow_run.c.idempotency_key)
# a flow has one version that is not archived, and any number of others
Index("ix_flow_current", flow.c.name, flow.c.archived)
Index("ix_flow_version", flow.c.name, flow.c.version)
Index("ix_flow_newest", flow.c.flow_group_id, flow.c.created)
Index("ix_log_flow_run_timestamp", log.c.flow_run_id, log.c.timestamp, log.c.id)
# pages go by id, and children by map index
Index("ix_log_flow_run_page", log.c.flow_run_id, log.c.id)
Index("ix_task_run_page", task_run.c.flow_run_id, task_run.c.id)
Index("ix_task_run_map_index", task_run.c.flow_run_id, task_run.c.map_index)
# and task runs of a flow run in the order in which they started
Index("ix_task_run_started", task_run.c.flow_run_id, task_run.c.start_time, task_run.c.id)
# counted by state, and asked for by it
Index("ix_task_run_states", task_run.c.flow_run_id, task_run.c.state)
# children are looked for by their parent, which their context names; `jsonb` writes the place the same way
Index(
    "ix_flow_run_parent",
    func.json_extract(flow_run.c.context, literal_column("""'$."prefect_taskrun_tasks"."parent_flow_run_id"'""")),
).ddl_if(dialect="sqlite")
Index(
    "ix_flow_run_context",
    flow_run.c.context,
    postgresql_using="gin",
    postgresql_ops={"context": "jsonb_path_ops"},
).ddl_if(dialect="postgresql")
# who follows runs and logs asks for what has changed
Index("ix_flow_run_updated", flow_run.c.updated, flow_run.c.id)
Index("ix_task_run_updated", task_run.c.flow_run_id, task_run.c.updated, task_run.c.id)
Index("ix_log_updated", log.c.flow_run_id, log.c.updated, log.c.id)
# cached states are looked for in all runs of a task, or of all tasks with a key
Index("ix_task_run_cached", task_run.c.task_id, task_run.c.state, task_run.c.state_timestamp)
Index("ix_task_run_cached_by_key", task_run.c.cache_key, task_run.c.state, task_run.c.state_timestamp)
