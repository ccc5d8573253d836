"""
How long a ticket will wait: as those like it have waited lately. Pure, but for the arrays that it keeps.

Each observation is a ticket as rules see it (rating, mode, region, party) and how long it waited. An estimate is taken from the nearest of the last
`_KEPT`: its median, and the time within which nine of ten were matched. What is told is compared with what came, so that the estimate's own error is known.
"""

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matchmaker.matching.rules import number, value_of
from matchmaker.model import (
    Attribute,
    BatchDistanceRule,
    DifferenceRule,
    EqualRule,
    LatencyRule,
    QueueConfig,
    QueueName,
    Ticket,
    TicketId,
    TicketPlayer,
)

_KEPT = 1024
_FEWEST = 8
"""Observations before anything is said."""
_NEAREST = 48
_FRESH_S = 1.0
"""For so long an estimate is told again to tickets alike."""
_MOST_ALIKE = 4096
_MOST_OPEN = 200_000
"""Tickets whose end is waited for."""
_UNLIKE = 8.0
"""What another mode, region or value of an equal rule counts as, in limits of a difference rule."""

_GATHERED = 8.0
"""What a whole match of players alike, who wait already, counts as against none of them."""

Likeness = tuple[float, ...]
"""A ticket as rules see it; numbers in units of half their rule's first limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """How long it takes from a ticket's creation to its match, in s."""

    seconds: float
    """Half of those like it were matched by then."""
    within_s: float
    """Nine of ten were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A ticket got its match: what it had been told, and what came."""

    told: Estimate | None
    waited_s: float


class Waits:
    """The waits of one queue."""

    def __init__(self, queue: QueueConfig) -> None:
        self._queue = queue
        self._numbers = [r for r in queue.rules if isinstance(r, DifferenceRule | BatchDistanceRule)]
        self._equals = [r for r in queue.rules if isinstance(r, EqualRule)]
        self._latency = next((r for r in queue.rules if isinstance(r, LatencyRule)), None)
        self._regions = tuple(dict.fromkeys(filter(None, queue.regions.values())))
        width = len(self._numbers) + len(self._equals) + 3
        self._like: npt.NDArray[np.float64] = np.zeros((_KEPT, width))
        self._exact = np.array([False] * len(self._numbers) + [True] * (len(self._equals) + 1) + [False, False])
        self._waiting: Counter[Likeness] = Counter()
        """Players who wait, by what is alike of them."""
        self._waited_s = np.zeros(_KEPT)
        self._count = 0
        self._told: OrderedDict[Likeness, tuple[float, npt.NDArray[np.float64]]] = OrderedDict()
        self._open: OrderedDict[TicketId, tuple[Likeness, float, Estimate | None]] = OrderedDict()
        self._errors_s: deque[float] = deque(maxlen=_KEPT)
        self._kept = deque[bool](maxlen=_KEPT)

    def likeness(self, players: Sequence[TicketPlayer]) -> Likeness:
        """A party as the queue's rules see it."""
        ticket = Ticket(id=TicketId(""), players=tuple(players), created_at_s=0.0)
        parts = [self._bucket(rule, ticket) for rule in self._numbers]
        parts += [float(hash(_plain(value_of(players[0], rule.attribute))) % 65_521) for rule in self._equals]
        parts.append(self._home(players))
        return (*parts, float(len(players)), self._gathered(parts))

    def created(self, ticket: TicketId, like: Likeness, now_s: float) -> Estimate | None:
        """A ticket begins to wait; returns what it is to be told. `now_s`: any clock, the same for all calls."""
        told = self.estimate(like, now_s)
        self._open[ticket] = (like, now_s, told)
        self._waiting[like[:-2]] += round(like[-2])
        if len(self._open) > _MOST_OPEN:
            self._close(next(iter(self._open)))
        return told

    def begun(self, ticket: TicketId) -> tuple[Likeness, Estimate | None] | None:
        """What is known of a ticket that began to wait here: itself as rules see it, and what it was told."""
        known = self._open.get(ticket)
        return None if known is None else (known[0], known[2])

    def matched(self, ticket: TicketId, now_s: float) -> Outcome | None:
        """A ticket has its match, or has waited in vain until now; None when it did not begin here, or had one before."""
        begun = self._close(ticket)
        if begun is None:
            return None
        like, begun_s, told = begun
        waited_s = max(0.0, now_s - begun_s)
        place = self._count % _KEPT
        self._like[place], self._waited_s[place] = like, waited_s
        self._count += 1
        if told is not None:
            self._errors_s.append(abs(told.seconds - waited_s))
            self._kept.append(waited_s <= told.within_s)
        return Outcome(told=told, waited_s=waited_s)

    def gone(self, ticket: TicketId) -> None:
        """A ticket is over, and says nothing about waiting."""
        self._close(ticket)

    def estimate(self, like: Likeness, now_s: float, *, age_s: float = 0.0) -> Estimate | None:
        """
        How long such a ticket waits in all, given that it has waited for `age_s`; None while too little is known.

        Those who waited no longer than it has say nothing about it any more.
        """
        if self._count < _FEWEST:
            return None
        waits = self._alike(like, now_s)
        if age_s:
            waits = waits[np.searchsorted(waits, age_s, side="right") :]
        if len(waits) < (_FEWEST if not age_s else 1):
            return None
        return _quantiles(waits)

    @property
    def usual(self) -> Estimate | None:
        """Of all tickets of the queue lately."""
        waits = self._waited_s[: min(self._count, _KEPT)]
        if len(waits) < _FEWEST:
            return None
        return _quantiles(np.sort(waits))

    @property
    def error_s(self) -> float | None:
        """The median of what estimates were off by lately."""
        return float(np.median(self._errors_s)) if len(self._errors_s) >= _FEWEST else None

    @property
    def kept_share(self) -> float | None:
        """The share of tickets that were matched within what they had been told; 0.9 is right."""
        return sum(self._kept) / len(self._kept) if len(self._kept) >= _FEWEST else None

    def _alike(self, like: Likeness, now_s: float) -> npt.NDArray[np.float64]:
        """The waits of the nearest, in ascending order."""
        told = self._told.get(like)
        if told is not None and now_s - told[0] < _FRESH_S:
            return told[1]
        known = min(self._count, _KEPT)
        apart = np.abs(self._like[:known] - np.array(like))
        apart[:, self._exact] = np.where(apart[:, self._exact] > 0, _UNLIKE, 0.0)
        age = (self._count - 1 - np.arange(known)) % _KEPT
        near = np.argsort(apart.sum(axis=1) + age / _KEPT, kind="stable")[:_NEAREST]
        waits = np.sort(self._waited_s[:known][near])
        if known >= 2 * _FEWEST:  # of few, each new one tells much
            self._told[like] = (now_s, waits)
        if len(self._told) > _MOST_ALIKE:
            self._told.popitem(last=False)
        return waits

    def _close(self, ticket: TicketId) -> tuple[Likeness, float, Estimate | None] | None:
        begun = self._open.pop(ticket, None)
        if begun is not None:
            like = begun[0]
            self._waiting[like[:-2]] -= round(like[-2])
            if not self._waiting[like[:-2]]:
                del self._waiting[like[:-2]]
        return begun

    def _bucket(self, rule: DifferenceRule | BatchDistanceRule, ticket: Ticket) -> float:
        if len(ticket.players) == 1:
            alone = value_of(ticket.players[0], rule.attribute)
            value = alone if isinstance(alone, int | float) else None
        else:
            own = rule.aggregate if isinstance(rule, DifferenceRule) else None
            value = number(ticket, rule.attribute, own or self._queue.aggregate)
        half = (rule.limit.value or rule.limit.loosest or 1.0) / 2
        return 0.0 if value is None else float(round(value / half))

    def _gathered(self, parts: Sequence[float]) -> float:
        """How much of a match those already make up who wait and are alike; 1: a whole one."""
        rest = tuple(parts[1:])
        reach = (-2.0, -1.0, 0.0, 1.0, 2.0) if self._numbers else (0.0,)
        players = sum(self._waiting.get((parts[0] + step, *rest), 0) for step in reach)
        return _GATHERED * min(1.0, players / max(1, self._queue.fewest - 1))

    def _home(self, players: Sequence[TicketPlayer]) -> float:
        """The region that is nearest to the party."""
        if self._latency is None or not self._regions:
            return 0.0
        worst = [max(p.latencies_ms.get(region, math.inf) for p in players) for region in self._regions]
        return float(worst.index(min(worst)))


def _quantiles(waits_s: npt.NDArray[np.float64]) -> Estimate:
    """Of waits in ascending order, at least one; numpy's own costs 50 times more, for each ticket."""
    half, most = waits_s[len(waits_s) // 2], waits_s[min(len(waits_s) - 1, math.ceil(0.9 * len(waits_s)))]
    return Estimate(seconds=float(half), within_s=float(most))


def _plain(value: Attribute | None) -> object:
    return tuple(sorted(value.items())) if isinstance(value, Mapping) else value


def by_queue(queues: Sequence[QueueConfig]) -> dict[QueueName, Waits]:
    """One for each queue."""
    return {queue.name: Waits(queue) for queue in queues}
