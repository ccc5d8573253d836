"""Metrics of the backends."""

from prometheus_client import Counter, Gauge, Histogram

CALLS = Counter(
    "warmfleet_backend_calls_total",
    "Calls to Agones or the Kubernetes API, by backend, call and outcome (ok, none, contention, refused, unavailable).",
    ["backend", "call", "outcome"],
)
SECONDS = Histogram(
    "warmfleet_backend_seconds",
    "Time of a call to Agones or the Kubernetes API with its retries.",
    ["backend", "call"],
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
WATCHES = Gauge(
    "warmfleet_backend_watches", "Watches of the Kubernetes API that are connected, by resource.", ["resource"]
)
RELISTS = Counter(
    "warmfleet_backend_relists_total",
    "Full lists of a watched resource, by reason (start, gone, resync, fresh).",
    ["resource", "why"],
)
FAILOVERS = Counter(
    "warmfleet_backend_failovers_total", "Allocation endpoints that failed and were put aside for a while."
)
CERTIFICATE_EXPIRY = Gauge(
    "warmfleet_backend_certificate_expiry_timestamp_seconds",
    "When the allocation client's certificate expires (Unix time).",
)
