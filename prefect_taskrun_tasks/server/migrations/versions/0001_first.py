"""The tables of the first version of this package, which kept the number 1 in SQLite's ``user_version``."""

import sqlalchemy as sa
from alembic import op

from prefect_taskrun_tasks.server.migrations.types import json, text

revision = "0001"
down_revision = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        # by which all versions of this package know their files
        op.execute("PRAGMA user_version = 1")
    op.create_table(
        "tenant",
        sa.Column("id", text, nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("slug", text, nullable=False),
        sa.Column("info", json, nullable=True),
        sa.Column("settings", json, nullable=False),
        sa.Column("created", text, nullable=False),
        sa.Column("updated", text, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("slug"),
    )
    op.create_table(
        "agent_config",
        sa.Column("id", text, nullable=False),
        sa.Column("tenant_id", text, nullable=True),
        sa.Column("name", text, nullable=True),
        sa.Column("settings", json, nullable=False),
        sa.Column("created", text, nullable=False),
        sa.Column("updated", text, nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_agent_config_tenant_id", "agent_config", ["tenant_id"])
    op.create_table(
        "flow_group",
        sa.Column("id", text, nullable=False),
        sa.Column("tenant_id", text, nullable=True),
        sa.Column("name", text, nullable=True),
        sa.Column("description", text, nullable=True),
        sa.Column("labels", json, nullable=True),
        sa.Column("schedule", json, nullable=True),
        sa.Column("run_config", json, nullable=True),
        sa.Column("default_parameters", json, nullable=False),
        sa.Column("settings", json, nullable=False),
        sa.Column("created", text, nullable=False),
        sa.Column("updated", text, nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_flow_group_name", "flow_group", ["name"])
    op.create_index("ix_flow_group_tenant_id", "flow_group", ["tenant_id"])
    op.create_table(
        "project",
        sa.Column("id", text, nullable=False),
        sa.Column("tenant_id", text, nullable=True),
        sa.Column("name", text, nullable=False),
        sa.Column("description", text, nullable=True),
        sa.Column("created", text, nullable=False),
        sa.Column("updated", text, nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("tenant_id", "name"),
    )
    op.create_index("ix_project_tenant_id", "project", ["tenant_id"])
    op.create_table(
        "agent",
        sa.Column("id", text, nullable=False),
        sa.Column("tenant_id", text, nullable=True),
        sa.Column("agent_config_id", text, nullable=True),
        sa.Column("name", text, nullable=True),
        sa.Column("type", text, nullable=True),
        sa.Column("core_version", text, nullable=True),
        sa.Column("labels", json, nullable=False),
        sa.Column("last_queried", text, nullable=True),
        sa.Column("created", text, nullable=False),
        sa.Column("updated", text, nullable=False),
        sa.ForeignKeyConstraint(["agent_config_id"], ["agent_config.id"], ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_agent_agent_config_id", "agent", ["agent_config_id"])
    op.create_index("ix_agent_tenant_id", "agent", ["tenant_id"])
    op.create_table(
        "flow",
        sa.Column("id", text, nullable=False),
        sa.Column("tenant_id", text, nullable=True),
        sa.Column("project_id", text, nullable=False),
        sa.Column("flow_group_id", text, nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("description", text, nullable=True),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("version_group_id", text, nullable=True),
        sa.Column("archived", sa.Boolean(), nullable=False),
        sa.Column("serialized_flow", json, nullable=True),
        sa.Column("environment", json, nullable=True),
        sa.Column("run_config", json, nullable=True),
        sa.Column("storage", json, nullable=True),
        sa.Column("parameters", json, nullable=False),
        sa.Column("core_version", text, nullable=True),
        sa.Column("schedule", json, nullable=True),
        sa.Column("is_schedule_active", sa.Boolean(), nullable=False),
        sa.Column("settings", json, nullable=False),
        sa.Column("created", text, nullable=False),
        sa.Column("updated", text, nullable=False),
        sa.ForeignKeyConstraint(["flow_group_id"], ["flow_group.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_flow_flow_group_id", "flow", ["flow_group_id"])
    op.create_index("ix_flow_name", "flow", ["name"])
    op.create_index("ix_flow_project_id", "flow", ["project_id"])
    op.create_index("ix_flow_tenant_id", "flow", ["tenant_id"])
    op.create_index("ix_flow_version_group_id", "flow", ["version_group_id"])
    op.create_table(
        "flow_run",
        sa.Column("id", text, nullable=False),
        sa.Column("tenant_id", text, nullable=True),
        sa.Column("flow_id", text, nullable=False),
        sa.Column("agent_id", text, nullable=True),
        sa.Column("name", text, nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("heartbeat", text, nullable=True),
        sa.Column("start_time", text, nullable=True),
        sa.Column("end_time", text, nullable=True),
        sa.Column("state", text, nullable=True),
        sa.Column("state_message", text, nullable=True),
        sa.Column("state_timestamp", text, nullable=True),
        sa.Column("state_start_time", text, nullable=True),
        sa.Column("state_result", json, nullable=True),
        sa.Column("serialized_state", json, nullable=True),
        sa.Column("parameters", json, nullable=False),
        sa.Column("context", json, nullable=False),
        sa.Column("labels", json, nullable=False),
        sa.Column("run_config", json, nullable=True),
        sa.Column("scheduled_start_time", text, nullable=False),
        sa.Column("auto_scheduled", sa.Boolean(), nullable=False),
        sa.Column("idempotency_key", text, nullable=True),
        sa.Column("times_resurrected", sa.Integer(), nullable=False),
        sa.Column("created", text, nullable=False),
        sa.Column("updated", text, nullable=False),
        sa.ForeignKeyConstraint(["agent_id"], ["agent.id"], ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["flow_id"], ["flow.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("flow_id", "idempotency_key"),
    )
    op.create_index("ix_flow_run_agent_id", "flow_run", ["agent_id"])
    op.create_index("ix_flow_run_created", "flow_run", ["created"])
    op.create_index("ix_flow_run_flow_id", "flow_run", ["flow_id"])
    op.create_index("ix_flow_run_state_start_time", "flow_run", ["state", "state_start_time"])
    op.create_index("ix_flow_run_tenant_id", "flow_run", ["tenant_id"])
    op.create_table(
        "task",
        sa.Column("id", text, nullable=False),
        sa.Column("tenant_id", text, nullable=True),
        sa.Column("flow_id", text, nullable=False),
        sa.Column("name", text, nullable=True),
        sa.Column("slug", text, nullable=True),
        sa.Column("description", text, nullable=True),
        sa.Column("type", text, nullable=True),
        sa.Column("max_retries", sa.Integer(), nullable=True),
        sa.Column("retry_delay", text, nullable=True),
        sa.Column("trigger", text, nullable=True),
        sa.Column("cache_key", text, nullable=True),
        sa.Column("tags", json, nullable=False),
        sa.Column("auto_generated", sa.Boolean(), nullable=False),
        sa.Column("mapped", sa.Boolean(), nullable=False),
        sa.Column("is_root_task", sa.Boolean(), nullable=False),
        sa.Column("is_terminal_task", sa.Boolean(), nullable=False),
        sa.Column("is_reference_task", sa.Boolean(), nullable=False),
        sa.Column("created", text, nullable=False),
        sa.Column("updated", text, nullable=False),
        sa.ForeignKeyConstraint(["flow_id"], ["flow.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("flow_id", "slug"),
    )
    op.create_index("ix_task_flow_id", "task", ["flow_id"])
    op.create_index("ix_task_tenant_id", "task", ["tenant_id"])
    op.create_table(
        "edge",
        sa.Column("id", text, nullable=False),
        sa.Column("tenant_id", text, nullable=True),
        sa.Column("flow_id", text, nullable=False),
        sa.Column("upstream_task_id", text, nullable=False),
        sa.Column("downstream_task_id", text, nullable=False),
        sa.Column("key", text, nullable=True),
        sa.Column("mapped", sa.Boolean(), nullable=False),
        sa.Column("created", text, nullable=False),
        sa.Column("updated", text, nullable=False),
        sa.ForeignKeyConstraint(["downstream_task_id"], ["task.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["flow_id"], ["flow.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["upstream_task_id"], ["task.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("flow_id", "downstream_task_id", "upstream_task_id"),
    )
    op.create_index("ix_edge_downstream_task_id", "edge", ["downstream_task_id"])
    op.create_index("ix_edge_flow_id", "edge", ["flow_id"])
    op.create_index("ix_edge_tenant_id", "edge", ["tenant_id"])
    op.create_index("ix_edge_upstream_task_id", "edge", ["upstream_task_id"])
    op.create_table(
        "flow_run_state",
        sa.Column("id", text, nullable=False),
        sa.Column("tenant_id", text, nullable=True),
        sa.Column("flow_run_id", text, nullable=False),
        sa.Column("timestamp", text, nullable=False),
        sa.Column("state", text, nullable=False),
        sa.Column("message", text, nullable=True),
        sa.Column("result", json, nullable=True),
        sa.Column("start_time", text, nullable=True),
        sa.Column("serialized_state", json, nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("created", text, nullable=False),
        sa.Column("updated", text, nullable=False),
        sa.ForeignKeyConstraint(["flow_run_id"], ["flow_run.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_flow_run_state_flow_run_id", "flow_run_state", ["flow_run_id"])
    op.create_index("ix_flow_run_state_tenant_id", "flow_run_state", ["tenant_id"])
    op.create_table(
        "task_run",
        sa.Column("id", text, nullable=False),
        sa.Column("tenant_id", text, nullable=True),
        sa.Column("flow_run_id", text, nullable=False),
        sa.Column("task_id", text, nullable=False),
        sa.Column("map_index", sa.Integer(), nullable=False),
        sa.Column("name", text, nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("heartbeat", text, nullable=True),
        sa.Column("start_time", text, nullable=True),
        sa.Column("end_time", text, nullable=True),
        sa.Column("state", text, nullable=True),
        sa.Column("state_message", text, nullable=True),
        sa.Column("state_timestamp", text, nullable=True),
        sa.Column("state_start_time", text, nullable=True),
        sa.Column("state_result", json, nullable=True),
        sa.Column("serialized_state", json, nullable=True),
        sa.Column("cache_key", text, nullable=True),
        sa.Column("created", text, nullable=False),
        sa.Column("updated", text, nullable=False),
        sa.ForeignKeyConstraint(["flow_run_id"], ["flow_run.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("flow_run_id", "task_id", "map_index"),
    )
    op.create_index("ix_task_run_cache_key", "task_run", ["cache_key"])
    op.create_index("ix_task_run_flow_run_id", "task_run", ["flow_run_id"])
    op.create_index("ix_task_run_state_start_time", "task_run", ["state", "state_start_time"])
    op.create_index("ix_task_run_task_id", "task_run", ["task_id"])
    op.create_index("ix_task_run_tenant_id", "task_run", ["tenant_id"])
    op.create_table(
        "log",
        sa.Column("id", text, nullable=False),
        sa.Column("tenant_id", text, nullable=True),
        sa.Column("flow_run_id", text, nullable=True),
        sa.Column("task_run_id", text, nullable=True),
        sa.Column("timestamp", text, nullable=False),
        sa.Column("name", text, nullable=True),
        sa.Column("level", text, nullable=True),
        sa.Column("message", text, nullable=True),
        sa.Column("info", json, nullable=True),
        sa.Column("is_loaded_from_archive", sa.Boolean(), nullable=True),
        sa.Column("created", text, nullable=False),
        sa.Column("updated", text, nullable=False),
        sa.ForeignKeyConstraint(["flow_run_id"], ["flow_run.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["task_run_id"], ["task_run.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_log_flow_run_id", "log", ["flow_run_id"])
    op.create_index("ix_log_flow_run_timestamp", "log", ["flow_run_id", "timestamp"])
    op.create_index("ix_log_task_run_id", "log", ["task_run_id"])
    op.create_index("ix_log_tenant_id", "log", ["tenant_id"])
    op.create_table(
        "task_run_artifact",
        sa.Column("id", text, nullable=False),
        sa.Column("tenant_id", text, nullable=True),
        sa.Column("task_run_id", text, nullable=False),
        sa.Column("kind", text, nullable=False),
        sa.Column("data", json, nullable=False),
        sa.Column("created", text, nullable=False),
        sa.Column("updated", text, nullable=False),
        sa.ForeignKeyConstraint(["task_run_id"], ["task_run.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_task_run_artifact_task_run_id", "task_run_artifact", ["task_run_id"])
    op.create_index("ix_task_run_artifact_tenant_id", "task_run_artifact", ["tenant_id"])
    op.create_table(
        "task_run_state",
        sa.Column("id", text, nullable=False),
        sa.Column("tenant_id", text, nullable=True),
        sa.Column("task_run_id", text, nullable=False),
        sa.Column("timestamp", text, nullable=False),
        sa.Column("state", text, nullable=False),
        sa.Column("message", text, nullable=True),
        sa.Column("result", json, nullable=True),
        sa.Column("start_time", text, nullable=True),
        sa.Column("serialized_state", json, nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("created", text, nullable=False),
        sa.Column("updated", text, nullable=False),
        sa.ForeignKeyConstraint(["task_run_id"], ["task_run.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_task_run_state_task_run_id", "task_run_state", ["task_run_id"])
    op.create_index("ix_task_run_state_tenant_id", "task_run_state", ["tenant_id"])
