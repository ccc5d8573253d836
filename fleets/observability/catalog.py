"""
Every metric there is, read from the modules that define them: for docs/metrics.md, and for whoever checks a query.

Owns the list of those modules. A module of metrics defines nothing else, so importing it costs next to nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module

from prometheus_client.metrics import MetricWrapperBase

MODULES: Mapping[str, str] = {
    "gameserver.metrics": "Game servers: ticks and clients",
    "gameserver.sessions.metrics": "Game servers: sessions",
    "gameserver.sessions.store_metrics": "The session store, as each service meets it",
    "matchmaker.metrics": "Matchmaker and directors",
    "allocator.metrics": "Allocator",
    "allocator.backends.metrics": "Allocator: Agones and the Kubernetes API",
    "fleets.metrics": "Fleets and their autoscaler",
    "fleets.admission.metrics": "Admission webhook",
}
PROCESS = ("process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds")
"""Of every process, by prometheus-client, on Linux."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """One metric."""

    name: str
    """As it is written in the code, and shown: a counter ends in `_total`."""
    kind: str
    """counter, gauge or histogram."""
    told: str
    labels: tuple[str, ...]

    @property
    def series(self) -> tuple[str, ...]:
        """The names under which a query finds it."""
        return (
            tuple(f"{self.name}{end}" for end in ("_bucket", "_sum", "_count")) if self.is_histogram else (self.name,)
        )

    @property
    def is_histogram(self) -> bool:
        """Whether it is one of buckets."""
        return self.kind == "histogram"


def metrics_of(module: str) -> Iterator[Described]:
    """The metrics of one module, in the order in which they are written."""
    for value in vars(import_module(module)).values():
        if isinstance(value, MetricWrapperBase):
            (family,) = value.describe()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            yield Described(name=name, kind=family.type, told=family.documentation, labels=tuple(value._labelnames))


def catalog() -> dict[str, Described]:
    """Every metric by its name."""
    return {metric.name: metric for module in MODULES for metric in metrics_of(module)}


def series() -> dict[str, frozenset[str]]:
    """Every series that a query may name, and its labels beside those of the target (`job`, `instance`)."""
    found = {
        name: frozenset(metric.labels) | ({"le"} if name.endswith("_bucket") and metric.is_histogram else frozenset())
        for metric in catalog().values()
        for name in metric.series
    }
    return found | dict.fromkeys([*PROCESS, "up"], frozenset[str]())
