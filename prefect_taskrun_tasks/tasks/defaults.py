"""Arguments of a task that were given to its constructor."""

import inspect
from functools import wraps
from typing import Any, Callable, TypeVar, cast

Run = TypeVar("Run", bound=Callable[..., Any])


def defaults_from_constructor(*names: str) -> Callable[[Run], Run]:
    """Decorator for a task's `run`: an argument of these names that a call leaves out is the task's attribute.

    Prefect's own `defaults_from_attrs` cannot be used, because it fails for arguments that are given by position,
    as in ``create_flow_run.run("<flow id>")``.
    """

    def decorate(run: Run) -> Run:
        signature = inspect.signature(run)

        @wraps(run)
        def method(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs)
            task = args[0]
            for name in names:
                given.arguments.setdefault(name, getattr(task, name))
            return run(**given.arguments)

        return cast(Run, method)

    return decorate
