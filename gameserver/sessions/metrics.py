"""Metrics of sessions: checkpoints, moves and the word with the store."""

from prometheus_client import Counter, Gauge, Histogram

CHECKPOINTS = Counter("warmfleet_checkpoints_total", "Checkpoints of rooms by what became of them.", ["outcome"])
CHECKPOINT_BYTES = Counter("warmfleet_checkpoint_bytes_total", "Bytes of checkpoints sent to the store.")
CHECKPOINT_SAVE_SECONDS = Histogram(
    "warmfleet_checkpoint_save_seconds",
    "Time that a game's save() holds the tick loop up.",
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5),
)
HEARTBEATS = Counter("warmfleet_heartbeats_total", "Words of this server to the session store.", ["outcome"])
ROOMS_FENCED = Counter("warmfleet_rooms_fenced_total", "Rooms stopped because their session had moved elsewhere.")
ROOMS_RESTORED = Counter("warmfleet_rooms_restored_total", "Rooms opened from a checkpoint.")
HANDED_OVER = Counter(
    "warmfleet_sessions_handed_over_total", "Live sessions given to another server, by outcome.", ["outcome"]
)
STALLS = Counter(
    "warmfleet_stalls_total", "Times that this process stood still and asked whether its rooms are still its own."
)
ROOMS = Gauge("warmfleet_rooms", "Rooms open in this process.")
PLAYERS = Gauge("warmfleet_players_connected", "Players connected to rooms of this process.")
HEARTBEAT_SECONDS = Histogram(
    "warmfleet_heartbeat_seconds",
    "Time of this server's word to the session store and its answer.",
    buckets=(0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0),
)

for _outcome in ("written", "unchanged", "game_failed", "store_away"):
    CHECKPOINTS.labels(_outcome)
for _outcome in ("done", "not_possible"):
    HANDED_OVER.labels(_outcome)
