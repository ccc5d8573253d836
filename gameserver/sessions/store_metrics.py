"""Metrics of the session store, as a service meets it; apart, since a process that does not watch the store must not tell that it is down."""

from prometheus_client import Counter, Gauge, Histogram

STORE_PING_SECONDS = Histogram(
    "warmfleet_store_ping_seconds",
    "Time that the session store takes to answer a PING, as a service of ours meets it, every 2 s.",
    buckets=(0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0),
)
STORE_UP = Gauge("warmfleet_store_up", "1 while the session store answers this service.")
STORE_ERRORS = Counter("warmfleet_store_errors_total", "Looks at the session store that failed, by error.", ["error"])
STORE_MEMORY_BYTES = Gauge("warmfleet_store_memory_bytes", "Memory that the session store uses (used_memory).")
STORE_MEMORY_MAX_BYTES = Gauge("warmfleet_store_memory_max_bytes", "Memory that it may use (maxmemory); 0: no limit.")
STORE_CLIENTS = Gauge("warmfleet_store_clients", "Connections to the session store, everybody's.")
STORE_REPLICAS = Gauge("warmfleet_store_replicas", "Replicas connected to the session store.")
STORE_EVICTED_KEYS = Gauge(
    "warmfleet_store_evicted_keys", "Keys that it threw away for want of memory since its start."
)
STORE_COMMANDS_PER_SECOND = Gauge("warmfleet_store_commands_per_second", "Commands that it handles, everybody's.")
