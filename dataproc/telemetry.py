"""What the program tells about itself: log lines and metrics, each set up in one place.

Log lines are structlog's, on stderr. A room takes `structlog.get_logger(__name__)` and logs a stable event name with
members, under the same names everywhere: `request_id`, `key`, `session_id`, `run_id`, `module`, `method`. `audit` is
a stream of its own: who did what to keys, tokens and sessions; no level silences it.
"""

from __future__ import annotations

import logging
import re
import sys
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import accumulate
from typing import Any, Literal, TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from structlog.typing import EventDict, Processor, WrappedLogger

LogFormat = Literal["auto", "json", "console"]

# ---------------------------------------------------------------------------------------------------------- log lines

_SECRET_NAME = re.compile(r"secret|passw|api_?key|authorization|cookie|credential|token$|database_url", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(://[^\s:/@]*):[^\s/@]+@")
REDACTED = "[redacted]"


@lru_cache(maxsize=1024)
def _names_a_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def without_passwords(text: str) -> str:
    """The text, with the passwords of its URLs blanked."""
    return _URL_PASSWORD.sub(rf"\1:{REDACTED}@", text) if "://" in text else text


def _without_secrets(value: Any) -> Any:
    if isinstance(value, str):
        return without_passwords(value)
    if isinstance(value, Mapping):
        return {name: REDACTED if _names_a_secret(str(name)) else _without_secrets(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(each) for each in value]
    return value


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Blank members whose name says that they are secret, at any depth, and passwords inside URLs."""
    for name, value in event.items():
        event[name] = REDACTED if _names_a_secret(name) else _without_secrets(value)
    return event


_SHARED: tuple[Processor, ...] = (
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,  # plain text: structlog's pictures show local variables, which hold secrets
    redact,
)


def _formatter(as_json: bool, colors: bool) -> logging.Formatter:
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )


def _unconfined(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Say of each run that nothing held it."""
    return {**event, "sandbox": "off"} if "run_id" in event else event


def configure_logging(
    log_format: LogFormat = "auto", level: str = "info", stream: TextIO | None = None, *, confined: bool = True
) -> None:
    """Send every log line of the process, those of libraries too, to `stream` (default: stderr).

    `auto` is JSON unless the stream is a terminal. confined: False has each line of a run say that it was not. Start
    uvicorn with `log_config=None`, or it undoes this.
    """
    stream = stream or sys.stderr
    as_json = log_format == "json" or (log_format == "auto" and not stream.isatty())
    least = logging.getLevelNamesMapping()[level.upper()]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(as_json, colors=stream.isatty()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(least)
    for library in ("alembic", "asyncio", "uvicorn.error", "watchfiles"):  # they tell at `info` what helps nobody
        logging.getLogger(library).setLevel(max(least, logging.WARNING))
    logging.getLogger("dataproc.audit").setLevel(logging.INFO)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            *_SHARED,
            *(() if confined else (_unconfined,)),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(least),  # a line below the level costs next to nothing
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


audit: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
    logging.getLogger("dataproc.audit"), wrapper_class=structlog.make_filtering_bound_logger(logging.INFO)
)
"""Who did what to keys, tokens and sessions: `audit.info("key_created", key=…, by=…)`."""

# ------------------------------------------------------------------------------------------------------------ metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each, which nobody reads

_FAST = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class _Times:
    """How long something took, each time: the sum in seconds, and how often in each bucket."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.sum = 0.0
        self.counts = [0] * (len(_FAST) + 1)

    def add(self, seconds: float) -> None:
        self.sum += seconds
        self.counts[bisect_left(_FAST, seconds)] += 1


class _Timed(Collector):
    """A counter by all labels and a histogram by all but the last, of the same observations.

    What every call passes through: prometheus-client's own take ten times as long. Called by one thread alone.
    """

    def __init__(self, histogram: str, about: str, labels: tuple[str, ...], counter: tuple[str, str] | None) -> None:
        """counter: its name and what it is about, with the last label; None: there is none."""
        self._histogram, self._about, self._labels, self._counter = histogram, about, labels, counter
        self._by_labels: dict[tuple[str, ...], _Times] = {} if labels else {(): _Times()}

    def add(self, labels: tuple[str, ...], seconds: float) -> None:
        """One of them took so long."""
        known = self._by_labels.get(labels)
        if known is None:
            known = self._by_labels[labels] = _Times()
        known.add(seconds)

    def collect(self) -> Iterator[Metric]:
        """For Prometheus."""
        found, few = dict(self._by_labels), len(self._labels) - (self._counter is not None)
        if self._counter is not None:
            counted = CounterMetricFamily(f"dataproc_{self._counter[0]}", self._counter[1], labels=self._labels)
            for labels, times in found.items():
                counted.add_metric(labels, sum(times.counts))
            yield counted
        timed = HistogramMetricFamily(f"dataproc_{self._histogram}", self._about, labels=self._labels[:few])
        together: dict[tuple[str, ...], list[_Times]] = {}
        for labels, times in found.items():
            together.setdefault(labels[:few], []).append(times)
        for labels, all_times in together.items():
            counts = accumulate(map(sum, zip(*(times.counts for times in all_times), strict=True)))
            buckets = list(zip((*map(floatToGoString, _FAST), "+Inf"), counts, strict=True))
            timed.add_metric(labels, buckets, sum(times.sum for times in all_times))
        yield timed


class Metrics:
    """The metrics of one process, under the names that operators see at `/metrics`.

    Labels take names out of tables only (methods, modules, outcomes, states, reasons), never an id, a path, a token or
    a text from a client: an unknown RPC method is counted as `unknown`.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"dataproc_{name}", about, labels, registry=registry)

        def histogram(name: str, about: str, *labels: str) -> Histogram:
            return Histogram(f"dataproc_{name}", about, labels, buckets=_FAST, registry=registry)

        def gauge(name: str, about: str, *labels: str) -> Gauge:
            return Gauge(f"dataproc_{name}", about, labels, registry=registry)

        self._rpc = _Timed(
            "rpc_request_duration_seconds", "Time to answer a JSON-RPC call.", ("method", "outcome"),
            ("rpc_requests", "JSON-RPC calls answered."),
        )  # fmt: skip
        self._runs = _Timed(
            "run_duration_seconds", "Time that a run had its worker.", ("module", "method", "outcome"),
            ("runs", "Runs that ended."),
        )  # fmt: skip
        self._queue = _Timed("queue_wait_seconds", "Time that a run waited for a worker.", (), None)
        for timed in (self._rpc, self._runs, self._queue):
            registry.register(timed)
        self._sessions = gauge("sessions", "Sessions by state.", "state")
        self._session_ends = counter("session_ends_total", "Sessions that ended, by reason.", "reason")
        self._workers = gauge("workers", "Worker processes by state.", "state")
        self._storage_seconds = histogram("storage_operations_seconds", "Time of storage operations.", "backend", "op")
        self._quota_rejections = counter("quota_rejections_total", "Refusals for a quota or a bound.", "kind")
        self._build = gauge("build_info", "Always 1; the labels tell what runs.", "version", "python")
        self._storage_children: dict[tuple[str, str], Histogram] = {}

    def rpc(self, method: str, outcome: str, seconds: float) -> None:
        """Count one JSON-RPC call. `outcome` is `ok` or the name of the error."""
        self._rpc.add((method, outcome), seconds)

    def run(self, module: str, method: str, outcome: str, seconds: float) -> None:
        """Count one run that ended. `outcome` is its status, `seconds` the time since it got its worker."""
        self._runs.add((module, method, outcome), seconds)

    def queue_wait(self, seconds: float) -> None:
        """A run waited so long for its worker."""
        self._queue.add((), seconds)

    def storage_operation(self, backend: str, op: str, seconds: float) -> None:
        """One operation of the store took so long; `backend` is the URL's scheme."""
        known = self._storage_children.get((backend, op))
        if known is None:
            known = self._storage_children[backend, op] = self._storage_seconds.labels(backend, op)
        known.observe(seconds)

    def sessions(self, state: str, count: int) -> None:
        """So many sessions are in that state."""
        self._sessions.labels(state).set(count)

    def session_ended(self, reason: str) -> None:
        """A session ended for that reason."""
        self._session_ends.labels(reason).inc()

    def workers(self, state: str, count: int) -> None:
        """So many workers are in that state (`busy`, `idle`)."""
        self._workers.labels(state).set(count)

    def rejected(self, kind: str) -> None:
        """A request was refused for that quota or bound."""
        self._quota_rejections.labels(kind).inc()

    def build(self, version: str) -> None:
        """Tell which version runs."""
        self._build.labels(version, ".".join(str(part) for part in sys.version_info[:3])).set(1)

    def exposition(self) -> bytes:
        """The text that Prometheus reads; its media type is `METRICS_TYPE`."""
        return generate_latest(self.registry)


METRICS_TYPE = CONTENT_TYPE_PLAIN_0_0_4
METRICS = Metrics()
"""The process's own. A process has one, as it has one stderr."""
