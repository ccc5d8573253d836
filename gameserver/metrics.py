"""Metrics of the tick loop and of what clients send and are sent; those of sessions are in `sessions/metrics.py`."""

from prometheus_client import Counter, Histogram

_TICK_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.0167, 0.025, 0.0333, 0.05, 0.1, 0.25, 1.0)
_TRIP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.045, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)

TICK_LATENESS_SECONDS = Histogram(
    "warmfleet_tick_lateness_seconds", "How late ticks begin after they are due.", buckets=_TICK_BUCKETS
)
TICK_DURATION_SECONDS = Histogram(
    "warmfleet_tick_duration_seconds", "How long ticks take: inputs, step, snapshots.", buckets=_TICK_BUCKETS
)
TICKS_OVER_BUDGET = Counter(
    "warmfleet_ticks_over_budget_total", "Ticks that took longer than the time from one tick to the next."
)
TICKS_DROPPED = Counter("warmfleet_ticks_dropped_total", "Ticks given up because a room was too far behind.")
INPUTS_DROPPED = Counter("warmfleet_inputs_dropped_total", "Inputs that were repeated, late or too many.")
SNAPSHOTS_SENT = Counter("warmfleet_snapshots_sent_total", "Snapshots given to clients' connections.")
SNAPSHOTS_SENT_BYTES = Counter("warmfleet_snapshots_sent_bytes_total", "Bytes of the snapshots that were sent.")
SNAPSHOT_LARGEST_BYTES = Histogram(
    "warmfleet_snapshot_largest_bytes",
    "The largest snapshot that a tick of a room sent to one of its clients.",
    buckets=(32, 64, 128, 256, 512, 1024, 1200, 2048, 4096, 8192, 16384, 65536),
)
SNAPSHOTS_SKIPPED = Counter("warmfleet_snapshots_skipped_total", "Snapshots not sent to clients that were behind.")
GAMES_FAILED = Counter("warmfleet_games_failed_total", "Rooms ended because their game raised or returned nonsense.")
CLIENT_RTT_SECONDS = Histogram(
    "warmfleet_client_rtt_seconds",
    "From a snapshot to its acknowledgement, once a second of each client: the round trip, and up to one of the client's input intervals.",
    buckets=_TRIP_BUCKETS,
)
CLIENT_JITTER_SECONDS = Histogram(
    "warmfleet_client_jitter_seconds",
    "How much a client's round trip differs from the one a second before.",
    buckets=_TRIP_BUCKETS,
)
DATAGRAMS_RECEIVED = Counter("warmfleet_datagrams_received_total", "Datagrams of seated UDP clients that were taken.")
DATAGRAMS_LOST = Counter(
    "warmfleet_datagrams_lost_total",
    "Datagrams of UDP clients that never came, by gaps in their numbers; counted 256 datagrams later.",
)
DATAGRAMS_IGNORED = Counter(
    "warmfleet_datagrams_ignored_total", "Datagrams that led to nothing: forged, repeated, malformed, from strangers."
)
DATAGRAMS_UNSENT = Counter(
    "warmfleet_datagrams_unsent_total",
    "Datagrams that the kernel did not take: its buffer was full, or there was no way.",
)
ROOMS_ENDED = Counter(
    "warmfleet_rooms_ended_total",
    "Rooms that ended: finished, failed (the game raised), moved (the match goes on elsewhere), cut_short (the server went).",
    ["outcome"],
)

for _outcome in ("finished", "failed", "moved", "cut_short"):
    ROOMS_ENDED.labels(_outcome)
