"""Metrics of the allocator."""

from prometheus_client import Counter, Gauge, Histogram

SESSIONS_MOVED = Counter(
    "warmfleet_sessions_moved_total", "Sessions given another server, by what made them leave.", ["why"]
)
for _why in ("lost", "drained"):
    SESSIONS_MOVED.labels(_why)
ALLOCATIONS = Counter(
    "warmfleet_allocations_total", "Matches given a server, by how warm it was.", ["fleet", "temperature"]
)
ALLOCATION_SECONDS = Histogram(
    "warmfleet_allocation_seconds",
    "Time from a request to its server, waiting included.",
    ["temperature"],
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 2.5, 5.0, 10.0, 30.0),
)
UNALLOCATED = Counter("warmfleet_unallocated_total", "Requests that got no server, by why.", ["cause"])
WAITING = Gauge("warmfleet_allocations_waiting", "Requests of this process that wait for a server.")
SEATED = Counter(
    "warmfleet_seated_parties_total", "Parties that asked for seats in running matches.", ["fleet", "outcome"]
)
SHELF_ROOMS = Gauge("warmfleet_shelf_rooms", "Rooms of the shelf: claimable, wanted, in use.", ["fleet", "what"])
SHELF_SERVERS = Gauge("warmfleet_shelf_servers", "Servers on the shelf.", ["fleet"])
SHELF_WAITERS = Gauge("warmfleet_shelf_waiters", "Requests of all processes that wait for a room.", ["fleet"])
FOREIGN_SERVERS = Gauge(
    "warmfleet_foreign_servers", "Servers of the fleet that somebody else has allocated.", ["fleet"]
)
KEEPER_LEADS = Gauge("warmfleet_keeper_leads", "1 while this process keeps the fleet's shelf.", ["fleet"])
