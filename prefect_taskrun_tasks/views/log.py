"""Lines of a flow run's log."""

import logging
from datetime import datetime
from typing import Any, Dict, Iterator, NamedTuple, Optional

import pendulum

from .. import api
from .arguments import check_kind
from .history import instant


class FlowRunLog(NamedTuple):
    """A line of a flow run's log. Sorts by time. Drop-in for `prefect.backend.flow_run.FlowRunLog`."""

    timestamp: pendulum.DateTime
    #: of the `logging` module, such as ``logging.INFO``
    level: int
    message: str

    @classmethod
    def from_dict(cls, data: Dict[str, Any]) -> "FlowRunLog":
        # getLevelName goes both ways; a name that this process does not know comes back as a text
        level = logging.getLevelName(data["level"])
        return cls(
            timestamp=instant(data["timestamp"]),
            level=level if isinstance(level, int) else logging.INFO,
            message=data["message"],
        )


def logs_where(where: api.Where, start_time: Optional[datetime], end_time: Optional[datetime]) -> Iterator[FlowRunLog]:
    """Log lines that fit, oldest first, looked up 500 at a time.

    Args:
        where: a Hasura filter.
        start_time: only lines after it; None: from the beginning.
        end_time: only lines up to it; None: to the end.

    Raises:
        WrongType: `start_time` or `end_time` is not a `datetime` (a `TypeError`).
    """
    check_kind(datetime, start_time=start_time, end_time=end_time)
    window = {
        **({"_gt": start_time.isoformat()} if start_time else {}),
        **({"_lte": end_time.isoformat()} if end_time else {}),
    }
    within = {**where, "timestamp": window} if window else where
    return (FlowRunLog.from_dict(row) for page in api.pages("log", within, by=("timestamp", "id")) for row in page)
