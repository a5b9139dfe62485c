"""What can be counted about the backend, in the text format of Prometheus."""

from collections import Counter, defaultdict
from typing import Any, DefaultDict, Dict, Iterable, List, NamedTuple, Sequence, Tuple

from sqlalchemy import Connection, func, select

from . import tables
from .clock import now
from .rules.states import SCHEDULED
from .services import Services

#: The media type of the format
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: Seconds; upper ends of what durations are sorted into
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metric(NamedTuple):
    """One thing that is counted, and its numbers: end of the name, labels, value."""

    name: str
    kind: str
    help: str
    samples: Sequence[Tuple[str, Dict[str, Any], float]]


def text(metrics: Iterable[Metric]) -> str:
    """The lines of some metrics."""
    lines = []
    for metric in metrics:
        lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"]
        for end, labels, value in metric.samples:
            pairs = ",".join(f'{name}="{_escaped(str(given))}"' for name, given in labels.items())
            lines.append(f"{metric.name}{end}{{{pairs}}} {value}" if pairs else f"{metric.name}{end} {value}")
    return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class Requests:
    """How many there were, how they ended, and how long they took. For one thread, that of the event loop."""

    def __init__(self) -> None:
        self._ended: Counter[Tuple[str, str]] = Counter()
        self._seconds: DefaultDict[str, float] = defaultdict(float)
        #: kind -> for each bucket, how many fell into it and not into a smaller one; the last is for all others
        self._buckets: DefaultDict[str, List[int]] = defaultdict(lambda: [0] * (len(BUCKETS) + 1))

    def note(self, kind: str, status: str, seconds: float) -> None:
        self._ended[kind, status] += 1
        self._seconds[kind] += seconds
        self._buckets[kind][next((i for i, end in enumerate(BUCKETS) if seconds <= end), len(BUCKETS))] += 1

    def metrics(self) -> List[Metric]:
        durations: List[Tuple[str, Dict[str, Any], float]] = []
        for kind, fell in self._buckets.items():
            for index, end in enumerate([*BUCKETS, "+Inf"]):
                durations.append(("_bucket", {"kind": kind, "le": end}, sum(fell[: index + 1])))
            durations += [("_sum", {"kind": kind}, self._seconds[kind]), ("_count", {"kind": kind}, sum(fell))]
        ended = [("", {"kind": kind, "status": status}, count) for (kind, status), count in self._ended.items()]
        return [
            Metric("prefect_taskrun_requests_total", "counter", "Requests to the API, by how they ended.", ended),
            Metric(
                "prefect_taskrun_request_duration_seconds",
                "histogram",
                "Seconds until requests were answered, without those for which answers were held back.",
                durations,
            ),
        ]


def of_services(services: Services) -> List[Metric]:
    """How often the services ran, and how often in vain."""

    def samples(counted: "Counter[str]") -> List[Tuple[str, Dict[str, Any], float]]:
        return [("", {"service": name}, counted[name]) for name in services.names]

    return [
        Metric("prefect_taskrun_service_runs_total", "counter", "Passes of a service.", samples(services.runs)),
        Metric(
            "prefect_taskrun_service_failures_total",
            "counter",
            "Passes of a service that failed, and so changed nothing.",
            samples(services.failures),
        ),
    ]


def of_data(connection: Connection, size: int) -> List[Metric]:
    """How many flow runs there are, and what waits.

    Args:
        connection: of the database.
        size: bytes that it has on the disk.
    """
    runs = tables.flow_run
    by_state = connection.execute(select(runs.c.state, func.count()).group_by(runs.c.state).order_by(runs.c.state))
    waiting = select(func.count()).where(runs.c.state.in_(SCHEDULED), runs.c.state_start_time <= now())
    return [
        Metric(
            "prefect_taskrun_flow_runs",
            "gauge",
            "Flow runs, by state.",
            [("", {"state": state}, count) for state, count in by_state],
        ),
        Metric(
            "prefect_taskrun_queue_length",
            "gauge",
            "Flow runs that are due and that no agent has taken yet.",
            [("", {}, connection.execute(waiting).scalar_one())],
        ),
        Metric("prefect_taskrun_database_bytes", "gauge", "Size of the database's files.", [("", {}, size)]),
    ]
