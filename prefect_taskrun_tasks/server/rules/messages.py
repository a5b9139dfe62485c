"""Messages: what cloud hooks leave for who looks at a web UI."""

from .. import tables
from ..transaction import Row, Transaction


def mark_message_as_read(tx: Transaction, message_id: str) -> Row:
    return _mark(tx, message_id, True)


def mark_message_as_unread(tx: Transaction, message_id: str) -> Row:
    return _mark(tx, message_id, False)


def _mark(tx: Transaction, message_id: str, read: bool) -> Row:
    return {"success": tx.update(tables.message, tables.message.c.id == message_id, read=read) > 0}


def delete_message(tx: Transaction, message_id: str) -> Row:
    return {"success": tx.delete(tables.message, tables.message.c.id == message_id) > 0}
