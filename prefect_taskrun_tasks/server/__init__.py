"""The embedded backend: Prefect Server's API in one process, on SQLite or PostgreSQL. Needs the extra ``[server]``."""

from .errors import BackendNotInstalled, DatabaseUnusable

try:
    from .api_key import ApiKey, ApiKeyUnusable
    from .http import Backend, PortUnavailable, Unguarded
    from .limits import Limits
except ModuleNotFoundError as error:
    raise BackendNotInstalled(
        f"The embedded backend needs the module {error.name}, which is not installed. Install this package with its "
        "extra [server], in a clone of it:\n    pip install '.[server]'",
        name=error.name,
    ) from error

__all__ = [
    "ApiKey",
    "ApiKeyUnusable",
    "Backend",
    "BackendNotInstalled",
    "DatabaseUnusable",
    "Limits",
    "PortUnavailable",
    "Unguarded",
]
