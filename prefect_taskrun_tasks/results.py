"""From a task run's state to the value that the task returned."""

import json
import pickle
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from copy import copy
from functools import lru_cache
from itertools import islice
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple, Type, TypeVar

import prefect
from prefect.engine import state as prefect_states
from prefect.engine.result import NoResultType, Result
from prefect.engine.results import (
    AzureResult,
    ConstantResult,
    GCSResult,
    LocalResult,
    PrefectResult,
    S3Result,
    SecretResult,
)
from prefect.engine.serializers import JSONSerializer, PickleSerializer, Serializer
from prefect.engine.state import State
from prefect.serialization.result import StateResultSchema

from .errors import (
    NoLocation,
    NoResult,
    ResultCorrupt,
    ResultMissing,
    ResultUnavailable,
    ResultUnreadable,
    UnknownResultType,
)

T = TypeVar("T")
U = TypeVar("U")

#: Results that are read at once, unless the caller says otherwise
WORKERS = 16

#: Results that one thread reads in one go, at most; handing over each by itself costs more than reading a small file
LARGEST_CHUNK = 32

#: Results that keep bytes somewhere, and leave it to a serializer what they mean
_BYTES_RESULTS = (LocalResult, S3Result, GCSResult, AzureResult, PrefectResult)

#: Serializers that they have unless they are given others
_USUAL_SERIALIZERS = (PickleSerializer, JSONSerializer)

_WITHOUT_THE_FLOW = (
    "The task's own `Result` cannot be had from its flow either; pass `result=`, if that says more about how to reach "
    "the store than the state does."
)


class _Raise:
    def __repr__(self) -> str:
        return "RAISE"

    def __reduce__(self) -> str:
        return "RAISE"


#: Says that a task run without a value is an error
RAISE = _Raise()


class _Bytes(Serializer):
    """Leaves what was stored as it is."""

    def deserialize(self, value: bytes) -> bytes:
        return value


class Stored(NamedTuple):
    """Where a task run's value is, as far as its state knows."""

    #: how to call the task run in an error
    task_run: str
    #: class of the state
    state: Type[State]
    message: Optional[str]
    #: what reads the value; None if there is none
    result: Optional[Result]
    location: Optional[str]

    @classmethod
    def from_state(cls, state: State, task_run: str) -> "Stored":
        result = state._result
        return cls(task_run, type(state), state.message, result, result.location if result else None)

    @classmethod
    def from_serialized(cls, state: Dict[str, Any], task_run: str) -> "Stored":
        """The same from a serialized state, in a tenth of the time that Prefect takes to deserialise it."""
        kept = dict(state.get("_result") or {"type": "NoResultType"})
        location = kept.pop("location", None)
        result = _result(json.dumps(kept, sort_keys=True))
        return cls(task_run, state_class(state["type"]), state.get("message"), result, location)

    def describe_state(self) -> str:
        name = self.state.__name__
        return f"state {name}: {self.message}" if self.message else f"state {name}."


@lru_cache(maxsize=64)
def _result(serialized: str) -> Result:
    # children of one mapped task differ in nothing but their location
    result: Result = StateResultSchema().load(json.loads(serialized))
    return result


def state_class(name: str) -> Type[State]:
    """The class of states that are serialized with this name."""
    found: Type[State] = getattr(prefect_states, name)
    return found


class Loader:
    """Reads values of the task runs of one task.

    Args:
        result: reads all of them, instead of what their states say.
        serializer: decodes all of them, instead of what their `Result` would.
        task_result: finds the task's own `Result` in its flow, for when a state does not say enough. It may raise
            anything.
    """

    def __init__(
        self,
        result: Optional[Result] = None,
        serializer: Optional[Serializer] = None,
        task_result: Optional[Callable[[], Optional[Result]]] = None,
    ) -> None:
        self._result = result
        self._serializer = serializer
        self._task_result = task_result
        self._own: Optional[Tuple[Optional[Result], Optional[Exception]]] = None
        self._finding = threading.Lock()
        #: a result, and what reads its bytes
        self._reader: Tuple[Optional[Result], Optional[Result]] = (None, None)

    def load(self, stored: Stored) -> Any:
        """The value.

        Raises:
            ResultUnavailable: see `errors`.
        """
        result, location = self._result or stored.result, stored.location
        if isinstance(result, (ConstantResult, SecretResult)) and not self._result:
            # the value of the one and the task of the other are in the flow only
            result = self._own_result(stored, "its value is part of the flow")
        if location is None and isinstance(result, (ConstantResult, SecretResult)):
            # the state has none; that of a SecretResult is the name of the secret
            location = result.location
        elif location is None:
            location = self._result.location if self._result else None
            if location is None:
                raise _missing(stored)
        assert result is not None
        if type(result) is Result:
            # what Prefect makes of a class that it does not know, in serialization/result.py CustomResultSchema
            result = self._own_result(stored, "it was kept by a `Result` class that is not one of Prefect's")
        # exactly these: a class made from one of them may read in its own way
        if type(result) in _BYTES_RESULTS:
            return self._decode(stored, result, self._read_bytes(stored, result, location))
        if self._serializer:
            result = copy(result)
            result.serializer = self._serializer
        return _read(stored, result, location)

    def _read_bytes(self, stored: Stored, result: Result, location: str) -> Any:
        if isinstance(result, PrefectResult):
            # which is its own store
            return location.encode()
        try:
            return _read(stored, self._as_bytes(result), location)
        except ResultUnreadable as error:
            if self._result or isinstance(result, LocalResult):
                raise
            # the state leaves out how to reach the store: credentials, region, endpoint
            try:
                own = self._own_result(stored, "see above")
            except UnknownResultType:
                raise type(error)(f"{error}. {_WITHOUT_THE_FLOW}") from error.__cause__
            if own is result or type(own) is not type(result):
                raise
            reader = _as_bytes(own)
            value = _read(stored, reader, location)
            self._reader = (result, reader)
            return value

    def _as_bytes(self, result: Result) -> Result:
        # one for many reads, because it holds the connection to the store
        of, reader = self._reader
        if reader is None or of is not result:
            reader = _as_bytes(result)
            self._reader = (result, reader)
        return reader

    def _decode(self, stored: Stored, result: Result, value: bytes) -> Any:
        serializer = self._serializer or result.serializer
        # the state does not name the task's serializer: Prefect's serialization/result.py leaves it out
        is_known = self._serializer or self._result or type(serializer) not in _USUAL_SERIALIZERS
        is_pickled = not is_known and type(serializer) is PickleSerializer
        try:
            return _unpickle(value) if is_pickled else serializer.deserialize(value)
        except Exception as error:
            if is_known:
                raise _corrupt(stored, serializer, error) from error
            own = self._own_result(
                stored, f"it cannot be decoded with {type(serializer).__name__} ({error})"
            ).serializer
            if own == serializer:
                raise _corrupt(stored, serializer, error) from error
            try:
                return own.deserialize(value)
            except Exception as own_error:
                raise _corrupt(stored, own, own_error) from own_error

    def _find_own(self) -> Tuple[Optional[Result], Optional[Exception]]:
        try:
            return (self._task_result() if self._task_result else None), None
        except Exception as error:
            return None, error

    def _own_result(self, stored: Stored, why: str) -> Result:
        with self._finding:
            if self._own is None:
                self._own = self._find_own()
            found, error = self._own
        if error:
            raise UnknownResultType(
                f"The result of {stored.task_run} cannot be loaded: {why}, and the flow could not be loaded from its "
                f"storage to see how the task keeps results: {error!r}. Pass `result=` (the task's `Result`) or "
                "`serializer=` to say so."
            ) from error
        if found is None:
            raise UnknownResultType(
                f"The result of {stored.task_run} cannot be loaded: {why}, and neither the task nor its flow has a "
                "`Result`. Pass `result=` or `serializer=`."
            )
        return found


def _as_bytes(result: Result) -> Result:
    """The same, but leaves bytes as they are."""
    # not `copy`, which leaves out the connection to the store
    reader: Result = object.__new__(type(result))
    reader.__dict__.update(result.__dict__, serializer=_Bytes())
    return reader


def _unpickle(value: bytes) -> Any:
    # PickleSerializer takes whatever is no pickle for one in base64, as which old versions of Prefect wrote them; some
    # texts in JSON then turn out to be a number or None. Those pickles begin with 0x80 and a small number.
    return PickleSerializer().deserialize(value) if value.startswith(b"gA") else pickle.loads(value)


def _is_missing(error: Exception) -> bool:
    """Whether a store says that nothing is there, in the words of files, of S3, of GCS or of Azure."""
    response = getattr(error, "response", None)
    s3 = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    gcs, azure = getattr(error, "code", None), getattr(error, "status_code", None)
    return isinstance(error, FileNotFoundError) or s3 in ("404", "NoSuchKey") or 404 in (gcs, azure)


def _read(stored: Stored, result: Result, location: Optional[str]) -> Any:
    try:
        # a ConstantResult needs no location
        return result.read(location or "").value
    except Exception as error:
        kind = ResultMissing if _is_missing(error) else ResultUnreadable
        raise kind(
            f"The result of {stored.task_run} cannot be read by {type(result).__name__} from {location!r}: {error!r}"
        ) from error


def _missing(stored: Stored) -> ResultUnavailable:
    has_result = stored.result is not None and not isinstance(stored.result, NoResultType)
    if issubclass(stored.state, prefect_states.Skipped) or not issubclass(stored.state, prefect_states.Success):
        # a task that raised has its exception for a result, which is not kept anywhere
        kind = NoLocation if has_result else NoResult
        return kind(f"There is no result of {stored.task_run}: it ended in {stored.describe_state()}")
    if not has_result:
        return NoResult(
            f"There is no result of {stored.task_run}: the task has no `Result` type. Set `result=` on the task or its "
            "flow, so that return values are kept."
        )
    return NoLocation(
        f"The result of {stored.task_run} has no `location`, so it cannot be loaded. Either the task returned None, "
        "which Prefect keeps nowhere, or `checkpoint` was off. (`result=` has to be set on the task or its flow.)"
    )


def _corrupt(stored: Stored, serializer: Serializer, error: Exception) -> ResultCorrupt:
    return ResultCorrupt(
        f"The result of {stored.task_run}, kept by {type(stored.result).__name__} at {stored.location!r}, cannot be "
        f"decoded with {type(serializer).__name__}: {error!r}. Is it damaged, or was it written with another "
        "serializer? Then pass that as `serializer=`."
    )


def _until_failure(values: Iterable[T]) -> Tuple[List[T], Optional[Exception]]:
    got: List[T] = []
    try:
        for value in values:
            got.append(value)
    except Exception as error:
        return got, error
    return got, None


def threads_as_this(number: int, name: str) -> ThreadPoolExecutor:
    """Threads with the context of this one, where Prefect keeps secrets, and which API a Dask worker is to speak to."""
    context = dict(prefect.context)
    return ThreadPoolExecutor(number, name, initializer=prefect.context.update, initargs=(context,))


def in_order(work: Callable[[T], U], items: Iterable[T], workers: int, expected: int = 0) -> Iterator[U]:
    """``map(work, items)`` on several threads: values in order, the first failure raised in its place.

    Args:
        work: what to do with each item.
        items: taken as they are needed, so there may be more than fit into memory.
        workers: how many threads.
        expected: about how many items there are, if that is known.
    """
    size = max(1, min(LARGEST_CHUNK, expected // (workers * 8)))
    iterator = iter(items)

    def run(chunk: List[T], then: Optional[Exception]) -> Tuple[List[U], Optional[Exception]]:
        values, failure = _until_failure(map(work, chunk))
        return values, failure or then

    with threads_as_this(workers, "result") as threads:
        running: Deque[Future[Tuple[List[U], Optional[Exception]]]] = deque()
        is_more = True
        try:
            while True:
                while is_more and len(running) < 2 * workers:
                    chunk, failure = _until_failure(islice(iterator, size))
                    is_more = len(chunk) == size
                    running.append(threads.submit(copy_context().run, run, chunk, failure))
                if not running:
                    return
                values, failure = running.popleft().result()
                yield from values
                if failure:
                    raise failure
        finally:
            for future in running:
                future.cancel()
