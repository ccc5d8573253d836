"""Dealing a match's tickets into its teams: swaps that even out many matches at once, and every way there is for one. Pure."""

import functools
from collections.abc import Iterator, Sequence

import numpy as np

from matchmaker.matching.columns import Array
from matchmaker.matching.moment import Moment
from matchmaker.matching.scan import Candidates
from matchmaker.model import TeamBalanceRule

_SWAPS = 4
"""Swaps per match: each takes what helps most."""
_STEPS = 2000
"""Placings that `deals` tries."""
_MOST = 32
"""Tickets of a match up to which swaps are looked for: they are tried in pairs."""


def rebalance(moment: Moment, found: Candidates, rule: TeamBalanceRule) -> None:
    """
    Swap tickets of the same size between the strongest and the weakest team where that brings them nearer; changes `found.team`.

    A team's strength is what the rule compares: the sum or the mean of its players' numbers.
    """
    queue = moment.queue
    place = queue.rules.index(rule)
    width = int(np.diff(found.start).max())
    if width > _MOST or len(queue.teams) < 2:
        return
    match, column = found.match, np.arange(len(found.position)) - np.repeat(found.start[:-1], np.diff(found.start))
    power = np.zeros((len(found), width))
    size = np.zeros((len(found), width))
    team = np.full((len(found), width), -1)
    power[match, column] = moment.columns[f"low{place}"][moment.rows[found.position]]
    size[match, column] = moment.size[found.position]
    team[match, column] = found.team
    divisor = np.ones(len(queue.teams)) if rule.by_sum else np.array([t.players for t in queue.teams], float)
    active = np.arange(len(found))
    for _ in range(_SWAPS):
        active = active[_swap(active, power, size, team, divisor)]
        if not len(active):
            break
    found.team[:] = team[match, column]


def _swap(active: Array, power: Array, size: Array, team: Array, divisor: Array) -> Array:
    """One swap for each active match; returns which of them it helped."""
    mine, sizes, teams = power[active], size[active], team[active]
    strength = np.stack([(mine * (teams == t)).sum(axis=1) for t in range(len(divisor))], axis=1) / divisor
    strong, weak = np.argmax(strength, axis=1), np.argmin(strength, axis=1)
    each = np.arange(len(active))
    gap = strength[each, strong] - strength[each, weak]
    moved = mine[:, :, None] - mine[:, None, :]  # [match, from the strong team, from the weak team]
    after = np.abs(gap[:, None, None] - moved * (1 / divisor[strong] + 1 / divisor[weak])[:, None, None])
    legal = (teams == strong[:, None])[:, :, None] & (teams == weak[:, None])[:, None, :]
    legal &= sizes[:, :, None] == sizes[:, None, :]
    after = np.where(legal, after, np.inf).reshape(len(active), -1)
    best = np.argmin(after, axis=1)
    helps = after[each, best] < gap - 1e-9
    width = mine.shape[1]
    rows, out, back = active[helps], best[helps] // width, best[helps] % width
    team[rows, out], team[rows, back] = team[rows, back], team[rows, out]
    return np.asarray(helps)


@functools.lru_cache(maxsize=1 << 14)
def packs(sizes: tuple[int, ...], rooms: tuple[int, ...]) -> bool:
    """Whether parties of these sizes fit into the teams, full or not. Sizes in descending order."""
    return next(deals(sizes, rooms, (0,) * len(rooms)), None) is not None


def deals(sizes: Sequence[int], rooms: Sequence[int], fewest: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """The ways to deal parties of these sizes into teams, as the team of each, as far as `_STEPS` reach; of several empty teams alike one is tried."""
    return _Dealer(sizes, rooms, fewest).deal(0)


class _Dealer:
    """`deals` under way. No closure that calls itself: that would be garbage for the collector, thousands of times a second."""

    def __init__(self, sizes: Sequence[int], rooms: Sequence[int], fewest: Sequence[int]) -> None:
        self._sizes = sizes
        self._rooms = rooms
        self._fewest = fewest
        self._left = list(rooms)
        self._dealt = [0] * len(sizes)
        self._order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
        self._steps = 0

    def deal(self, at: int) -> Iterator[tuple[int, ...]]:
        """Deal the parties from this place in the order on."""
        self._steps += 1
        if self._steps > _STEPS:
            return
        rooms, left = self._rooms, self._left
        if at == len(self._order):
            if all(room - rest >= least for room, rest, least in zip(rooms, left, self._fewest, strict=True)):
                yield tuple(self._dealt)
            return
        seen = set()
        party = self._order[at]
        size = self._sizes[party]
        for team in sorted(range(len(left)), key=lambda t: (-left[t], t)):
            alike = (rooms[team], self._fewest[team]) if left[team] == rooms[team] else team
            if left[team] < size or alike in seen:
                continue
            seen.add(alike)
            left[team] -= size
            self._dealt[party] = team
            yield from self.deal(at + 1)
            left[team] += size
