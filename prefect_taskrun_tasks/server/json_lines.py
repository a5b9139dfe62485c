"""The log for programs: one JSON object a line."""

import json
import logging
from datetime import datetime, timezone

from .clock import instant


class JsonLines(logging.Formatter):
    """Time, level, logger and message of a record; what is known of a request; the traceback of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": instant(datetime.fromtimestamp(record.created, timezone.utc)),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "request", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
