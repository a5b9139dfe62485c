"""The embedded backend: Prefect Server's API in one process, on SQLite or PostgreSQL. Needs the extra ``[server]``."""

from .api_key import ApiKey, ApiKeyUnusable
from .errors import DatabaseUnusable
from .http import Backend, PortUnavailable, Unguarded
from .limits import Limits

__all__ = ["ApiKey", "ApiKeyUnusable", "Backend", "DatabaseUnusable", "Limits", "PortUnavailable", "Unguarded"]
