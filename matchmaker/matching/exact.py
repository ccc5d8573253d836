"""
The exact search for one ticket: does any match hold it? Bounded, so that a cycle is.

Its possible companions (each obeys every pairwise rule with it) are weighed against each other once, as bits of Python's integers; a depth-first
search then adds the nearest first, and asks the judge about ways to deal a full set. A ticket that has too few companions is known at once to have none.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from matchmaker.matching.columns import Array
from matchmaker.matching.deal import deals, packs
from matchmaker.matching.moment import Moment
from matchmaker.matching.rules import check, strangers
from matchmaker.matching.scan import Shape

_NEAREST = 1024
"""Tickets that a search that is not thorough asks whether they are companions."""
_COMPANIONS = 64
"""Companions that a search weighs: the nearest."""
_NODES = 400
"""Steps of one search: sets of tickets that it looks at, full or not."""
_NODES_PER_CYCLE = 2500
_DEALS = 24
"""Ways to deal one set that are judged."""


@dataclass(frozen=True, slots=True)
class _Company:
    """The companions of one search, nearest first; sets of them are bits of integers."""

    ids: list[int]
    sizes: list[int]
    meets: list[int]
    """For each, those that may meet it."""
    of_size: dict[int, int]


class Exact:
    """Exact searches among the tickets of a moment that are still free."""

    def __init__(self, moment: Moment, shape: Shape, free: Array) -> None:
        self._moment = moment
        self._shape = shape
        self._free = free
        self._left = _NODES_PER_CYCLE
        self._steps = 0

    def seeds(self, count: int) -> list[int]:
        """The free tickets whose turn it is: who waited long and was searched for seldom."""
        moment = self._moment
        free = np.flatnonzero(self._free)
        if not len(free) or (moment.size[free]).sum() < sum(self._shape.fewest):
            return []
        tries = moment.columns["tries"][moment.rows[free]]
        due = (np.maximum(moment.turn_s[free], 0.0) + 0.1) / (1.0 + tries)
        if len(free) > count:
            first = np.argpartition(-due, count - 1)[:count]
            free, due = free[first], due[first]
        return [int(seed) for seed in free[np.lexsort((moment.tie[free], -due))]]

    def around(self, seed: int, *, thorough: bool) -> tuple[Array, Array] | None:
        """
        A match that holds the seed, as (tickets, teams); None when none is found. Notes that it was searched for.

        `thorough`: ask everyone whether they would be company.
        """
        self._moment.columns["tries"][self._moment.rows[seed]] += 1
        companions = self._companions(seed, thorough=thorough)
        sizes = self._moment.size
        if sizes[seed] + sizes[companions].sum() < sum(self._shape.fewest):
            return None
        companions = self._nearest(seed, companions)
        self._steps = min(_NODES, self._left)
        self._left -= self._steps
        for chosen in self._sets(seed, companions):
            found = self._dealt(chosen)
            if found is not None:
                break
        else:
            found = None
        self._left += max(0, self._steps)
        return found

    def _companions(self, seed: int, *, thorough: bool) -> Array:
        """The free tickets that could be in one match with the seed, as far as the two of them tell."""
        moment = self._moment
        near = np.flatnonzero(self._free & (moment.key == moment.key[seed]))
        if not thorough:
            near = self._nearest(seed, near, _NEAREST)
        near = near[near != seed]
        return np.asarray(near[self._pairs(np.array([seed]), near)[0]])

    def _nearest(self, seed: int, others: Array, count: int = _COMPANIONS) -> Array:
        """So many of some tickets that are nearest to the seed in what good company is near in, in that order; of equals those who have waited longest."""
        distance = np.abs(self._moment.value[others] - self._moment.value[seed])
        if len(others) > 2 * count:
            within = np.flatnonzero(distance <= np.partition(distance, count)[count])
            others, distance = others[within], distance[within]
        return np.asarray(others[np.lexsort((self._moment.tie[others], distance))][:count])

    def _pairs(self, some: Array, others: Array) -> Array:
        """[one, other]: whether two tickets of the same key may meet, by the rules about pairs."""
        moment = self._moment
        a, b = some[:, None], others[None, :]
        fit = moment.size[a] + moment.size[b] <= sum(self._shape.rooms)
        for span in moment.spans:
            limit = (np.maximum if span.loosest else np.minimum)(span.limit[a], span.limit[b])
            reach = np.maximum(span.high[a], span.high[b]) - np.minimum(span.low[a], span.low[b])
            fit &= reach <= limit
        for bits in moment.bits:
            common = bits.bits[a] & bits.bits[b]
            if bits.apart:
                fit &= common == 0
            elif bits.needs is None:
                fit &= common != 0
            else:
                fit &= np.bitwise_count(common) >= np.maximum(bits.needs[a], bits.needs[b])
        shy = fit & (moment.strangers[a] | moment.strangers[b])
        for i, j in np.argwhere(shy).tolist():
            pair = moment.tickets([int(some[i]), int(others[j])])
            fit[i, j] = not strangers(moment.queue, pair, moment.now_s)
        return np.asarray(fit)

    def _sets(self, seed: int, companions: Array) -> Iterator[list[int]]:
        """Sets with the seed of which every two may meet that fill the teams, those of the nearest first."""
        fits = self._pairs(companions, companions) if len(companions) else np.zeros((0, 0), bool)
        masks = [int.from_bytes(np.packbits(line, bitorder="little").tobytes(), "little") for line in fits]
        sizes = [int(size) for size in self._moment.size[companions]]
        of_size = {size: sum(1 << i for i, other in enumerate(sizes) if other == size) for size in set(sizes)}
        company = _Company([int(ticket) for ticket in companions], sizes, masks, of_size)
        return self._grow(company, [seed], (int(self._moment.size[seed]),), (1 << len(sizes)) - 1)

    def _grow(
        self, company: _Company, chosen: list[int], parties: tuple[int, ...], allowed: int
    ) -> Iterator[list[int]]:
        """The sets that are `chosen` and some of those `allowed`."""
        self._steps -= 1
        players, most = sum(parties), sum(self._shape.rooms)
        if players == most:
            yield list(chosen)
            return
        while allowed and self._steps > 0:
            low = allowed & -allowed
            place = low.bit_length() - 1
            allowed ^= low
            size = company.sizes[place]
            more = tuple(sorted((*parties, size), reverse=True))
            if players + size > most or not packs(more, self._shape.rooms):
                allowed &= ~company.of_size[size]
            else:
                chosen.append(company.ids[place])
                yield from self._grow(company, chosen, more, allowed & company.meets[place])
                chosen.pop()
        if players >= sum(self._shape.fewest):
            yield list(chosen)

    def _dealt(self, chosen: Sequence[int]) -> tuple[Array, Array] | None:
        moment, index = self._moment, np.array(chosen)
        sizes = [int(size) for size in moment.size[index]]
        for teams in itertools.islice(deals(sizes, self._shape.rooms, self._shape.fewest), _DEALS):
            team = np.array(teams, np.int8)
            if not check(moment.queue, moment.teams(index, team), moment.now_s):
                return index, team
        return None
