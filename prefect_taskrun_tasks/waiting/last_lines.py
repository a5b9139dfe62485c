"""When all log lines of a finished flow run are stored: its process uploads the last ones as it exits."""

import re
from time import monotonic
from typing import Iterable, Optional

import pendulum

from .. import api
from ..views.history import instant

#: The name of the agent of a `LocalRunner`, which is the logger of its lines too. It says in the flow run's log that it
#: has started a process (`Agent._deploy_flow_run` in prefect 1.4.1's agent/agent.py), and that the process has ended
AGENT = "LocalRunner"

#: What begins the line of an agent of this package about a process that has ended
PROCESS_ENDED = "The process of this flow run (PID {}) "

_STARTED = re.compile(r"Submitted for execution: PID: \d+")
_ENDED = re.compile(r"The process of this flow run \(PID \d+\) ")

#: The last line of Prefect's own flow runner (`determine_final_state` in prefect 1.4.1's engine/flow_runner.py)
_RUNNER_ENDED = re.compile("Flow run (SUCCESS|FAILED): ")

#: Seconds without a new line after which a log is complete where neither agent nor runner says so
QUIET = 2.0

#: Seconds without a new line that a process may take to exit, if the agent has not said yet that it has ended
LONGEST_EXIT = 30.0


class LastLines:
    """Whether the log of a finished flow run is complete.

    Where the agent of a `LocalRunner` has started the flow run, its log is complete when the agent says that the
    process has ended: a process uploads its last lines before it exits. Elsewhere it is complete with the last line of
    Prefect's flow runner, or, if there is none, as in a cancelled flow run, after two seconds without a new line.
    """

    def __init__(self) -> None:
        #: processes that the agent has said to have started, and those of them that have ended
        self._started = self._ended = 0
        self._runner_ended: Optional[pendulum.DateTime] = None
        self._changed = monotonic()

    def add(self, rows: Iterable[api.Row]) -> None:
        """Takes log lines that were not known."""
        for row in rows:
            self._changed = monotonic()
            message = row["message"] or ""
            # also of an agent of another name
            self._ended += bool(_ENDED.match(message))
            if row["name"] == AGENT:
                self._started += bool(_STARTED.match(message))
            elif row["task_run_id"] is None and _RUNNER_ENDED.match(message):
                time = instant(row["timestamp"])
                self._runner_ended = max(time, self._runner_ended or time)

    def finish(self) -> None:
        """Notes that the flow run has entered its final state."""
        self._changed = monotonic()

    def are_stored(self, began: Optional[pendulum.DateTime]) -> bool:
        """Whether all lines are stored, once the flow run has finished.

        Args:
            began: when it was last Running; None if it never was. A line that is older is of an earlier attempt.
        """
        if self._started or self._ended:
            return self._ended >= self._started or monotonic() > self._changed + LONGEST_EXIT
        if self._runner_ended and began and self._runner_ended >= began:
            return True
        return monotonic() > self._changed + QUIET
