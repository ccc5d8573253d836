"""
A pool at one moment: which tickets may be matched, by which limits, and whether matches of them obey every rule.

`Moment.obeys` is `rules.check` for thousands of matches at once. Where numpy cannot be exact (sums within rounding of a limit, sets with more values than bits,
players who avoid each other, roles of teams that are not full) the judge itself is asked, match by match.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from matchmaker.matching.columns import ABSENT, Array, Columns, in_key, limits_at
from matchmaker.matching.rules import check, limit_of
from matchmaker.matching.scan import BitsColumn, Candidates, SpanColumn
from matchmaker.model import (
    Age,
    BatchDistanceRule,
    ComparisonRule,
    DifferenceRule,
    EqualRule,
    InSetRule,
    IntersectionRule,
    LatencyRule,
    Operation,
    Reference,
    Rule,
    TeamBalanceRule,
    TeamSizeRule,
    Ticket,
)

_GRAIN = (1 << 20) - 1
"""Values that are told apart when tickets are sorted."""
_FINE = 2.0**-12
"""Share of what decides between equals that does not go by their waits."""
OVERDUE_S = 1e6
"""More than any head start."""
_DOUBT = 1e-7
"""Sums are not compared with limits any closer than this, relatively."""


class Moment:
    """The tickets of a pool that may be matched now. Indices are into `rows`."""

    def __init__(self, columns: Columns, now_s: float) -> None:
        self.columns = columns
        self.queue = columns.queue
        self.now_s = now_s
        alive = np.flatnonzero(columns["alive"] & (columns["key"] >= 0))
        age_s = now_s - columns["created_s"][alive]
        self.rows = alive[age_s >= columns["needs_age_s"][alive]]
        """The columns' row of each ticket."""
        self.age_s = now_s - columns["created_s"][self.rows]
        overdue = self.age_s >= self.queue.max_wait_s
        self.turn_s = self.age_s + columns["head_start_s"][self.rows] + OVERDUE_S * overdue
        """Who has waited longest, counting head starts, comes first, and before all others who has waited too long."""
        self.size = columns["size"][self.rows]
        self.key = columns.ranks[columns["key"][self.rows]]
        self.tie = self._ties(columns["tie"][self.rows])
        """From 0 to 1, for what decides between equals: the longest wait is the least, and of equal ones some are less than others."""
        self.strangers = columns["strangers"][self.rows]
        """Whether a player of it blocks or avoids others."""
        self.spans: list[SpanColumn] = []
        self.bits: list[BitsColumn] = []
        self.near: Array | None = None
        """The region with the shortest round trip of those within reach."""
        self._limits: dict[int, Array] = {}
        self._reach: Array | None = None
        for place, rule in enumerate(self.queue.rules):
            if not rule.weight:
                self._constrain(place, rule)
        self.value = self._sorting()

    def __len__(self) -> int:
        return len(self.rows)

    def _ties(self, some: Array) -> Array:
        last = self.turn_s.max(initial=0.0)
        later = (last - self.turn_s) / max(last - self.turn_s.min(initial=0.0), 1e-9)
        return np.asarray(later * (1 - _FINE) + some * _FINE)

    def tickets(self, index: Sequence[int] | Array) -> list[Ticket]:
        """The tickets at indices."""
        return [self.columns.ticket(row) for row in self.rows[index].tolist()]

    def teams(self, index: Array, team: Array) -> tuple[tuple[Ticket, ...], ...]:
        """A match's tickets by team."""
        return tuple(tuple(self.tickets(index[team == number])) for number in range(len(self.queue.teams)))

    # ---- what the search goes by -----------------------------------------------------------------------------------------

    def _constrain(self, place: int, rule: Rule) -> None:
        columns = self.columns
        # As long as limits only relax, the strictest of the tickets' own limits is the newest one's.
        loosest = rule.age is Age.OLDEST or (rule.age is Age.NEWEST and limit_of(rule).tightens)
        match rule:
            case EqualRule() if in_key(rule):
                pass
            case (
                DifferenceRule()
                | BatchDistanceRule()
                | EqualRule()
                | ComparisonRule(value=None, operation=Operation.EQUAL)
            ):
                low = _without_gaps(columns[f"low{place}"][self.rows])
                high = _without_gaps(columns[f"high{place}"][self.rows]) if f"high{place}" in columns else low
                limit = self._limit(place, rule)
                if isinstance(rule, DifferenceRule) and rule.to is Reference.MEAN:
                    limit = 2 * limit  # any two may differ so much from each other at most
                self.spans.append(SpanColumn(low=low, high=high, limit=limit, loosest=loosest))
            case IntersectionRule():
                needs = -self._limit(place, rule)
                if not loosest:
                    self.bits.append(BitsColumn(bits=columns[f"bits{place}"][self.rows], needs=needs))
            case ComparisonRule(value=None):
                asked = self._limit(place, rule) < math.inf
                bits = np.where(asked, columns[f"bits{place}"][self.rows], np.uint64(0))
                self.bits.append(BitsColumn(bits=bits, apart=True))
            case LatencyRule() if columns.regions:
                self._look_around(columns["round_trips_ms"][self.rows], self._limit(place, rule))
                if not loosest and self._reach is not None:
                    self.bits.append(BitsColumn(bits=self._reach))
            case _:
                pass

    def _look_around(self, trips_ms: Array, limit_ms: Array) -> None:
        """Which regions each ticket reaches, and the nearest of them; region by region, which is faster than all at once."""
        regions = trips_ms.shape[1]
        word = np.min_scalar_type((1 << regions) - 1)
        reach, near = np.zeros(len(self), word), np.zeros(len(self), np.int16)
        nearest = np.full(len(self), np.inf)
        for region in range(regions):
            trip = trips_ms[:, region]
            within = trip <= limit_ms
            reach |= within * np.array(1 << region, word)
            nearer = within & (trip < nearest)
            near += nearer * (np.int16(region) - near)
            np.minimum(nearest, np.where(within, trip, np.inf), out=nearest)
        self._reach, self.near = reach, near

    def order(self, index: Array, *, home: bool) -> tuple[Array, Array]:
        """
        Tickets in the order in which good company is near, and the group of each: its key, and its nearest region.

        `home`: False: instead of the nearest the region within its reach that most of the others reach too, so that those who could meet stand together.
        """
        group = self.key[index]
        if self.near is not None:
            near = self.near[index] if home else self._common_region(index)
            group = group * (len(self.columns.regions) + 1) + near
        value = self.value[index]
        low = value.min(initial=np.inf)
        share = (value - low) / max(value.max(initial=-np.inf) - low, 1e-300)
        # Everything in one integer, since those are sorted fastest: group, value, and what decides between equals.
        coarse = (share * _GRAIN).astype(np.int64) + group * np.int64(_GRAIN + 1)
        tie_bits = max(0, 62 - int(coarse.max(initial=1)).bit_length())
        order = np.argsort((coarse << tie_bits) + (self.tie[index] * (1 << min(tie_bits, 32))).astype(np.int64))
        return index[order], group[order]

    def _common_region(self, index: Array) -> Array:
        assert self._reach is not None
        reach = self._reach[index]
        best, common = np.zeros(len(index), np.int64), np.zeros(len(index), np.int64)
        for region in range(len(self.columns.regions)):
            within = (reach & np.array(1 << region, reach.dtype)) != 0
            count = within * (1 + int(within.sum()))
            common += (count > best) * (region - common)
            np.maximum(best, count, out=best)
        return common

    def _limit(self, place: int, rule: Rule) -> Array:
        """The rule's limit at each ticket's own age."""
        if place not in self._limits:
            self._limits[place] = limits_at(limit_of(rule), self.age_s, rule.optional_after_s)
        return self._limits[place]

    def _sorting(self) -> Array:
        """What good company is near in: the number that the first rule about one goes by; else the wait."""
        rules = list(enumerate(self.queue.rules))
        for kinds in ((DifferenceRule, BatchDistanceRule), (TeamBalanceRule,)):
            for place, rule in sorted(rules, key=lambda item: item[1].weight > 0):
                if isinstance(rule, kinds):
                    low = self.columns[f"low{place}"][self.rows]
                    known = low / self.size if isinstance(rule, TeamBalanceRule) else low
                    return np.where(np.isnan(known), np.nanmax(known, initial=0.0), known)
        return -self.turn_s

    # ---- the judge, vectorised --------------------------------------------------------------------------------------------

    def obeys(self, found: Candidates, *, whole: bool) -> Array:
        """
        Which matches obey every hard rule.

        Args:
            found: positions are indices of this moment; their teams' sizes and, where teams are full, roles are as the search made them.
            whole: whether every team is full, and dealt by the search.
        """
        good = np.ones(len(found), bool)
        doubtful = np.zeros(len(found), bool)
        if not len(found):
            return good
        if not whole:
            doubtful[:] = True
        else:
            if self.strangers.any():
                doubtful |= np.logical_or.reduceat(self.strangers[found.position], found.start[:-1])
            for place, rule in enumerate(self.queue.rules):
                if not rule.weight:
                    fine, unsure = self._obeys_rule(place, rule, found)
                    good &= fine | unsure
                    doubtful |= unsure
        for match in np.flatnonzero(good & doubtful).tolist():
            entries = slice(found.start[match], found.start[match + 1])
            teams = self.teams(found.position[entries], found.team[entries])
            good[match] = not check(self.queue, teams, self.now_s)
        return good

    def quality(self, found: Candidates) -> Array:
        """`rules.quality` of each match."""
        whole, bad = 0.0, np.zeros(len(found))
        for place, rule in enumerate(self.queue.rules):
            badness = self._badness(place, rule, found) if len(found) else None
            if badness is not None:
                whole += rule.weight or 1.0
                bad += (rule.weight or 1.0) * badness
        return 1.0 - bad / whole if whole else np.ones(len(found))

    def allowed(self, place: int, rule: Rule, found: Candidates) -> Array:
        """`rules.allowed` of each match."""
        match rule.age:
            case Age.OWN:
                return np.minimum.reduceat(self._limit(place, rule)[found.position], found.start[:-1])
            case Age.NEWEST:
                ages_s = np.minimum.reduceat(self.age_s[found.position], found.start[:-1])
            case Age.OLDEST:
                ages_s = np.maximum.reduceat(self.age_s[found.position], found.start[:-1])
        return limits_at(limit_of(rule), ages_s, rule.optional_after_s)

    def _obeys_rule(self, place: int, rule: Rule, found: Candidates) -> tuple[Array, Array]:
        """(obeyed, unsure) of each match."""
        sure = np.zeros(len(found), bool)
        if isinstance(rule, EqualRule) and in_key(rule):
            return ~sure, sure
        if isinstance(rule, LatencyRule):
            return self._reachable(place, rule, found), sure
        if isinstance(rule, InSetRule) or (isinstance(rule, ComparisonRule) and rule.value is not None):
            if rule.age is Age.OWN:
                return ~sure, sure  # who does not obey it alone is not here
            good = np.logical_and.reduceat(self.columns[f"good{place}"][self.rows[found.position]], found.start[:-1])
            return good | (self.allowed(place, rule, found) == math.inf), sure
        if isinstance(rule, ComparisonRule) and rule.operation is Operation.UNEQUAL:
            return ~sure, ~sure
        measure, allowed = self._measure(place, rule, found), self.allowed(place, rule, found)
        measure = np.where(np.isnan(measure), np.inf, measure)
        if isinstance(rule, TeamBalanceRule) or (isinstance(rule, DifferenceRule) and rule.to is Reference.MEAN):
            with np.errstate(invalid="ignore"):
                sure = np.abs(measure - allowed) <= _DOUBT * np.maximum(1.0, np.abs(allowed))
        if isinstance(rule, IntersectionRule) and not self.columns.exact(place):
            sure = measure <= allowed
        return measure <= allowed, sure

    def _reachable(self, place: int, rule: LatencyRule, found: Candidates) -> Array:
        if self._reach is None:
            return np.zeros(len(found), bool)
        if rule.age is Age.OWN:
            common = np.bitwise_and.reduceat(self._reach[found.position], found.start[:-1])
            return np.asarray(common != 0)
        return np.asarray((self.worst_ms(found) <= self.allowed(place, rule, found)[:, None]).any(axis=1))

    def worst_ms(self, found: Candidates) -> Array:
        """[match, region]: the slowest player's round trip."""
        trips = self.columns["round_trips_ms"][self.rows[found.position]]
        return np.maximum.reduceat(trips, found.start[:-1], axis=0)

    def _measure(self, place: int, rule: Rule, found: Candidates) -> Array:
        """`rules._measure` of each match; NaN where a player lacks what it takes."""
        at, start = self.rows[found.position], found.start[:-1]
        match rule:
            case DifferenceRule(to=Reference.MEAN):
                values, sizes = self.columns[f"low{place}"][at], self.size[found.position]
                mean = np.add.reduceat(values * sizes, start) / np.add.reduceat(sizes, start, dtype=np.int64)
                return np.maximum.reduceat(np.abs(values - mean[found.match]), start)
            case DifferenceRule() | BatchDistanceRule() | EqualRule() | ComparisonRule():
                low = self.columns[f"low{place}"][at]
                high = self.columns[f"high{place}"][at] if f"high{place}" in self.columns else low
                return np.maximum.reduceat(high, start) - np.minimum.reduceat(low, start)
            case IntersectionRule():
                common = np.bitwise_and.reduceat(self.columns[f"bits{place}"][at], start)
                return np.asarray(-np.bitwise_count(common).astype(float))
            case TeamBalanceRule(by_sum=by_sum):
                powers = self._by_team(self.columns[f"low{place}"][at], found)
                sizes = self._by_team(self.size[found.position].astype(float), found)
                if by_sum:
                    return np.asarray(np.max(powers, axis=1) - np.min(powers, axis=1))
                with np.errstate(invalid="ignore"):
                    means = powers / sizes
                bare = sizes == 0
                spread = np.max(np.where(bare, -np.inf, means), axis=1) - np.min(np.where(bare, np.inf, means), axis=1)
                return np.asarray(spread)
            case TeamSizeRule():
                sizes = self._by_team(self.size[found.position].astype(float), found)
                return np.asarray(np.max(sizes, axis=1) - np.min(sizes, axis=1))
            case _:
                raise TypeError(f"{rule} measures nothing here")

    def _by_team(self, values: Array, found: Candidates) -> Array:
        """[match, team]: sums."""
        teams = len(self.queue.teams)
        label = found.match * teams + found.team
        return np.bincount(label, weights=values, minlength=len(found) * teams).reshape(-1, teams)

    def _badness(self, place: int, rule: Rule, found: Candidates) -> Array | None:
        match rule:
            case LatencyRule():
                if not (rule.weight or rule.minimise) or not self.columns.regions:
                    return None
                worst = self.worst_ms(found)
                if rule.weight or self._reach is None:
                    measure = worst.min(axis=1)
                elif rule.age is Age.OWN:
                    common = np.bitwise_and.reduceat(self._reach[found.position], found.start[:-1])
                    bit = common.dtype.type(1) << np.arange(len(self.columns.regions), dtype=common.dtype)
                    measure = np.where(common[:, None] & bit, worst, np.inf).min(axis=1)
                else:
                    reachable = worst <= self.allowed(place, rule, found)[:, None]
                    measure = np.where(reachable, worst, np.inf).min(axis=1)
            case EqualRule() | InSetRule() | ComparisonRule() | IntersectionRule():
                return self._broken_softly(place, rule, found) if rule.weight else None
            case _:
                measure = self._measure(place, rule, found)
        loosest = limit_of(rule).loosest
        measure = np.where(np.isnan(measure), np.inf, measure)
        return np.asarray(np.minimum(1.0, measure / loosest if loosest > 0 else measure > 0))

    def _broken_softly(self, place: int, rule: Rule, found: Candidates) -> Array:
        allowed = self.allowed(place, rule, found)
        if f"good{place}" in self.columns:
            good = np.logical_and.reduceat(self.columns[f"good{place}"][self.rows[found.position]], found.start[:-1])
            return np.where(good, 0.0, 1.0) * (allowed < math.inf)
        if isinstance(rule, ComparisonRule) and rule.operation is Operation.UNEQUAL:
            bits = np.bitwise_or.reduceat(self.columns[f"bits{place}"][self.rows[found.position]], found.start[:-1])
            players = np.add.reduceat(self.size[found.position], found.start[:-1], dtype=np.int64)
            return ((np.bitwise_count(bits) < players) & (allowed < math.inf)).astype(float)
        measure = self._measure(place, rule, found)
        return (np.where(np.isnan(measure), np.inf, measure) > allowed).astype(float)


def _without_gaps(values: Array) -> Array:
    missing = np.isnan(values)
    return np.where(missing, ABSENT, values) if missing.any() else values


def padded(column: Array, pad: int, value: int = 0) -> Array:
    """A column with so many more entries at its end."""
    longer = np.full((len(column) + pad, *column.shape[1:]), value, column.dtype)
    longer[: len(column)] = column
    return longer


def subset(row: SpanColumn | BitsColumn, index: Array, pad: int) -> Any:
    """A column of some tickets, with `pad` meaningless entries at its end (see `scan.Row`)."""

    def take(column: Array) -> Array:
        return padded(column[index], pad)

    if isinstance(row, BitsColumn):
        return BitsColumn(bits=take(row.bits), needs=None if row.needs is None else take(row.needs), apart=row.apart)
    low = take(row.low)
    return SpanColumn(
        low=low, high=low if row.high is row.low else take(row.high), limit=take(row.limit), loosest=row.loosest
    )
