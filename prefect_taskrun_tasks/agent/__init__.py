"""Prefect local agents whose flow runs are warm.

`warm_agent` is the agent of ``prefect-taskrun agent start``. `process_end` settles flow runs whose process is gone.
Running this package starts the agent of a `LocalRunner`. `process` starts and stops that agent for the runner.
"""
