"""Metrics of the tick loop and of what clients send and are sent; those of sessions are in `sessions/metrics.py`."""

from prometheus_client import Counter, Histogram

_TICK_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.0167, 0.025, 0.0333, 0.05, 0.1, 0.25, 1.0)

TICK_LATENESS_SECONDS = Histogram(
    "warmfleet_tick_lateness_seconds", "How late ticks begin after they are due.", buckets=_TICK_BUCKETS
)
TICK_DURATION_SECONDS = Histogram(
    "warmfleet_tick_duration_seconds", "How long ticks take: inputs, step, snapshots.", buckets=_TICK_BUCKETS
)
TICKS_DROPPED = Counter("warmfleet_ticks_dropped_total", "Ticks given up because a room was too far behind.")
INPUTS_DROPPED = Counter("warmfleet_inputs_dropped_total", "Inputs that were repeated, late or too many.")
SNAPSHOTS_SKIPPED = Counter("warmfleet_snapshots_skipped_total", "Snapshots not sent to clients that were behind.")
GAMES_FAILED = Counter("warmfleet_games_failed_total", "Rooms ended because their game raised or returned nonsense.")
