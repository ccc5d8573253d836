"""
Forming matches: fast for the many, exact for the few who waited longest, and judged whole before anything is proposed.

1. One or two tickets that have waited far longer than the others are searched for exactly (`exact`), before anybody takes their company away.
2. Large pools are first cut along the row of their sorted tickets, one match after the other (`scan`, `again`).
3. What is left, and small pools at once, is looked at from every ticket on; of the candidates the best that share nobody are kept (`scan`, `select`); again and
   again while that finds any, each time with the row in another order.
4. The tickets that waited longest, in turn, are searched for exactly, so that nobody whom the rules allow a match waits for luck.

Pure and deterministic: the order in which tickets came to the pool does not show.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from matchmaker.matching.columns import Array, Columns
from matchmaker.matching.deal import rebalance
from matchmaker.matching.exact import Exact
from matchmaker.matching.moment import OVERDUE_S, Moment, padded, subset
from matchmaker.matching.rules import fleets_for, quality, roles_of
from matchmaker.matching.scan import Candidates, Row, Shape, scan, select
from matchmaker.model import Proposal, QueueConfig, TeamBalanceRule, Ticket, TicketId

_LARGE = 4000
"""Tickets from which a pool is cut first."""
_PATIENCE = 0.5
"""How much of a match's quality the longest wait in it outweighs, when two candidates want the same ticket."""
_HORIZON_S = 60.0
"""The wait that outweighs so much."""
_ROUNDS = 8
_WORTHWHILE = 200
"""A round that makes fewer matches than one for so many tickets is not repeated: the next cycle will do."""
_SEEDS = 24
"""Tickets that are searched for exactly per cycle, before and after the others are matched: before, until `_FIRST` have a match."""
_FIRST = 2
_FAR_LONGER = 5.0
"""Times the mean wait, from which a ticket is searched for before the others are matched: it takes whoever is near to it, so that matches get worse."""
_ASK_ALL = 4
"""So many of these searches ask the whole pool, however large it is."""
_SMALL = 2000
"""Up to so many tickets every search does; beyond, there are `_FEW` searches."""
_FEW = 8


@dataclass(slots=True)
class Formed:
    """Matches of a moment, those of the oldest tickets first: `found.position` are indices of the moment."""

    moment: Moment
    found: Candidates
    quality: Array

    def __len__(self) -> int:
        return len(self.found)

    def proposals(self) -> list[Proposal]:
        """As objects, with the fleets where each may run."""
        return [self._proposal(index) for index in range(len(self.found))]

    def ids(self) -> list[list[list[TicketId]]]:
        """As ticket ids by match and team."""
        return [[[ticket.id for ticket in team] for team in self._teams(index)] for index in range(len(self.found))]

    def _teams(self, index: int) -> tuple[tuple[Ticket, ...], ...]:
        entries = slice(self.found.start[index], self.found.start[index + 1])
        return self.moment.teams(self.found.position[entries], self.found.team[entries])

    def _proposal(self, index: int) -> Proposal:
        return propose(self.moment.queue, self._teams(index), self.moment.now_s, float(self.quality[index]))


def propose(
    queue: QueueConfig, teams: tuple[tuple[Ticket, ...], ...], now_s: float, worth: float | None = None
) -> Proposal:
    """A match that obeys the rules, with where it may run and who takes which role."""
    roles: dict[Any, str] = {}
    for team, tickets in zip(queue.teams, teams, strict=True):
        if team.roles:
            roles |= roles_of(team, [player for t in tickets for player in t.players], queue.role_attribute) or {}
    return Proposal(
        teams=teams,
        fleets=fleets_for(queue, [ticket for team in teams for ticket in team], now_s),
        quality=quality(queue, teams, now_s) if worth is None else worth,
        roles=roles,
    )


def form_matches(queue: QueueConfig, pool: list[Ticket], now_s: float) -> list[Proposal]:
    """Propose matches from tickets that wait, in one call; `pool.Pool` does the same from cycle to cycle."""
    columns = Columns(queue)
    columns.change(pool, ())
    return form(columns, now_s).proposals()


def form(columns: Columns, now_s: float) -> Formed:
    """Match a pool's tickets; changes nothing of it but how often each ticket was searched for."""
    search = _Search(Moment(columns, now_s))
    if len(search.moment):
        search.run()
    return search.formed()


class _Search:
    def __init__(self, moment: Moment) -> None:
        queue = moment.queue
        self.moment = moment
        self.free = np.ones(len(moment), bool)
        self.shape = Shape(
            rooms=tuple(team.players for team in queue.teams),
            fewest=tuple(team.fewest for team in queue.teams),
            role_rooms=_role_rooms(queue, moment.columns.roles),
        )
        self.orders: dict[bool, tuple[Array, Array]] = {}
        self.parts: list[Candidates] = []
        self.balances = [rule for rule in queue.rules if isinstance(rule, TeamBalanceRule) and not rule.weight]

    def run(self) -> None:
        """All stages."""
        patient_s = min(self.moment.queue.wait_for_full_s, self.moment.queue.max_wait_s)
        impatient = self.shape.fewest != self.shape.rooms
        self._search_exactly(first=True)
        if self.free.sum() * self.moment.size.mean() >= sum(self.shape.fewest):
            self._cut()
            self._pick(partial=False)
            if impatient and (self.moment.age_s[self.free] >= patient_s).any():
                self._pick(partial=True)
        self._search_exactly(first=False)

    def formed(self) -> Formed:
        """What was found, oldest first."""
        found = _join(self.parts)
        oldest = (
            np.maximum.reduceat(self.moment.turn_s[found.position], found.start[:-1]) if len(found) else np.zeros(0)
        )
        tie = np.minimum.reduceat(self.moment.tie[found.position], found.start[:-1]) if len(found) else np.zeros(0)
        # To the microsecond, then by the tie, as one integer: twelve times as fast as by two keys.
        turn = (oldest * 1e6).astype(np.int64)
        found = found.keep(np.argsort(((turn.max(initial=0) - turn) << 20) + (tie * (1 << 20)).astype(np.int64)))
        return Formed(self.moment, found, self.moment.quality(found))

    def _cut(self) -> None:
        players = sum(self.shape.rooms)
        if self.free.sum() < _LARGE:
            return
        width = 64 if players <= 20 else 4 * players
        for turn in range(2):
            row, index = self._row(3 * width, home=True)
            found = scan(row, self.shape, stride=width, width=width, offset=turn * width // 2, again=True)
            self._keep(found, index, select_from=False, partial=False)

    def _pick(self, *, partial: bool) -> None:
        players = sum(self.shape.rooms)
        width = min(max(3 * players, 8), 400)
        idle, turn = 0, 0
        while idle < self._orders and turn < _ROUNDS:
            waiting = int(self.free.sum())
            if waiting * int(self.moment.size.max()) < sum(self.shape.fewest if partial else self.shape.rooms):
                return
            stride = 1 if waiting < _LARGE else 2 if waiting < 4 * _LARGE else 4
            row, index = self._row(width + 2 * stride, home=turn % 2 == 0)
            found = scan(row, self.shape, stride=stride, width=width, again=False, partial=partial, spread=partial)
            made = self._keep(found, index, select_from=True, partial=partial)
            idle = 0 if made * _WORTHWHILE > waiting else idle + 1
            turn += 1

    @property
    def _orders(self) -> int:
        """How many orders of the row there are."""
        return 2 if self.moment.near is not None else 1

    def _row(self, pad: int, *, home: bool) -> tuple[Row, Array]:
        """The free tickets in order: grouped by key and region, sorted by what good company is near in."""
        moment = self.moment
        if home not in self.orders:
            index, group = moment.order(np.flatnonzero(self.free), home=home)
        else:  # those that are left stand as they stood
            index, group = self.orders[home]
            left = np.flatnonzero(self.free[index])
            index, group = index[left], group[left]
        self.orders[home] = index, group
        return (
            Row(
                length=len(index),
                group=padded(group, pad, -1),
                size=padded(moment.size[index], pad),
                spans=[subset(span, index, pad) for span in moment.spans],
                bits=[subset(bits, index, pad) for bits in moment.bits],
                roles=padded(moment.columns["roles"][moment.rows[index]], pad) if moment.columns.roles else None,
            ),
            index,
        )

    def _keep(self, found: Candidates, index: Array, *, select_from: bool, partial: bool) -> int:
        """Judge candidates, choose among those that share tickets, and take them; returns how many."""
        if not len(found):
            return 0
        found = Candidates(position=index[found.position], team=found.team, start=found.start)
        if self.balances and not partial and self.shape.role_rooms is None:
            rebalance(self.moment, found, self.balances[0])
        good = self.moment.obeys(found, whole=not partial)
        found = found.keep(good)
        if select_from and len(found):
            found = found.keep(np.argsort(self._score(found), kind="stable"))
            found = found.keep(select(found, len(self.moment)))
        self.free[found.position] = False
        if len(found):
            self.parts.append(found)
        return len(found)

    def _score(self, found: Candidates) -> Array:
        """Lower is better: bad company, made up for by a long wait."""
        oldest = np.maximum.reduceat(self.moment.turn_s[found.position], found.start[:-1])
        bad = 1.0 - self.moment.quality(found)
        return np.asarray(bad - _PATIENCE * oldest / _HORIZON_S)

    def _search_exactly(self, *, first: bool) -> None:
        exact = Exact(self.moment, self.shape, self.free)
        small = self.free.sum() <= _SMALL
        made, players = 0, int(self.moment.size[self.free].sum())
        long_s = min(_FAR_LONGER * self.moment.turn_s[self.free].mean(), OVERDUE_S) if first and players else 0.0
        for turn, seed in enumerate(exact.seeds(_SEEDS if small else _FIRST if first else _FEW)):
            if players < sum(self.shape.fewest) or (first and made == _FIRST):
                break  # who is not searched for is no less due the next time
            if not self.free[seed] or (first and self.moment.turn_s[seed] < long_s):
                continue
            match = exact.around(seed, thorough=small or turn < _ASK_ALL)
            if match is not None:
                made += 1
                position, team = match
                players -= int(self.moment.size[position].sum())
                self.free[position] = False
                self.parts.append(Candidates(position=position, team=team, start=np.array([0, len(position)])))


def _join(parts: list[Candidates]) -> Candidates:
    if not parts:
        return Candidates(position=np.zeros(0, np.int64), team=np.zeros(0, np.int8), start=np.zeros(1, np.int64))
    counts = np.concatenate([np.diff(part.start) for part in parts])
    return Candidates(
        position=np.concatenate([part.position for part in parts]),
        team=np.concatenate([part.team for part in parts]),
        start=np.concatenate(([0], np.cumsum(counts))),
    )


def _role_rooms(queue: QueueConfig, kinds: tuple[str, ...]) -> Array | None:
    """By team and subset of roles: the players who take no other role of whom a full team can seat so many (Hall's condition)."""
    if not kinds:
        return None
    rooms = np.zeros((len(queue.teams), 1 << len(kinds)), np.int16)
    for number, team in enumerate(queue.teams):
        places = [sum(role.players for role in team.roles if role.name == kind) for kind in kinds]
        anyone = team.players - sum(places)
        for subset_bits in range(1 << len(kinds)):
            rooms[number, subset_bits] = anyone + sum(n for bit, n in enumerate(places) if subset_bits >> bit & 1)
    return rooms
