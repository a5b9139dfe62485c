"""Wakes flow runs that wait without a process, on any Prefect 1 backend."""

from .tick import Cancellation, Tick, Wake
from .triggerer import LONGEST_INTERVAL, Triggerer

__all__ = ["LONGEST_INTERVAL", "Cancellation", "Tick", "Triggerer", "Wake"]
