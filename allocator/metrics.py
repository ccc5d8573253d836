"""Metrics of the allocator."""

from prometheus_client import Counter

SESSIONS_MOVED = Counter(
    "warmfleet_sessions_moved_total", "Sessions given another server, by what made them leave.", ["why"]
)
