"""
A trace through a queue's rules, in simulated time, with the real matching core: what would have been.

Pure and deterministic. Time stands still where nothing can happen: a cycle is looked at (on a grid of `interval_s`) when a ticket arrives, leaves or times out,
when a rule changes for somebody, and after a cycle that made matches. Servers are always there, and everybody accepts.
"""

import heapq
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from matchmaker.evaluator import propose_all
from matchmaker.matching.pool import Pool
from matchmaker.matching.rules import value_of
from matchmaker.model import (
    BatchDistanceRule,
    ComparisonRule,
    DifferenceRule,
    EqualRule,
    InSetRule,
    IntersectionRule,
    Proposal,
    QueueConfig,
    Rule,
    Step,
    TeamBalanceRule,
    Ticket,
    TicketId,
)
from matchmaker.recording.trace import Arrival

_Times = npt.NDArray[np.float64]


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of the tickets."""

    queue: str
    tickets: dict[int, int] = field(default_factory=dict)
    """Party size to tickets."""
    waits_s: dict[int, list[float]] = field(default_factory=dict)
    """Party size to the waits of matched tickets."""
    unmatched: dict[str, int] = field(default_factory=lambda: {"cancelled": 0, "timed_out": 0, "waiting": 0})
    matches: int = 0
    quality: list[float] = field(default_factory=list)
    """Of each match."""
    spread: dict[str, list[float]] = field(default_factory=dict)
    """Attribute to each match's largest minus smallest number of a player."""
    latency_ms: list[float] = field(default_factory=list)
    """Of each match: the slowest player's round trip to its region; matches whose players know none are not in it."""
    cycles: int = 0

    @property
    def all_waits_s(self) -> list[float]:
        """Of all sizes."""
        return list(itertools.chain.from_iterable(self.waits_s.values()))


def replay(
    queue: QueueConfig,
    arrivals: Sequence[Arrival],
    *,
    interval_s: float = 0.25,
    attributes: Iterable[str] | None = None,
) -> Outcome:
    """
    Run tickets through a queue.

    Args:
        arrivals: by `created_at_s`.
        interval_s: between two cycles, as a director's.
        attributes: whose spread is measured; by default those of the queue's own rules.
    Raises: MatchFunctionError, when the queue has a function of its own and it fails.
    """
    return _Replay(queue, arrivals, interval_s, measured(queue) if attributes is None else tuple(attributes)).run()


def measured(queue: QueueConfig) -> tuple[str, ...]:
    """The numbers that a queue's rules keep near each other."""
    rules = [r for r in queue.rules if isinstance(r, DifferenceRule | BatchDistanceRule | TeamBalanceRule)]
    return tuple(dict.fromkeys(rule.attribute for rule in rules))


class _Replay:
    def __init__(
        self, queue: QueueConfig, arrivals: Sequence[Arrival], interval_s: float, attributes: tuple[str, ...]
    ) -> None:
        self._queue = queue
        self._arrivals = arrivals
        self._interval_s = interval_s
        self._attributes = attributes
        self._pool = Pool(queue)
        self._waiting: dict[TicketId, Ticket] = {}
        self._created: _Times = np.array([a.ticket.created_at_s for a in arrivals], np.float64)
        self._leaving = [
            (a.ticket.created_at_s + a.left_after_s, a.ticket.id) for a in arrivals if math.isfinite(a.left_after_s)
        ]
        heapq.heapify(self._leaving)
        self._ages_s = sorted({age for age in _ages(queue) if 0 < age < math.inf})
        self._steady = bool(queue.match_function) or any(
            getattr(getattr(r, "limit", None), "linear", False) for r in queue.rules
        )
        """Something changes all the time, so that no cycle is left out."""
        self.outcome = Outcome(queue=queue.name, spread={name: [] for name in attributes})

    def run(self) -> Outcome:
        tick, taken, oldest = 0, 0, 0
        gone: list[TicketId] = []
        while (event_s := self._next(tick * self._interval_s, taken, matched=bool(gone))) < math.inf:
            # Ticks are counted, not added up; one that has been looked at is not looked at again.
            tick = max(tick + 1, math.ceil(event_s / self._interval_s))
            now_s = tick * self._interval_s
            until = int(np.searchsorted(self._created, now_s, side="right"))
            added = [arrival.ticket for arrival in self._arrivals[taken:until]]
            taken = until
            for ticket in added:
                self._waiting[ticket.id] = ticket
                size = len(ticket.players)
                self.outcome.tickets[size] = self.outcome.tickets.get(size, 0) + 1
            left, oldest = self._go(now_s, oldest)
            gone += left
            self._pool.change([t for t in added if t.id in self._waiting], gone)
            gone = self._cycle(now_s) if self._waiting else []
        self.outcome.unmatched["waiting"] = len(self._waiting)
        return self.outcome

    def _next(self, now_s: float, taken: int, *, matched: bool) -> float:
        """When something can happen next; infinite when nothing ever does."""
        times = [float(self._created[taken])] if taken < len(self._created) else []
        if self._waiting:
            if matched or self._steady:
                times.append(now_s)
            if self._leaving:
                times.append(self._leaving[0][0])
            times += self._changes(now_s)
        return min(times, default=math.inf)

    def _changes(self, now_s: float) -> Iterator[float]:
        """When a ticket that has arrived next reaches each age at which a rule changes."""
        for age_s in self._ages_s:
            index = int(np.searchsorted(self._created, now_s - age_s, side="right"))
            if index < len(self._created) and self._created[index] <= now_s:
                yield float(self._created[index]) + age_s

    def _go(self, now_s: float, oldest: int) -> tuple[list[TicketId], int]:
        """Players who give up, and tickets that time out."""
        gone = []
        while self._leaving and self._leaving[0][0] <= now_s:
            ticket = heapq.heappop(self._leaving)[1]
            if self._waiting.pop(ticket, None) is not None:
                self.outcome.unmatched["cancelled"] += 1
                gone.append(ticket)
        timeout_s = self._queue.ticket_timeout_s or math.inf
        while oldest < len(self._created) and self._created[oldest] + timeout_s <= now_s:
            ticket = self._arrivals[oldest].ticket.id
            if self._waiting.pop(ticket, None) is not None:
                self.outcome.unmatched["timed_out"] += 1
                gone.append(ticket)
            oldest += 1
        return gone, oldest

    def _cycle(self, now_s: float) -> list[TicketId]:
        self.outcome.cycles += 1
        gone = []
        for proposal in propose_all(self._pool, now_s)[0]:
            self._measure(proposal)
            for ticket in proposal.tickets:
                del self._waiting[ticket.id]
                gone.append(ticket.id)
                self.outcome.waits_s.setdefault(len(ticket.players), []).append(now_s - ticket.created_at_s)
        return gone

    def _measure(self, match: Proposal) -> None:
        outcome = self.outcome
        outcome.matches += 1
        outcome.quality.append(match.quality)
        players = [player for ticket in match.tickets for player in ticket.players]
        for name in self._attributes:
            numbers = [value for player in players if isinstance(value := value_of(player, name), float | int)]
            if numbers:
                outcome.spread[name].append(max(numbers) - min(numbers))
        region = self._queue.regions.get(match.fleets[0], "") if match.fleets else ""
        slowest = max((player.latencies_ms.get(region, math.inf) for player in players), default=math.inf)
        if math.isfinite(slowest):
            outcome.latency_ms.append(slowest)


def _ages(queue: QueueConfig) -> Iterator[float]:
    """The ages at which something changes for a ticket."""
    yield queue.ticket_timeout_s
    yield queue.max_wait_s
    yield queue.avoid_for_s
    if any(team.fewest < team.players for team in queue.teams):
        yield queue.wait_for_full_s
    for rule in queue.rules:
        yield rule.optional_after_s
        yield from (step.after_s for step in _steps(rule))


def _steps(rule: Rule) -> Iterator[Step]:
    if isinstance(rule, IntersectionRule):
        yield from rule.expand
    elif not isinstance(rule, EqualRule | InSetRule | ComparisonRule):
        yield from rule.limit.expand
