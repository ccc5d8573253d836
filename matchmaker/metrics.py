"""What the matchmaker counts."""

from prometheus_client import Counter, Gauge, Histogram

MATCHING_SECONDS = Histogram(
    "warmfleet_matching_cycle_seconds",
    "How long one cycle over a queue's waiting tickets took, as its director waited for it.",
    ["queue"],
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
)
MATCHING_POOL = Gauge("warmfleet_matching_pool_tickets", "Tickets that waited at the last cycle.", ["queue"])
MATCHING_PROPOSALS = Counter("warmfleet_matching_proposals", "Matches proposed, committed or not.", ["queue"])
MATCHING_QUALITY = Histogram(
    "warmfleet_matching_quality",
    "Quality of the proposed matches, from 0 to 1 (1: every measured rule at its best).",
    ["queue"],
    buckets=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
)
MATCHING_FAILURES = Counter(
    "warmfleet_matching_failures", "Cycles without a result: the matching process died, or took too long.", ["queue"]
)
