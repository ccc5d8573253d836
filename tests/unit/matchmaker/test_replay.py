"""Traces and replays: what is kept, what is disguised, what would have been."""

import math
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from gameserver.sessions.model import FleetName, PlayerId
from matchmaker.generator import Population, arrivals
from matchmaker.matching.pool import Pool
from matchmaker.model import (
    DifferenceRule,
    LatencyRule,
    Limit,
    QueueConfig,
    QueueName,
    Step,
    Team,
    Ticket,
    TicketId,
    TicketPlayer,
)
from matchmaker.recording.replay import Outcome, replay
from matchmaker.recording.trace import Arrival, Disguise, TraceError, read_trace, write_trace

DUEL = QueueConfig(
    name=QueueName("duel"),
    fleets=(FleetName("eu"), FleetName("us")),
    regions={FleetName("eu"): "eu-west", FleetName("us"): "us-east"},
    teams=(Team(name="red", players=1), Team(name="blue", players=1)),
    rules=(DifferenceRule(attribute="rating", limit=Limit(value=10, expand=(Step(after_s=5.0, limit=100),))),),
    ticket_timeout_s=20.0,
)


def solo(name: str, at_s: float, rating: float, **latencies: float) -> Ticket:
    player = TicketPlayer(id=PlayerId(name), attributes={"rating": rating}, latencies_ms=latencies)
    return Ticket(id=TicketId(f"duel.{name}"), players=(player,), created_at_s=at_s)


def test_waits_are_those_of_the_rules() -> None:
    """Two far apart wait until the limit grows; near ones go at once."""
    outcome = replay(
        DUEL, [Arrival(ticket=solo("a", 0.0, 0)), Arrival(ticket=solo("b", 1.0, 50)), Arrival(ticket=solo("c", 2.0, 4))]
    )
    assert outcome.waits_s == {1: [2.0, 0.0]}
    assert outcome.unmatched == {"cancelled": 0, "timed_out": 1, "waiting": 0}
    assert outcome.spread["rating"] == [4]
    late = replay(DUEL, [Arrival(ticket=solo("a", 0.0, 0)), Arrival(ticket=solo("b", 1.0, 50))])
    assert late.waits_s == {1: [6.0, 5.0]}


def test_players_give_up() -> None:
    """A cancelled ticket is not matched after its players have left; one that is matched before never leaves."""
    left = [Arrival(ticket=solo("a", 0.0, 0), left_after_s=3.0), Arrival(ticket=solo("b", 4.0, 0), left_after_s=9.0)]
    assert replay(DUEL, left).unmatched == {"cancelled": 2, "timed_out": 0, "waiting": 0}
    met = [Arrival(ticket=solo("a", 0.0, 0), left_after_s=5.0), Arrival(ticket=solo("b", 4.0, 0))]
    assert replay(DUEL, met).unmatched == {"cancelled": 0, "timed_out": 0, "waiting": 0}


def test_round_trips_are_those_to_the_matches_region() -> None:
    """The slowest player's, in the region that is best for it."""
    queue = replace(DUEL, rules=(*DUEL.rules, LatencyRule(limit=Limit(value=80))))
    near = [
        Arrival(ticket=solo("a", 0.0, 0, **{"eu-west": 20, "us-east": 70})),
        Arrival(ticket=solo("b", 0.0, 0, **{"eu-west": 90, "us-east": 60})),
    ]
    assert replay(queue, near).latency_ms == [70]


def test_time_that_is_skipped_changes_nothing() -> None:
    """Leaving out cycles in which nothing can happen matches as many, as soon, as looking every time (the core's choices between equals go by its cycles)."""
    population = Population(tickets_per_s=0.7, modes=("ranked",), party_weights=(1,), rating=(0.0, 60.0))
    some = [
        Arrival(ticket=t, left_after_s=4.0 if i % 7 == 0 else math.inf)
        for i, t in enumerate(arrivals(population, duration_s=300, seed=4))
    ]
    skipping, looking = replay(DUEL, some), every_cycle(DUEL, some)
    assert abs(skipping.matches - looking.matches) <= 2
    assert fmean(skipping.all_waits_s) == pytest.approx(fmean(looking.all_waits_s), rel=0.05)
    assert skipping.cycles < 1000


def every_cycle(queue: QueueConfig, some: list[Arrival]) -> Outcome:
    """The same by brute force."""
    outcome, pool, waiting, tick = Outcome(queue=queue.name), Pool(queue), {}, 0
    left = {a.ticket.id: a.ticket.created_at_s + a.left_after_s for a in some}
    rest = list(some)
    while rest or waiting:
        tick += 1
        now_s = tick * 0.25
        added = [rest.pop(0).ticket for _ in range(sum(a.ticket.created_at_s <= now_s for a in rest))]
        waiting |= {ticket.id: ticket for ticket in added}
        gone = [t for t in waiting if left[t] <= now_s]
        outcome.unmatched["cancelled"] += len(gone)
        late = [t.id for t in waiting.values() if t.id not in gone and t.created_at_s + queue.ticket_timeout_s <= now_s]
        outcome.unmatched["timed_out"] += len(late)
        for ticket in (*gone, *late):
            del waiting[ticket]
        pool.change([t for t in added if t.id in waiting], (*gone, *late))
        for match in pool.cycle(now_s):
            outcome.matches += 1
            outcome.quality.append(match.quality)
            for ticket in match.tickets:
                outcome.waits_s.setdefault(1, []).append(now_s - ticket.created_at_s)
                del waiting[ticket.id]
            pool.change((), [ticket.id for ticket in match.tickets])
    return outcome


def test_a_trace_holds_what_was_written(tmp_path: Path) -> None:
    """Tickets, waits and ends come back, in order of arrival."""
    population = Population(tickets_per_s=5)
    some = [
        Arrival(ticket=t, left_after_s=3.0 if i % 3 else math.inf, waited_s=1.5, outcome="assigned")
        for i, t in enumerate(arrivals(population, duration_s=20, seed=1))
    ]
    path = tmp_path / "trace.parquet"
    assert write_trace(path, QueueName("q"), reversed(some), begun_at_s=12.5) == len(some)
    trace = read_trace(path)
    assert trace.arrivals == tuple(some)
    assert (trace.queue, trace.begun_at_s) == ("q", 12.5)


def test_a_disguise_hides_ids_and_keeps_who_is_who() -> None:
    """The same id is the same name within a recording, and another in the next; words of chosen attributes are hidden, too."""
    player = TicketPlayer(
        id=PlayerId("alice"), attributes={"clan": "wolves", "rating": 3.0, "tags": ("a",)}, blocked=(PlayerId("bob"),)
    )
    ticket = Ticket(id=TicketId("q.1"), players=(player,), created_at_s=0.0)
    disguise = Disguise(b"salt", ["clan", "rating"])
    hidden = disguise(ticket)
    other = disguise(replace(ticket, players=(replace(player, id=PlayerId("bob"), blocked=()),)))
    assert hidden.players[0].blocked[0] == other.players[0].id
    assert disguise(ticket) == hidden != Disguise(b"other")(ticket)
    assert hidden.players[0].attributes["rating"] == 3.0
    assert hidden.players[0].attributes["tags"] == ("a",)
    for word in ("alice", "bob", "wolves", "q.1"):
        assert word not in repr(hidden)


def test_what_is_no_trace_is_said(tmp_path: Path) -> None:
    """A file of another kind is named, not a stack trace."""
    path = tmp_path / "x.parquet"
    path.write_bytes(b"hello")
    with pytest.raises(TraceError, match="is no Parquet file"):
        read_trace(path)
