"""Wakes flow runs that wait without a process, on any Prefect 1 backend."""

from .tick import Cancellation, Tick, Wake
from .triggerer import Triggerer

__all__ = ["Cancellation", "Tick", "Triggerer", "Wake"]
