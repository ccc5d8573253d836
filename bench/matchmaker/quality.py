"""
What matches are worth: mean wait against mean rating spread, on a stream of arrivals.

5v5 by rating alone, at 20, 100 and 1,000 tickets/s, of lone players and of parties of 1 to 5; a cycle every 250 ms. Ours is the core with a strict
tolerance, one point for each tolerance. The front is drawn by first-fit-decreasing (large parties first, each into the first match within the same
tolerance) and by sort-and-chunk (every so many seconds everybody who waits is sorted by rating and cut into matches). Spread is the mean over matches
of the strongest minus the weakest ticket; wait is the mean over matched tickets. A point is on or above the front when no point of a baseline has both a
shorter wait and a smaller spread.
"""

import random
import statistics
from collections.abc import Callable
from dataclasses import replace

from bench.report import Report
from gameserver.sessions.model import FleetName
from matchmaker.generator import Population, arrivals
from matchmaker.matching.pool import Pool
from matchmaker.matching.rules import number
from matchmaker.model import Aggregate, DifferenceRule, Limit, QueueConfig, QueueName, Team, Ticket

TICK_S = 0.25
TOLERANCES = (25.0, 50.0, 100.0, 200.0)
QUEUE = QueueConfig(
    name=QueueName("q"),
    fleets=(FleetName("f"),),
    teams=(Team(name="red", players=5), Team(name="blue", players=5)),
    party_max=5,
)
Row = tuple[float, Ticket]
"""Rating, ticket."""
Maker = Callable[[list[Row], float], list[list[Row]]]


def rating(ticket: Ticket) -> float:
    """A party's."""
    value = number(ticket, "rating", Aggregate.MEAN)
    assert value is not None
    return value


def fill(rows: list[Row], tolerance: float) -> list[list[Row]]:
    """First fit: each ticket into the first open match that has room in a team and stays within the tolerance."""
    open_matches: list[tuple[list[Row], list[int]]] = []
    full = []
    for row in rows:
        size = len(row[1].players)
        for match, room in open_matches:
            values = [value for value, _ in match]
            if max(*values, row[0]) - min(*values, row[0]) > tolerance:
                continue
            team = min((t for t in (0, 1) if room[t] >= size), key=lambda t: room[t], default=None)
            if team is not None:
                match.append(row)
                room[team] -= size
                if room == [0, 0]:
                    full.append(match)
                    open_matches.remove((match, room))
                break
        else:
            open_matches.append(([row], [5 - size, 5]))
    return full


def first_fit_decreasing(tolerance: float) -> Maker:
    """Every tick."""
    return lambda rows, now_s: fill(
        sorted(rows, key=lambda row: (-len(row[1].players), row[1].created_at_s)), tolerance
    )


def sort_and_chunk(every_s: float) -> Maker:
    """Every so many seconds."""

    def make(rows: list[Row], now_s: float) -> list[list[Row]]:
        if now_s % every_s >= TICK_S:
            return []
        matches, chunk, room = [], [], [5, 5]
        for row in sorted(rows, key=lambda row: row[0]):
            size = len(row[1].players)
            team = min((t for t in (0, 1) if room[t] >= size), key=lambda t: room[t], default=None)
            if team is None:
                continue
            chunk.append(row)
            room[team] -= size
            if room == [0, 0]:
                matches.append(chunk)
                chunk, room = [], [5, 5]
        return matches

    return make


def run(stream: list[Ticket], make: Maker) -> tuple[float, float]:
    """(mean wait in s, mean spread) of a stream by a baseline; the first and last fifth of the time are not counted."""
    waiting: dict[str, Row] = {}
    waits, spreads = [], []
    for now_s, fresh, counted in ticks(stream):
        waiting.update((ticket.id, (rating(ticket), ticket)) for ticket in fresh)
        for match in make(list(waiting.values()), now_s):
            for _, ticket in match:
                del waiting[ticket.id]
            if counted:
                waits += [now_s - ticket.created_at_s for _, ticket in match]
                spreads.append(max(v for v, _ in match) - min(v for v, _ in match))
    return statistics.fmean(waits), statistics.fmean(spreads)


def ours(stream: list[Ticket], tolerance: float) -> tuple[float, float]:
    """The same by the core."""
    rule = DifferenceRule(attribute="rating", limit=Limit(value=tolerance))
    pool = Pool(replace(QUEUE, rules=(rule,)))
    gone: list[str] = []
    waits, spreads = [], []
    for now_s, fresh, counted in ticks(stream):
        pool.change(fresh, gone)  # type: ignore[arg-type]
        proposals = pool.cycle(now_s)
        gone = [ticket.id for proposal in proposals for ticket in proposal.tickets]
        for proposal in proposals if counted else []:
            values = [rating(ticket) for ticket in proposal.tickets]
            waits += [now_s - ticket.created_at_s for ticket in proposal.tickets]
            spreads.append(max(values) - min(values))
    return statistics.fmean(waits), statistics.fmean(spreads)


def ticks(stream: list[Ticket]) -> list[tuple[float, list[Ticket], bool]]:
    """(time, what came since the last tick, whether it counts)."""
    end_s = stream[-1].created_at_s
    count = int(end_s / TICK_S) + 1
    buckets: list[list[Ticket]] = [[] for _ in range(count + 1)]
    for ticket in stream:
        buckets[int(ticket.created_at_s / TICK_S) + 1].append(ticket)
    return [(i * TICK_S, bucket, 0.2 < i / count < 0.8) for i, bucket in enumerate(buckets)]


def measure(report: Report, quick: bool) -> None:
    """Measure it."""
    random.seed(0)
    for per_s in (20, 100, 1000):
        duration_s = {20: 300, 100: 120, 1000: 20}[per_s] / (3 if quick else 1)
        for kind, weights in (("solo", (1.0,)), ("parties", Population().party_weights)):
            people = Population(tickets_per_s=per_s, party_weights=weights)
            stream = list(arrivals(people, duration_s=duration_s, seed=per_s))
            tolerances = TOLERANCES[1:3] if quick else TOLERANCES
            front = [run(stream, first_fit_decreasing(tolerance)) for tolerance in tolerances]
            front += [run(stream, sort_and_chunk(every_s)) for every_s in ((2.0,) if quick else (1.0, 2.0, 5.0, 10.0))]
            for index, tolerance in enumerate(tolerances):
                wait_s, spread = ours(stream, tolerance)
                beaten = any(w < wait_s and s < spread for w, s in front)
                where = f"{per_s}/s, {kind}, tolerance {tolerance:g}"
                report.add(f"{where}: wait / spread, ours", f"{wait_s:.2f} / {spread:.1f}", "s / rating")
                base = "{:.2f} / {:.1f}".format(*front[index])
                report.add(f"{where}: wait / spread, first-fit-decreasing", base, "s / rating")
                report.add(f"{where}: on or above the front (1: yes)", float(not beaten), "", goal=1, at_least=True)
