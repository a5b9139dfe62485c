"""The log for people: a line for each record, which nothing that a caller sends can forge."""

import logging


class TextLines(logging.Formatter):
    """Time, level, logger and message of a record on one line; the traceback of an exception behind it, indented."""

    def __init__(self) -> None:
        super().__init__("[%(asctime)s] %(levelname)s - %(name)s | %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = _printable(record.message)
        return super().formatMessage(record)

    def formatException(self, error: object) -> str:
        return _indented(super().formatException(error))  # type: ignore[arg-type]

    def formatStack(self, stack: str) -> str:
        return _indented(super().formatStack(stack))


def _indented(text: str) -> str:
    return "\n".join(f"    {_printable(line)}" for line in text.split("\n"))


def _printable(text: str) -> str:
    """A text on one line; what would move the cursor, or colour the line, as an escape sequence."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
