"""The log for people."""

import logging
import sys

from prefect_taskrun_tasks.server.text_lines import TextLines


def test_what_callers_send_cannot_forge_lines_or_move_the_cursor() -> None:
    record = logging.LogRecord(
        "n", logging.WARNING, "", 0, "The time zone %s is odd", ("a\n[x] ERROR\x1b[31m\u202e",), None
    )
    line = TextLines().format(record)
    assert line.endswith(r" WARNING - n | The time zone a\n[x] ERROR\x1b[31m\u202e is odd")


def test_a_traceback_is_readable_and_cannot_be_taken_for_other_lines() -> None:
    try:
        raise ValueError("a\n[2026-01-01] ERROR - forged\x1b[31m")
    except ValueError:
        record = logging.LogRecord("n", logging.ERROR, "", 0, "Failed", (), sys.exc_info())
    first, *rest = TextLines().format(record).split("\n")
    assert first.endswith(" ERROR - n | Failed")
    assert rest[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") and line.isprintable() for line in rest)
