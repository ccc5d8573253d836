"""Metrics of fleets and of what their autoscaler sees and decides."""

from prometheus_client import Counter, Gauge

SERVERS = Gauge(
    "warmfleet_fleet_servers", "Servers of a fleet by Agones' state; `other`: on their way.", ["fleet", "state"]
)
STARTS_FAILED = Gauge(
    "warmfleet_fleet_starts_failed", "Starts of servers that failed in a row, on a laptop.", ["fleet"]
)
WANTED = Gauge(
    "warmfleet_autoscaler_wanted_servers", "Servers of all kinds that the autoscaler answers with.", ["fleet"]
)
BUFFER = Gauge("warmfleet_autoscaler_buffer_servers", "Of those, how many are to be Ready.", ["fleet"])
ARRIVALS = Gauge(
    "warmfleet_autoscaler_expected_matches",
    "Matches that are expected until a server ordered at the next look is Ready.",
    ["fleet"],
)
WARM_ROOMS = Gauge(
    "warmfleet_autoscaler_warm_rooms", "Rooms that keep cold starts as rare as the fleet declares.", ["fleet"]
)
FREE_ROOMS = Gauge("warmfleet_autoscaler_free_rooms", "Rooms that can be claimed at once, as it sees them.", ["fleet"])
WAITING = Gauge("warmfleet_autoscaler_waiting_matches", "Matches that wait for a room, as it sees them.", ["fleet"])
LIVE = Gauge("warmfleet_autoscaler_live_sessions", "Sessions under way, as it sees them.", ["fleet"])
LEAD_SECONDS = Gauge(
    "warmfleet_autoscaler_lead_seconds", "What a new server takes from its order to Ready, as reckoned.", ["fleet"]
)
DECISIONS = Counter(
    "warmfleet_autoscaler_decisions_total",
    "Decisions by how they were made: seen, blind (the demand was not known), idle (none is kept).",
    ["fleet", "how"],
)
LIMITED = Gauge("warmfleet_autoscaler_limited", "1 while the fleet's max keeps it from what is wanted.", ["fleet"])


def show_servers(fleet: str, *, ready: int, allocated: int, reserved: int, replicas: int) -> None:
    """Set `SERVERS` of a fleet."""
    other = max(0, replicas - ready - allocated - reserved)
    counts = {"Ready": ready, "Allocated": allocated, "Reserved": reserved, "other": other}
    for state, number in counts.items():
        SERVERS.labels(fleet, state).set(number)
