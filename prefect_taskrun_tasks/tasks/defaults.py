"""Arguments of a task that were given to its constructor."""

import inspect
from functools import wraps
from typing import Any, Callable, TypeVar, cast

Run = TypeVar("Run", bound=Callable[..., Any])


#: Arguments of `run` that mean something else to the constructor: Prefect's own
_PREFECTS = ("result", "timeout")


def defaults_from_constructor(run: Run) -> Run:
    """Decorator for a task's `run`: an argument with a default that a call leaves out is the task's attribute.

    Prefect's own `defaults_from_attrs` cannot be used, because it fails for arguments that are given by position,
    as in ``create_flow_run.run("<flow id>")``.
    """
    signature = inspect.signature(run)
    has_default = [name for name, each in signature.parameters.items() if each.default is not each.empty]
    names = [name for name in has_default if name not in _PREFECTS]

    @wraps(run)
    def method(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        task = args[0]
        for name in names:
            given.arguments.setdefault(name, getattr(task, name))
        return run(**given.arguments)

    return cast(Run, method)
