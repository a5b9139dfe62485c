"""What Alembic runs: in the transaction of whoever asks for the upgrade."""

from alembic import context

from prefect_taskrun_tasks.server.migrations import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
