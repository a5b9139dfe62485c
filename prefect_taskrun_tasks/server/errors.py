"""What can be said to a caller, and what keeps a database from answering."""


class Refused(Exception):
    """A request that cannot be carried out, in words for the caller. The Prefect client matches on some of them."""

    #: the code of the error that the caller gets
    CODE = "INTERNAL_SERVER_ERROR"


class Outdated(Refused):
    """A state that the run cannot enter any more, as another caller has ended it.

    For this code Prefect's client raises `VersionLockMismatchSignal` (client/client.py in prefect 1.4.1), after which
    the flow runner asks for the state that the run is in, and ends without a task (engine/cloud/flow_runner.py).
    """

    CODE = "VERSION_LOCKING_ERROR"


class BackendNotInstalled(ModuleNotFoundError):
    """A module of the extra ``[server]`` is not installed."""


class DatabaseUnusable(Exception):
    """The database cannot be opened, or is not one of ours."""


class TookTooLong(Exception):
    """What was to be read was not all there when the time for it was over."""


class NotStored(Exception):
    """Nothing of a write transaction was stored, because of the disk or of another program."""

    #: for the caller, of what it has asked for
    OUTCOME = "Nothing of {} was stored."


class NotInPlace(DatabaseUnusable, NotStored):
    """The file of the database was deleted or replaced under the backend: what is written there is lost."""

    #: without its path, as anybody may ask
    REASON = "The database file was deleted or replaced."

    OUTCOME = "Nothing of {} was stored."


class PerhapsStored(NotStored):
    """The server was not heard of any more while it stored a transaction: all of it is stored, or nothing."""

    OUTCOME = "It is not known whether {} was stored: all of it was, or nothing."
