"""
What matches are worth: mean wait against mean rating spread, on a stream of arrivals.

5v5 by rating alone, at 20, 100 and 1,000 tickets/s, of lone players and of parties of 1 to 5; a cycle every 250 ms. Ours is the core with a strict
tolerance, one point for each tolerance. The front is drawn by first-fit-decreasing (large parties first, each into the first match within the same
tolerance) and by sort-and-chunk (every so many seconds everybody who waits is sorted by rating and cut into matches): of all their points those that no
other beats in both, joined by straight lines. Spread is the mean over matches of the strongest minus the weakest ticket; wait is the mean over tickets,
those who still wait at the end among them with their wait so far. A point of ours is on or above the front when the front at the same wait has no smaller
spread; left of all of the front, always. The full form draws docs/matching-quality.svg.
"""

import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.report import Report
from gameserver.sessions.model import FleetName
from matchmaker.generator import Population, arrivals
from matchmaker.matching.pool import Pool
from matchmaker.matching.rules import number
from matchmaker.model import Aggregate, DifferenceRule, Limit, QueueConfig, QueueName, Team, Ticket, TicketId

TICK_S = 0.25
TOLERANCES: dict[int, tuple[float, ...]] = {
    20: (25.0, 50.0, 100.0, 200.0, 400.0),
    100: (10.0, 25.0, 50.0, 100.0, 200.0),
    1000: (1.0, 2.5, 10.0, 50.0, 200.0),
}
"""By tickets/s: fast queues are compared where they differ, at small spreads."""
PERIODS_S = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Of sort-and-chunk."""
PICTURE = Path(__file__).parents[2] / "docs" / "matching-quality.svg"
QUEUE = QueueConfig(
    name=QueueName("q"),
    fleets=(FleetName("f"),),
    teams=(Team(name="red", players=5), Team(name="blue", players=5)),
    party_max=5,
)
Point = tuple[float, float]
"""Mean wait in s, mean spread."""
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


def run(stream: list[Ticket], make: Maker) -> Point:
    """A stream by a baseline; the first and last fifth of the time are not counted."""
    waiting: dict[str, Row] = {}
    tally = Tally()
    for now_s, fresh, counted in ticks(stream):
        waiting.update((ticket.id, (rating(ticket), ticket)) for ticket in fresh)
        for match in make(list(waiting.values()), now_s):
            for _, ticket in match:
                del waiting[ticket.id]
            tally.match(match, now_s, counted)
    return tally.point([ticket for _, ticket in waiting.values()], now_s)


def ours(stream: list[Ticket], tolerance: float) -> Point:
    """The same by the core."""
    rule = DifferenceRule(attribute="rating", limit=Limit(value=tolerance))
    pool = Pool(replace(QUEUE, rules=(rule,)))
    gone: list[TicketId] = []
    tally = Tally()
    for now_s, fresh, counted in ticks(stream):
        pool.change(fresh, gone)
        proposals = pool.cycle(now_s)
        gone = [ticket.id for proposal in proposals for ticket in proposal.tickets]
        for proposal in proposals:
            tally.match([(rating(ticket), ticket) for ticket in proposal.tickets], now_s, counted)
    return tally.point([ticket for ticket in pool.waiting() if ticket.id not in set(gone)], now_s)


class Tally:
    """Waits and spreads of what is counted."""

    def __init__(self) -> None:
        self._waits: list[float] = []
        self._spreads: list[float] = []

    def match(self, rows: list[Row], now_s: float, counted: bool) -> None:
        """Note one."""
        if counted:
            self._waits += [now_s - ticket.created_at_s for _, ticket in rows]
            self._spreads.append(max(value for value, _ in rows) - min(value for value, _ in rows))

    def point(self, left: list[Ticket], end_s: float) -> Point:
        """The means; `left`: those who still wait at the end, of whom those count who came while it was counted."""
        waits = [end_s - ticket.created_at_s for ticket in left if 0.2 < ticket.created_at_s / end_s < 0.8]
        return statistics.fmean(self._waits + waits), statistics.fmean(self._spreads)


def front_of(points: list[Point]) -> list[Point]:
    """Those that no other beats in both, by wait."""
    front: list[Point] = []
    for wait_s, spread in sorted(points):
        if not front or spread < front[-1][1]:
            front.append((wait_s, spread))
    return front


def is_on_or_above(point: Point, front: list[Point]) -> bool:
    """Whether the front has no smaller spread at the same wait: straight between its points, and level after the last."""
    waits, spreads = zip(*front, strict=True)
    return bool(point[0] < waits[0] or point[1] <= np.interp(point[0], waits, spreads))


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
    drawn: dict[str, dict[str, list[Point]]] = {}
    for per_s, tolerances in TOLERANCES.items():
        duration_s = {20: 300, 100: 120, 1000: 20}[per_s] / (3 if quick else 1)
        for kind, weights in (("solo", (1.0,)), ("parties", Population().party_weights)):
            people = Population(tickets_per_s=per_s, party_weights=weights)
            stream = list(arrivals(people, duration_s=duration_s, seed=per_s))
            some = tolerances[1:4:2] if quick else tolerances
            curves = {
                "ours": [ours(stream, tolerance) for tolerance in some],
                "first-fit-decreasing": [run(stream, first_fit_decreasing(tolerance)) for tolerance in some],
                "sort-and-chunk": [run(stream, sort_and_chunk(every_s)) for every_s in PERIODS_S[:: 3 if quick else 1]],
            }
            drawn[f"{per_s} tickets/s, {kind}"] = curves
            front = front_of(curves["first-fit-decreasing"] + curves["sort-and-chunk"])
            for tolerance, point, theirs in zip(some, curves["ours"], curves["first-fit-decreasing"], strict=True):
                where = f"{per_s}/s, {kind}, tolerance {tolerance:g}"
                both = "{:.2f} s, {:.1f} / {:.2f} s, {:.1f}".format(*point, *theirs)
                report.add(f"{where}: wait, spread, ours / first-fit-decreasing", both, "")
                met = float(is_on_or_above(point, front))
                report.add(f"{where}: on or above the front (1: yes)", met, "", goal=1, at_least=True)
    if not quick:
        draw(drawn)


def draw(panels: dict[str, dict[str, list[Point]]]) -> None:
    """Draw docs/matching-quality.svg: a panel for each stream."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture: pip install 'warmfleet[plot]'")
        return
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "warmfleet"})
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    styles = {"ours": "o-", "first-fit-decreasing": "s--", "sort-and-chunk": "^:"}
    axes = figure.subplots(2, 3)
    for axis, (title, curves) in zip(axes.T.ravel(), panels.items(), strict=True):
        for name, points in curves.items():
            axis.plot(*zip(*sorted(points), strict=True), styles[name], label=name, markersize=4)
        axis.set(title=title, xscale="log", yscale="log", xlabel="mean wait, s", ylabel="mean rating spread")
        axis.grid(alpha=0.3)
    axes[0, 0].legend()
    figure.suptitle("5 against 5: towards the lower left is better")
    figure.savefig(PICTURE, metadata={"Date": None})
