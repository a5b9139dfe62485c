"""Cloud hooks, messages, and indexes for what views, pages and the command ask for."""

import sqlalchemy as sa
from alembic import op

from prefect_taskrun_tasks.server.migrations.types import json, text

revision = "0002"
down_revision = "0001"

#: Nearly all rows have the same tenant, and the others are beginnings of newer ones, or as good as those
NEEDLESS = {
    "ix_agent_config_tenant_id": "agent_config",
    "ix_agent_tenant_id": "agent",
    "ix_edge_tenant_id": "edge",
    "ix_flow_flow_group_id": "flow",
    "ix_flow_group_tenant_id": "flow_group",
    "ix_flow_name": "flow",
    "ix_flow_run_state_tenant_id": "flow_run_state",
    "ix_flow_run_tenant_id": "flow_run",
    "ix_flow_tenant_id": "flow",
    "ix_log_flow_run_id": "log",
    "ix_log_flow_run_timestamp": "log",
    "ix_log_tenant_id": "log",
    "ix_project_tenant_id": "project",
    "ix_task_run_cache_key": "task_run",
    "ix_task_run_artifact_tenant_id": "task_run_artifact",
    "ix_task_run_flow_run_id": "task_run",
    "ix_task_run_state_tenant_id": "task_run_state",
    "ix_task_run_task_id": "task_run",
    "ix_task_run_tenant_id": "task_run",
    "ix_task_tenant_id": "task",
}

#: Some files that were made between the first version and this one have them, of fewer columns
SHORTER = {"ix_flow_run_updated": "flow_run", "ix_log_updated": "log", "ix_task_run_updated": "task_run"}

NEW = {
    "ix_flow_current": ("flow", ["name", "archived"]),
    "ix_flow_newest": ("flow", ["flow_group_id", "created"]),
    "ix_flow_version": ("flow", ["name", "version"]),
    "ix_flow_run_idempotency_key": ("flow_run", ["idempotency_key"]),
    "ix_flow_run_named": ("flow_run", ["name", "created"]),
    "ix_flow_run_updated": ("flow_run", ["updated", "id"]),
    "ix_log_flow_run_page": ("log", ["flow_run_id", "id"]),
    "ix_log_flow_run_timestamp": ("log", ["flow_run_id", "timestamp", "id"]),
    "ix_log_updated": ("log", ["flow_run_id", "updated", "id"]),
    "ix_task_run_cached": ("task_run", ["task_id", "state", "state_timestamp"]),
    "ix_task_run_cached_by_key": ("task_run", ["cache_key", "state", "state_timestamp"]),
    "ix_task_run_map_index": ("task_run", ["flow_run_id", "map_index"]),
    "ix_task_run_page": ("task_run", ["flow_run_id", "id"]),
    "ix_task_run_started": ("task_run", ["flow_run_id", "start_time", "id"]),
    "ix_task_run_states": ("task_run", ["flow_run_id", "state"]),
    "ix_task_run_updated": ("task_run", ["flow_run_id", "updated", "id"]),
}


def upgrade() -> None:
    # files that were made between the first version and this one have some of this already
    for name, table in {**NEEDLESS, **SHORTER}.items():
        op.drop_index(name, table, if_exists=True)
    op.create_table(
        "cloud_hook",
        sa.Column("id", text, nullable=False),
        sa.Column("tenant_id", text, nullable=True),
        sa.Column("version_group_id", text, nullable=True),
        sa.Column("name", text, nullable=True),
        sa.Column("type", text, nullable=False),
        sa.Column("states", json, nullable=False),
        sa.Column("config", json, nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created", text, nullable=False),
        sa.Column("updated", text, nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        if_not_exists=True,
    )
    op.create_table(
        "message",
        sa.Column("id", text, nullable=False),
        sa.Column("tenant_id", text, nullable=True),
        sa.Column("read", sa.Boolean(), nullable=False),
        sa.Column("type", text, nullable=True),
        sa.Column("text", text, nullable=True),
        sa.Column("content", json, nullable=False),
        sa.Column("created", text, nullable=False),
        sa.Column("updated", text, nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        if_not_exists=True,
    )
    for name, (table, columns) in NEW.items():
        op.create_index(name, table, columns, if_not_exists=True)
    # a child's context says whose it is
    if op.get_bind().dialect.name == "sqlite":
        place = 'json_extract(context, \'$."prefect_taskrun_tasks"."parent_flow_run_id"\')'
        op.create_index("ix_flow_run_parent", "flow_run", [sa.text(place)], if_not_exists=True)
    else:
        op.create_index(
            "ix_flow_run_context",
            "flow_run",
            ["context"],
            postgresql_using="gin",
            postgresql_ops={"context": "jsonb_path_ops"},
        )
