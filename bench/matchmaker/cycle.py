"""
One cycle over a waiting pool, as CPU of one core.

5v5; rating (100, from 10 s on 200, from 30 s on 500), round trip to a common region (60 ms, from 20 s on 120), the same mode, parties of 1 to 5
(50, 20, 12, 8 and 10 %), 4 regions, 3 modes, ratings normal (1500 ± 300), ages even over 0 to 60 s. Timed is `form`: from the columns of a filled
pool to every match with its quality. Each match is then held against `rules.check`, one by one. The baseline is a greedy search in plain Python
written for this one queue: oldest first, nearest neighbours by rating, the same rules; it runs between ours. "Nobody fits" is the worst case: no
two tickets share a value, which no sorting shows.
"""

import gc
import math
import random
import statistics
import time
from collections import defaultdict
from dataclasses import replace

import numpy as np

from bench.report import Report
from gameserver.sessions.model import FleetName
from matchmaker.generator import Population, ticket
from matchmaker.matching.columns import Columns
from matchmaker.matching.form import Formed, form
from matchmaker.matching.rules import check
from matchmaker.model import (
    DifferenceRule,
    EqualRule,
    IntersectionRule,
    LatencyRule,
    Limit,
    QueueConfig,
    QueueName,
    Step,
    Team,
    Ticket,
    TicketPlayer,
)

NOW_S = 1000.0
PEOPLE = Population()
RATING = Limit(value=100, expand=(Step(after_s=10, limit=200), Step(after_s=30, limit=500)))
LATENCY = Limit(value=60, expand=(Step(after_s=20, limit=120),))
QUEUE = QueueConfig(
    name=QueueName("q"),
    fleets=tuple(FleetName(region) for region in PEOPLE.regions),
    regions={FleetName(region): region for region in PEOPLE.regions},
    teams=(Team(name="red", players=5), Team(name="blue", players=5)),
    rules=(
        DifferenceRule(attribute="rating", limit=RATING),
        LatencyRule(limit=LATENCY),
        EqualRule(attribute="mode"),
    ),
    party_max=5,
)


def pool(count: int) -> list[Ticket]:
    """Tickets that wait, the same ones every time."""
    rng = random.Random(count)
    return [ticket(PEOPLE, rng, i, queue="q", created_at_s=NOW_S - rng.uniform(0, 60)) for i in range(count)]


def greedy(tickets: list[Ticket]) -> list[list[Ticket]]:
    """The baseline: matches by a greedy search, one ticket after the other."""
    groups: dict[str, list[tuple[float, int, Ticket]]] = defaultdict(list)
    limits, reaches = {}, {}
    for index, one in enumerate(tickets):
        age_s = NOW_S - one.created_at_s
        rating = sum(float(p.attributes["rating"]) for p in one.players) / len(one.players)  # type: ignore[arg-type]
        groups[str(one.players[0].attributes["mode"])].append((rating, index, one))
        limits[index], limit_ms = RATING.at(age_s), LATENCY.at(age_s)
        reaches[index] = {r for r in PEOPLE.regions if all(p.latencies_ms[r] <= limit_ms for p in one.players)}
    matches = []
    for group in groups.values():
        group.sort(key=lambda row: row[:2])
        used = [False] * len(group)
        for place in sorted(range(len(group)), key=lambda i: group[i][2].created_at_s):
            found = [] if used[place] else _around(group, place, used, limits, reaches)
            if found:
                for index in found:
                    used[index] = True
                matches.append([group[index][2] for index in found])
    return matches


def _around(
    group: list[tuple[float, int, Ticket]],
    place: int,
    used: list[bool],
    limits: dict[int, float],
    reaches: dict[int, set[str]],
) -> list[int]:
    rating, number, seed = group[place]
    found, room = [place], [5 - len(seed.players), 5]
    low = high = rating
    limit, reach = limits[number], reaches[number]
    below, above, looked = place - 1, place + 1, 0
    while looked < 64:
        left = rating - group[below][0] if below >= 0 else math.inf
        right = group[above][0] - rating if above < len(group) else math.inf
        if min(left, right) > limit:
            return []
        index, below, above = (below, below - 1, above) if left <= right else (above, below, above + 1)
        if used[index]:
            continue
        looked += 1
        value, number, other = group[index]
        size = len(other.players)
        team = min((t for t in (0, 1) if room[t] >= size), key=lambda t: room[t], default=None)
        if (
            team is None
            or max(high, value) - min(low, value) > min(limit, limits[number])
            or not reach & reaches[number]
        ):
            continue
        found.append(index)
        room[team] -= size
        low, high, limit, reach = min(low, value), max(high, value), min(limit, limits[number]), reach & reaches[number]
        if room == [0, 0]:
            return found
    return []


def spread(matches: list[list[Ticket]]) -> float:
    """The matches' mean distance of the weakest from the strongest party."""
    means = [[statistics.fmean(float(p.attributes["rating"]) for p in t.players) for t in match] for match in matches]  # type: ignore[arg-type]
    return statistics.fmean(max(values) - min(values) for values in means)


def timed(columns: Columns) -> tuple[float, Formed]:
    """One cycle and its CPU, in s; every round the tickets are as new to the search."""
    columns["tries"][:] = 0
    gc.collect()
    gc.disable()
    begun_s = time.process_time()
    formed = form(columns, NOW_S)
    took_s = time.process_time() - begun_s
    gc.enable()
    return took_s, formed


def judged(formed: Formed) -> int:
    """Hold every match to every rule; how many there are."""
    seen: set[str] = set()
    for proposal in formed.proposals():
        broken = check(formed.moment.queue, proposal.teams, NOW_S)
        names = {each.id for each in proposal.tickets}
        if broken or not seen.isdisjoint(names):
            raise RuntimeError(f"a match is none: {broken or 'one of its tickets is in another'}")
        seen |= names
    return len(seen)


def measure(report: Report, quick: bool) -> None:
    """Measure it."""
    took_ms: dict[int, float] = {}
    for count, rounds in ((10_000, 9), (100_000, 5)) if quick else ((10_000, 25), (100_000, 15), (1_000_000, 5)):
        tickets = pool(count)
        columns = Columns(QUEUE)
        columns.change(tickets, ())
        times, ratios = [], []
        for turn in range(rounds):
            took_s, formed = timed(columns)
            times.append(took_s * 1e3)
            if count == 100_000 and turn < (2 if quick else 5):
                begun_s = time.process_time()
                plain = greedy(tickets)
                ratios.append((time.process_time() - begun_s) / took_s)
        took_ms[count] = statistics.median(times)
        where = f"one cycle, {count:,} tickets"
        goals = {100_000: 100.0, 1_000_000: 1200.0}
        report.add(f"{where}, CPU, median of {rounds}", took_ms[count], "ms", goal=goals.get(count))
        report.add(f"{where}, CPU, best and worst", f"{min(times):.1f} / {max(times):.1f}", "ms")
        report.add(f"{where}, in a match (each one judged)", 100 * judged(formed) / count, "%")
        if ratios:
            ours = [list(proposal.tickets) for proposal in formed.proposals()]
            report.add(f"{where}, plain Python ÷ ours, median", statistics.median(ratios), "", goal=20, at_least=True)
            report.add(f"{where}, plain Python, in a match", 100 * sum(map(len, plain)) / count, "%")
            report.add(f"{where}, rating spread, ours / plain", f"{spread(ours):.1f} / {spread(plain):.1f}", "")
    largest, smallest = max(took_ms), min(took_ms)
    growth = took_ms[largest] / took_ms[smallest]
    ideal = largest * np.log(largest) / (smallest * np.log(smallest))
    report.add(f"growth from {smallest:,} to {largest:,} ÷ n log n", growth / ideal, "", goal=1.3)
    stuck(report, 10_000, 3 if quick else 9)


def stuck(report: Report, count: int, rounds: int) -> None:
    """The pool in which nobody fits anybody."""
    config = replace(
        QUEUE, rules=(IntersectionRule(attribute="maps"),), teams=(Team(name="a", players=1), Team(name="b", players=1))
    )
    columns = Columns(config)
    columns.change(
        [
            replace(one, players=(TicketPlayer(id=one.players[0].id, attributes={"maps": (f"map{i}",)}),))
            for i, one in enumerate(pool(count))
        ],
        (),
    )
    times = [timed(columns)[0] * 1e3 for _ in range(rounds)]
    report.add(f"one cycle, {count:,} tickets, nobody fits, CPU, median of {rounds}", statistics.median(times), "ms")
