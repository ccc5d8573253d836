"""
How far off the estimated wait is.

A stream of synthetic players through the matching core in simulated time; each ticket is told an estimate when it comes, as the API tells it, and the
estimate is compared with what it waited. Beside it two simpler ones: the median and the mean of the last 100 waits. The stream's first fifth is not counted.
"""

import statistics
from collections import deque
from dataclasses import replace

from bench.report import Report
from gameserver.sessions.model import FleetName
from matchmaker.generator import Population, arrivals
from matchmaker.matching.pool import Pool
from matchmaker.model import (
    DifferenceRule,
    EqualRule,
    LatencyRule,
    Limit,
    QueueConfig,
    QueueName,
    Step,
    Team,
    Ticket,
)
from matchmaker.waits import Waits

_CYCLE_S = 0.25
QUEUE = QueueConfig(
    name=QueueName("q"),
    fleets=tuple(FleetName(f"fleet-{region}") for region in Population().regions),
    regions={FleetName(f"fleet-{region}"): region for region in Population().regions},
    teams=(Team(name="red", players=5), Team(name="blue", players=5)),
    party_max=5,
    rules=(
        DifferenceRule(
            attribute="rating",
            limit=Limit(value=100, expand=(Step(after_s=10, limit=200), Step(after_s=30, limit=500))),
        ),
        LatencyRule(limit=Limit(value=60, expand=(Step(after_s=20, limit=120),))),
        EqualRule(attribute="mode"),
    ),
)
DUEL = replace(QUEUE, teams=(Team(name="red", players=1), Team(name="blue", players=1)), party_max=1)


def stream(report: Report, queue: QueueConfig, title: str, population: Population, duration_s: float) -> None:
    """One queue at one rate."""
    pool, waits, waiting = Pool(queue), Waits(queue), dict[str, Ticket]()
    lately: deque[float] = deque(maxlen=100)
    told: dict[str, tuple[float, float]] = {}
    errors: dict[str, list[float]] = {"ours": [], "median of the last 100": [], "mean of the last 100": []}
    waited, kept, due_s = [], [], _CYCLE_S
    for ticket in arrivals(population, duration_s=duration_s, seed=1):
        while ticket.created_at_s >= due_s:
            gone = [t for proposal in pool.cycle(due_s) for t in proposal.tickets]
            pool.change((), [t.id for t in gone])
            for one in gone:
                del waiting[one.id]
                outcome = waits.matched(one.id, due_s)
                lately.append(due_s - one.created_at_s)
                if one.created_at_s < duration_s / 5 or outcome is None or outcome.told is None or one.id not in told:
                    continue
                waited.append(lately[-1])
                kept.append(lately[-1] <= outcome.told.within_s)
                for name, said in zip(errors, (outcome.told.seconds, *told.pop(one.id)), strict=True):
                    errors[name].append(abs(said - lately[-1]))
            due_s += _CYCLE_S
        waits.created(ticket.id, waits.likeness(ticket.players), ticket.created_at_s)
        if lately:
            told[ticket.id] = (statistics.median(lately), statistics.fmean(lately))
        waiting[ticket.id] = ticket
        pool.change([ticket], ())
    report.add(f"{title}: tickets counted; median wait", statistics.median(waited), f"s ({len(waited):,})")
    for name, some in errors.items():
        report.add(f"{title}: median absolute error, {name}", statistics.median(some), "s")
    report.add(f"{title}: matched within the time told for nine of ten", 100 * statistics.fmean(kept), "%")


def measure(report: Report, quick: bool) -> None:
    """Measure it."""
    solo = (1.0,)
    for queue, kind, weights in ((QUEUE, "5v5, parties", Population().party_weights), (DUEL, "1v1", solo)):
        for rate in (5, 50):
            population = Population(tickets_per_s=rate, party_weights=weights)
            stream(report, queue, f"{kind}, {rate} tickets/s", population, 120 if quick else 1200 if rate == 5 else 300)
