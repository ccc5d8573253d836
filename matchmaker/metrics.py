"""What the matchmaker counts. Labels are queues, the regions of their fleets, and outcomes, which are few."""

from prometheus_client import Counter, Gauge, Histogram

MATCHING_SECONDS = Histogram(
    "warmfleet_matching_cycle_seconds",
    "How long one cycle over a queue's waiting tickets took, as its director waited for it.",
    ["queue"],
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
)
MATCHING_POOL = Gauge("warmfleet_matching_pool_tickets", "Tickets that waited at the last cycle.", ["queue"])
MATCHING_PROPOSALS = Counter("warmfleet_matching_proposals_total", "Matches proposed, committed or not.", ["queue"])
MATCHING_QUALITY = Histogram(
    "warmfleet_matching_quality",
    "Quality of the proposed matches, from 0 to 1 (1: every measured rule at its best).",
    ["queue"],
    buckets=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
)
MATCHING_FAILURES = Counter(
    "warmfleet_matching_failures_total",
    "Cycles without a result: the matching process died, or took too long.",
    ["queue"],
)

_WAITS_S = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300)
_PLACING_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30)
_QUICK_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)

TICKETS_CREATED = Counter(
    "warmfleet_tickets_created_total", "Requests for a ticket, by how they ended.", ["queue", "outcome"]
)
MATCHES = Counter("warmfleet_matches_total", "Matches committed, by how they ended.", ["queue", "outcome"])
TICKET_WAIT = Histogram(
    "warmfleet_ticket_wait_seconds",
    "From a ticket's creation to its match; the region is that of the queue's fleets which is nearest to its players, '' when they have not measured.",
    ["queue", "region"],
    buckets=_WAITS_S,
)
TICKETS_TIMED_OUT = Counter("warmfleet_tickets_timed_out_total", "Tickets that found no match in time.", ["queue"])
TICKET_OLDEST = Gauge(
    "warmfleet_ticket_oldest_seconds", "Age of the ticket that has waited longest, at the last cycle.", ["queue"]
)
LEADING = Gauge("warmfleet_director_leads", "1 where this process directs the queue.", ["queue"])
CYCLE = Histogram("warmfleet_director_cycle_seconds", "One look at a queue, all of it.", ["queue"], buckets=_QUICK_S)
PLACING = Histogram(
    "warmfleet_match_placing_seconds", "From a match's commit to its assignment.", ["queue"], buckets=_PLACING_S
)
TAKEOVERS = Counter(
    "warmfleet_director_takeovers_total", "Times that this process began to direct the queue.", ["queue"]
)
ADOPTED = Counter(
    "warmfleet_matches_adopted_total", "Matches that were taken up from a director that is gone.", ["queue"]
)
OFFENCES = Counter("warmfleet_player_offences_total", "Matches left by a player.", ["queue"])
BACKFILLED = Counter("warmfleet_backfilled_players_total", "Players sent to running sessions.", ["queue"])
SHADOW_WAIT = Histogram(
    "warmfleet_shadow_ticket_wait_seconds",
    "From a ticket's creation to the match that a shadow queue would have made.",
    ["queue"],
    buckets=_WAITS_S,
)
SHADOW_TICKETS = Counter(
    "warmfleet_shadow_tickets_total", "Tickets of a shadow queue, by how they ended there.", ["queue", "outcome"]
)
WATCHERS = Gauge("warmfleet_ticket_watchers", "Open event streams, WebSockets and long polls.")
WATCHERS_DROPPED = Counter("warmfleet_ticket_watchers_dropped_total", "Watchers cut off because they did not read.")
EVENTS = Counter(
    "warmfleet_events_relayed_total",
    "Events on their way to a sink: sent, retried, dead, or expired before they were sent.",
    ["sink", "outcome"],
)
BEACON_REQUESTS = Counter(
    "warmfleet_beacon_requests_total", "Requests to a beacon, by what became of them.", ["region", "outcome"]
)
RATE_LIMITED = Counter("warmfleet_requests_rate_limited_total", "Requests answered with 429.")
WAIT_ERROR = Histogram(
    "warmfleet_wait_estimate_error_seconds",
    "By how much the wait that a ticket was told at its creation differed from the one that it had.",
    ["queue"],
    buckets=_WAITS_S,
)
WAIT_ESTIMATES = Counter(
    "warmfleet_wait_estimates_total",
    "Tickets that had been told a time within which nine of ten are matched: `kept` were, `late` were not.",
    ["queue", "outcome"],
)
SESSIONS_RATED = Counter(
    "warmfleet_sessions_rated_total",
    "Sessions of queues with ratings, once they have ended: rated, without a result, or gone before they were looked at.",
    ["queue", "outcome"],
)


def begin(queue: str) -> None:
    """Let what a queue's director counts begin at 0: a rate of what has not happened yet is 0, not unknown."""
    for outcome in ("assigned", "returned"):
        MATCHES.labels(queue, outcome)
    for counter in (TAKEOVERS, ADOPTED, OFFENCES, BACKFILLED, TICKETS_TIMED_OUT, MATCHING_FAILURES, MATCHING_PROPOSALS):
        counter.labels(queue)
