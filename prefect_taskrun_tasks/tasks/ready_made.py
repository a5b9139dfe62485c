"""Tasks that users drop into a flow, named like the functions that they are in Prefect."""

from typing import Type, TypeVar

from prefect import Task

T = TypeVar("T", bound=Task)


def ready_made(kind: Type[T], name: str) -> T:
    """Return a task of a class, named like the function that Prefect's own task was made of.

    ``task(create_flow_run.run)`` takes its name from ``run.__name__`` (`FunctionTask` in prefect 1.4.1's
    tasks/core/function.py), as flows do that give the task retries of their own.
    """
    run = vars(kind)["run"]
    run.__name__ = name
    # pickle finds a bound method by its name
    setattr(kind, name, run)
    return kind(name=name)
