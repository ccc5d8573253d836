"""
A pool as numpy columns: one row a ticket, one column for each thing that a rule of the queue reads. Filled once, when a ticket comes; read every cycle.

Rows are reused after their ticket left. Knows how rules read tickets, and decides nothing.
"""

import math
import zlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from matchmaker.matching.rules import number, obeys, value_of, values_of
from matchmaker.model import (
    Age,
    BatchDistanceRule,
    ComparisonRule,
    DifferenceRule,
    EqualRule,
    InSetRule,
    IntersectionRule,
    LatencyRule,
    Limit,
    Operation,
    QueueConfig,
    Rule,
    TeamBalanceRule,
    TeamSizeRule,
    Ticket,
    TicketId,
)

Array = npt.NDArray[Any]

ABSENT = 1e300
"""Stands for a number that a player lacks: so far from every other that no limit reaches it."""
WORD_BITS = 64
"""Values of a set that have a bit of their own; further ones share bits, and what is found by them is judged once more."""


def limits_at(limit: Limit, ages_s: Array, optional_after_s: float = math.inf) -> Array:
    """`Limit.at` for many ages, number for number; infinite from `optional_after_s` on."""
    values = np.array([limit.value, *(step.limit for step in limit.expand)], np.float64)
    if limit.expand and not limit.linear:
        result = np.full(len(ages_s), values[0])
        for step in limit.expand:
            result = np.where(ages_s >= step.after_s, step.limit, result)
    elif limit.expand:
        afters = np.array([step.after_s for step in limit.expand])
        place = np.searchsorted(afters, ages_s, side="right")
        result = values[place]
        ahead = place < len(afters)
        at, since = place[ahead], np.concatenate(([0.0], afters))
        elapsed = np.maximum(0.0, ages_s[ahead] - since[at])
        result[ahead] = values[at] + (values[at + 1] - values[at]) * elapsed / (afters[at] - since[at])
    else:
        result = np.full(len(ages_s), values[0])
    if optional_after_s < math.inf:
        result[ages_s >= optional_after_s] = math.inf
    return result


class Columns:
    """The columns of one queue's pool."""

    def __init__(self, queue: QueueConfig) -> None:
        self.queue = queue
        self.rows: dict[TicketId, int] = {}
        self.tickets: list[Ticket | None] = []
        """By row; None where a row is free."""
        self.roles = tuple(dict.fromkeys(role.name for team in queue.teams for role in team.roles))
        self.regions = tuple(dict.fromkeys(region for region in queue.regions.values() if region))
        self.codes: dict[int, dict[Hashable, int]] = {}
        """By the rule's place: what stands for a value, in order of appearance."""
        self._keys: dict[Hashable, int] = {}
        self._ranks: Array = np.zeros(0, np.int64)
        self._shared: set[int] = set()
        """Places of set rules whose values share bits."""
        self._free: list[int] = []
        self._arrays: dict[str, Array] = {"alive": np.zeros(0, bool)}
        self._read: dict[str, Callable[[Ticket], Any]] = {}
        self._describe()
        self._grow(64)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def change(self, added: Sequence[Ticket], removed: Iterable[TicketId]) -> None:
        """Take tickets out (unknown ones are none), then in (known ones are replaced)."""
        for ticket_id in removed:
            self._drop(ticket_id)
        fresh = {ticket.id: ticket for ticket in added}
        for ticket_id in fresh:
            self._drop(ticket_id)
        if len(self._free) < len(fresh):
            self._grow(max(2 * len(self.tickets), len(self.rows) + len(fresh)))
        rows = [self._free.pop() for _ in fresh]
        if not rows:
            return
        tickets, at = list(fresh.values()), np.array(rows)
        self.rows.update(zip(fresh, rows, strict=True))
        for row, ticket in zip(rows, tickets, strict=True):
            self.tickets[row] = ticket
        self._arrays["alive"][at] = True
        for name, read in self._read.items():
            self._arrays[name][at] = [read(ticket) for ticket in tickets]
        self._share_bits()

    def ticket(self, row: int) -> Ticket:
        """The ticket of a row that is alive."""
        found = self.tickets[row]
        assert found is not None
        return found

    @property
    def crowded(self) -> bool:
        """Whether far more values are remembered than tickets can have: time to fill new columns."""
        return len(self._keys) + sum(map(len, self.codes.values())) > 10_000 + 100 * len(self.rows)

    @property
    def ranks(self) -> Array:
        """By key: its place among all by the values that it stands for, since its number tells who came first."""
        if len(self._ranks) != len(self._keys):
            self._ranks = np.empty(len(self._keys), np.int64)
            self._ranks[[self._keys[values] for values in sorted(self._keys, key=repr)]] = np.arange(len(self._keys))
        return self._ranks

    def exact(self, place: int) -> bool:
        """Whether every value of a set rule has a bit of its own."""
        return len(self.codes.get(place, ())) <= WORD_BITS

    def _share_bits(self) -> None:
        """A set rule that has met more values than there are bits gives them bits by what they are, so that it does not show which of them came first."""
        for place in self.codes.keys() - self._shared:
            name = f"bits{place}"
            if name in self and not self.exact(place):
                self._shared.add(place)
                rows = list(self.rows.values())
                self._arrays[name][rows] = [self._read[name](self.ticket(row)) for row in rows]

    def _drop(self, ticket_id: TicketId) -> None:
        row = self.rows.pop(ticket_id, None)
        if row is not None:
            self._arrays["alive"][row] = False
            self.tickets[row] = None
            self._free.append(row)

    def _grow(self, capacity: int) -> None:
        before = len(self.tickets)
        self._free.extend(range(capacity - 1, before - 1, -1))
        self.tickets.extend([None] * (capacity - before))
        for name, array in self._arrays.items():
            longer = np.zeros((capacity, *array.shape[1:]), array.dtype)
            longer[:before] = array
            self._arrays[name] = longer

    def _describe(self) -> None:
        """Say which columns there are, and how each is read."""
        queue = self.queue
        self._column("created_s", np.float64, lambda ticket: ticket.created_at_s)
        self._column("head_start_s", np.float64, lambda ticket: queue.priorities.get(ticket.priority, 0.0))
        self._column("size", np.int16, lambda ticket: len(ticket.players))
        # An order among equals that does not depend on when they came.
        self._column("tie", np.float64, lambda ticket: zlib.crc32(ticket.id.encode()) / 2**32)
        self._column("tries", np.int64, lambda ticket: 0)  # how often the exact search began with it
        self._column("strangers", bool, lambda t: any(p.blocked or p.avoided for p in t.players))
        self._column("key", np.int64, self._key)
        self._column("needs_age_s", np.float64, self._needs_age_s)
        if self.regions and any(isinstance(rule, LatencyRule) for rule in queue.rules):
            self._column("round_trips_ms", np.float64, self._round_trips_ms, len(self.regions))
        if self.roles:
            self._column("roles", np.int16, self._role_counts, 1 << len(self.roles))
        for place, rule in enumerate(queue.rules):
            self._describe_rule(place, rule)

    def _describe_rule(self, place: int, rule: Rule) -> None:
        match rule:
            case DifferenceRule():
                aggregate = rule.aggregate or self.queue.aggregate
                self._column(f"low{place}", np.float64, lambda t: _or_nan(number(t, rule.attribute, aggregate)))
            case BatchDistanceRule():
                self._column(f"low{place}", np.float64, lambda t: _extreme(t, rule.attribute, min))
                self._column(f"high{place}", np.float64, lambda t: _extreme(t, rule.attribute, max))
            case EqualRule() if in_key(rule):
                pass
            case EqualRule():
                self._column(f"low{place}", np.float64, lambda t: self._same(place, t, rule.attribute))
            case ComparisonRule(value=None, operation=Operation.UNEQUAL):
                self._column(f"bits{place}", np.uint64, lambda t: self._bits(place, [_unlike(t, rule.attribute)]))
            case ComparisonRule(value=None):
                self._column(f"low{place}", np.float64, lambda t: self._same(place, t, rule.attribute))
            case ComparisonRule() | InSetRule():
                self._column(f"good{place}", bool, lambda t: all(obeys(rule, player) for player in t.players))
            case IntersectionRule():
                self._column(f"bits{place}", np.uint64, lambda t: self._bits(place, _lists(t, rule.attribute)))
            case TeamBalanceRule():
                self._column(f"low{place}", np.float64, lambda t: _total(t, rule.attribute))
            case LatencyRule() | TeamSizeRule():
                pass

    def _column(self, name: str, dtype: Any, read: Callable[[Ticket], Any], width: int = 0) -> None:
        self._arrays[name] = np.zeros((0, width) if width else 0, dtype)
        self._read[name] = read

    def _key(self, ticket: Ticket) -> int:
        """Tickets with different keys never meet: the values of the hard `equal` rules; -1 for a party that is not of one mind itself."""
        attributes = [rule.attribute for rule in self.queue.rules if isinstance(rule, EqualRule) and in_key(rule)]
        values = {tuple(_plain(value_of(player, name)) for name in attributes) for player in ticket.players}
        return self._keys.setdefault(values.pop(), len(self._keys)) if len(values) == 1 else -1

    def _needs_age_s(self, ticket: Ticket) -> float:
        """The age before which a rule that every ticket must obey by itself keeps this one out."""
        age_s = 0.0
        for rule in self.queue.rules:
            if rule.weight or rule.age is Age.OLDEST:
                continue
            match rule:
                case InSetRule() | ComparisonRule() if not (isinstance(rule, ComparisonRule) and rule.value is None):
                    alone = all(obeys(rule, player) for player in ticket.players)
                case DifferenceRule() | BatchDistanceRule() | TeamBalanceRule():
                    alone = not math.isnan(_total(ticket, rule.attribute))
                case _:
                    continue
            age_s = age_s if alone else max(age_s, rule.optional_after_s)
        return age_s

    def _round_trips_ms(self, ticket: Ticket) -> list[float]:
        return [max(p.latencies_ms.get(region, math.inf) for p in ticket.players) for region in self.regions]

    def _role_counts(self, ticket: Ticket) -> list[int]:
        """For each subset of the role kinds, as bits: how many players take no role outside of it."""
        takes = [values_of(player, self.queue.role_attribute) for player in ticket.players]
        masks = [sum(1 << i for i, role in enumerate(self.roles) if role in roles) for roles in takes]
        return [sum(mask & ~subset == 0 for mask in masks) for subset in range(1 << len(self.roles))]

    def _same(self, place: int, ticket: Ticket, attribute: str) -> float:
        values = {_plain(value_of(player, attribute)) for player in ticket.players}
        codes = self.codes.setdefault(place, {})
        return float(codes.setdefault(values.pop(), len(codes))) if len(values) == 1 else math.nan

    def _bits(self, place: int, lists: Sequence[Iterable[Hashable]]) -> int:
        codes = self.codes.setdefault(place, {})
        bits = (1 << WORD_BITS) - 1
        for values in lists:
            word = 0
            for value in values:
                code = codes.setdefault(value, len(codes))
                word |= 1 << (
                    zlib.crc32(repr(value).encode()) % WORD_BITS if place in self._shared else code % WORD_BITS
                )
            bits &= word
        return bits


def in_key(rule: EqualRule) -> bool:
    """Whether tickets that differ in this can never be in one match."""
    return not rule.weight and rule.optional_after_s == math.inf


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _player_numbers(ticket: Ticket, attribute: str) -> list[float] | None:
    values = [value_of(player, attribute) for player in ticket.players]
    numbers = [float(value) for value in values if isinstance(value, float | int)]
    return numbers if len(numbers) == len(values) else None


def _extreme(ticket: Ticket, attribute: str, choose: Callable[[list[float]], float]) -> float:
    numbers = _player_numbers(ticket, attribute)
    return math.nan if numbers is None else choose(numbers)


def _total(ticket: Ticket, attribute: str) -> float:
    numbers = _player_numbers(ticket, attribute)
    return math.nan if numbers is None else math.fsum(numbers)


def _lists(ticket: Ticket, attribute: str) -> list[tuple[str, ...]]:
    values = [value_of(player, attribute) for player in ticket.players]
    return [value if isinstance(value, tuple) else () for value in values]


def _unlike(ticket: Ticket, attribute: str) -> list[Hashable]:
    return [_plain(value_of(player, attribute)) for player in ticket.players]


def _plain(value: Any) -> Hashable:
    return tuple(sorted(value.items())) if isinstance(value, dict) else value
