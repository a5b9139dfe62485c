"""What can be said to a caller, and what keeps a database from answering."""


class Refused(Exception):
    """A request that cannot be carried out, in words for the caller. The Prefect client matches on some of them."""


class DatabaseUnusable(Exception):
    """The database cannot be opened, or is not one of ours."""


class TookTooLong(Exception):
    """What was to be read was not all there when the time for it was over."""


class NotStored(Exception):
    """Nothing of a write transaction was stored, because of the disk or of another program."""

    #: for the caller, of what it has asked for
    OUTCOME = "Nothing of {} was stored."


class PerhapsStored(NotStored):
    """The server was not heard of any more while it stored a transaction: all of it is stored, or nothing."""

    OUTCOME = "It is not known whether {} was stored: all of it was, or nothing."
