"""The embedded backend: Prefect Server's API in one process, on SQLite. Needs the extra ``[server]``."""

from .database import DatabaseUnusable
from .http import Backend, PortUnavailable

__all__ = ["Backend", "DatabaseUnusable", "PortUnavailable"]
