"""
Many greedy searches in lock step: the vectorised heart of matching.

Tickets stand in a row, sorted so that good company is near. At every `stride`-th place an anchor opens a match and looks along the next `width`
tickets, one after the other, taking each that fits what it has: a team has room, every pairwise rule is obeyed. One numpy operation does one step of
all anchors at once, so that a ticket costs some nanoseconds a step whatever the rules are. Anchors know nothing of each other: either each has its own
stretch of the row and makes one match after the other of it (`again`), which is fast; or their stretches overlap and each makes one, of which `select`
picks, best first, those that share no ticket, which finds better ones.
"""

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_CHUNK = 8192
"""Anchors that go in lock step: their state stays in the processor's cache."""
_COMPRESS_EVERY = 6
"""Steps after which anchors that are done are left behind,"""
_COMPRESS_BELOW = 0.5
"""if no more than this share of them would go on."""
_AWAY = 1e301
"""Further than any number, also one that is absent."""


@dataclass(slots=True, kw_only=True)
class SpanColumn:
    """max(high) - min(low) of a match stays within the limit: the strictest of its tickets', or the loosest."""

    low: Array
    high: Array
    limit: Array
    loosest: bool = False


@dataclass(slots=True, kw_only=True)
class BitsColumn:
    """A match's tickets have so many bits in common; with `apart` none."""

    bits: Array
    needs: Array | None = None
    """None: one."""
    apart: bool = False


@dataclass(slots=True, kw_only=True)
class Row:
    """The tickets in order, `length` of them; every array has width + 2 × stride more entries at its end, whose group is -1."""

    length: int
    group: Array
    """Tickets of different groups are not looked at together."""
    size: Array
    spans: list[SpanColumn] = field(default_factory=list)
    bits: list[BitsColumn] = field(default_factory=list)
    roles: Array | None = None
    """[ticket, subset of roles]"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a match looks like."""

    rooms: tuple[int, ...]
    """Players of each full team."""
    fewest: tuple[int, ...]
    role_rooms: Array | None = None
    """[team, subset of roles]: players that take only roles of the subset, of whom the full team can seat so many."""


@dataclass(slots=True, kw_only=True)
class Candidates:
    """Matches found, as sparse rows: `position[start[i]:start[i+1]]` are the places in the row of match i's tickets, in the order taken."""

    position: Array
    team: Array
    start: Array

    def __len__(self) -> int:
        return len(self.start) - 1

    @property
    def match(self) -> Array:
        """The match of each entry."""
        return np.repeat(np.arange(len(self)), np.diff(self.start))

    def keep(self, which: Array) -> "Candidates":
        """Those at these indices (or of this mask), in this order."""
        index = np.flatnonzero(which) if which.dtype == bool else which
        counts = np.diff(self.start)[index]
        start = np.concatenate(([0], np.cumsum(counts)))
        entries = np.repeat(self.start[index] - start[:-1], counts) + np.arange(start[-1])
        return Candidates(position=self.position[entries], team=self.team[entries], start=start)


def scan(
    row: Row,
    shape: Shape,
    *,
    stride: int,
    width: int,
    offset: int = 0,
    again: bool,
    partial: bool = False,
    spread: bool = False,
) -> Candidates:
    """
    Find candidate matches from every `stride`-th ticket on.

    Args:
        width: tickets that each anchor looks at, itself the first.
        offset: where the first anchor stands; the tickets before it are not looked at.
        again: an anchor whose match is complete opens the next one; with stride = width no ticket is in two candidates then.
        partial: teams that have reached their fewest will do.
        spread: tickets go to the team with the most room, instead of the one with the least that takes them.
    """
    parts = []
    for begin in range(offset, row.length, _CHUNK * stride):
        anchors = np.arange(begin, min(begin + _CHUNK * stride, row.length), stride)
        parts.append(_lockstep(row, shape, anchors, stride, width, again=again, partial=partial, spread=spread))
    if not parts:
        return Candidates(position=np.zeros(0, np.int64), team=np.zeros(0, np.int8), start=np.zeros(1, np.int64))
    position = np.concatenate([part[0] for part in parts])
    team = np.concatenate([part[1] for part in parts])
    counts = np.concatenate([part[2] for part in parts])
    return Candidates(position=position, team=team, start=np.concatenate(([0], np.cumsum(counts))))


class _Ahead:
    """The tickets that a chunk's anchors come to, step by step, laid out so that one step of all anchors is one stretch of memory."""

    def __init__(self, row: Row, begin: int, count: int, stride: int, width: int) -> None:
        columns = [row.group, row.size]
        for span in row.spans:
            columns += [span.low, span.high, span.limit] if span.high is not span.low else [span.low, span.limit]
        for bits in row.bits:
            columns += [bits.bits] if bits.needs is None else [bits.bits, bits.needs]
        if row.roles is not None:
            columns.append(row.roles)
        self._stride = stride
        end = begin + (count + width // stride + 1) * stride
        self._phases = [
            np.ascontiguousarray(np.swapaxes(c[begin:end].reshape(-1, stride, *c.shape[1:]), 0, 1)) for c in columns
        ]

    def at(self, step: int, which: Array | slice) -> list[Array]:
        """Group, size, then the columns of each span, of each set, and the roles. `which`: of the chunk's anchors."""
        first, phase = divmod(step, self._stride)
        if isinstance(which, slice):
            return [column[phase, first : first + which.stop] for column in self._phases]
        at = which + first
        return [column[phase][at] for column in self._phases]


class _State:
    """What the anchors have gathered so far."""

    def __init__(self, row: Row, shape: Shape, anchors: Array) -> None:
        count = len(anchors)
        self.row = row
        self.shape = shape
        self.id: Array | slice = slice(0, count)
        """Which of the chunk's anchors are left."""
        self.group = row.group[anchors]
        self.serial: Array = np.zeros(count, np.int16)
        self.left = np.full(count, sum(shape.rooms), np.int16)
        """Players still wanted."""
        self.rooms = [np.full(count, room, np.int16) for room in shape.rooms]
        self.rooms_left = np.zeros((len(shape.rooms), count), np.int16)
        """Of anchors left behind."""
        self.spans: list[list[Array]] = [[np.zeros(count) for _ in range(3)] for _ in row.spans]
        self.bits: list[list[Array]] = [[np.zeros(count, each.bits.dtype), np.zeros(count)] for each in row.bits]
        self.roles = [np.zeros((count, row.roles.shape[1]), np.int16) for _ in shape.rooms if row.roles is not None]
        self.empty: list[Any] = [*shape.rooms, sum(shape.rooms)]
        for span in row.spans:
            self.empty += [np.inf, -np.inf, -np.inf if span.loosest else np.inf]
        for bits in row.bits:
            word = bits.bits.dtype.type
            self.empty += [word(0) if bits.apart else ~word(0), -np.inf]
        self.empty += [0 for _ in self.roles]
        self.reset(slice(None))
        self.serial[:] = 0

    def arrays(self) -> list[Array]:
        """All that belongs to a match, in the order of `empty`."""
        nested = [array for arrays in (*self.spans, *self.bits) for array in arrays]
        return [*self.rooms, self.left, *nested, *self.roles]

    def reset(self, which: Any) -> None:
        """Open the next match."""
        for array, empty in zip(self.arrays(), self.empty, strict=True):
            array[which] = empty
        self.serial[which] += 1

    def follow(self, group: Array) -> None:
        """Open a new match where the row comes to another group: what was gathered of the last one is left."""
        moved = np.flatnonzero(group != self.group)
        if len(moved):
            self.reset(moved)
            self.group[moved] = group[moved]

    def compress(self, keep: Array) -> None:
        """Leave anchors behind, with the room that they have left."""
        self.rooms_left[:, self.id] = self.rooms
        self.id = keep if isinstance(self.id, slice) else self.id[keep]
        self.group, self.serial = self.group[keep], self.serial[keep]
        self.rooms, self.left = [room[keep] for room in self.rooms], self.left[keep]
        self.spans = [[array[keep] for array in span] for span in self.spans]
        self.bits = [[array[keep] for array in bits] for bits in self.bits]
        self.roles = [array[keep] for array in self.roles]


def _lockstep(
    row: Row, shape: Shape, anchors: Array, stride: int, width: int, *, again: bool, partial: bool, spread: bool
) -> tuple[Array, Array, Array]:
    """One chunk of `scan`: positions and teams of the tickets taken, match after match, and how many each match has."""
    state = _State(row, shape, anchors)
    taken = np.zeros((width, len(anchors)), np.int8)  # 1 + the team
    serial = np.zeros((width if again else 0, len(anchors)), np.int16)  # which of the anchor's matches
    ahead = _Ahead(row, int(anchors[0]), len(anchors), stride, width)
    for step in range(width):
        if step and step % _COMPRESS_EVERY == 0 and not again:
            still = np.flatnonzero(state.left)
            if not len(still):
                break
            if len(still) < _COMPRESS_BELOW * len(state.left):
                state.compress(still)
        group, size, *rest = ahead.at(step, state.id)
        if again:
            state.follow(group)
            serial[step] = state.serial
        fits = _fits(state, rest, group == state.group)
        team = _team(state, size, rest[-1] if state.roles else size, fits, spread=spread)
        if not fits.any():
            continue
        taken[step, state.id] = team
        _take(state, rest, ~fits)
        if again and len(done := np.flatnonzero(state.left == 0)):
            state.reset(done)
    state.compress(np.zeros(0, np.int64))
    if again:
        return _cut(taken, serial, row, shape, anchors)
    allowed = np.array(shape.rooms)[:, None] - np.array(shape.fewest)[:, None] if partial else 0
    complete = np.flatnonzero((state.rooms_left <= allowed).all(axis=0))
    match, step_of, team = _entries(taken[:, complete])
    return anchors[complete][match] + step_of, team, np.bincount(match, minlength=len(complete))


def _entries(taken: Array) -> tuple[Array, Array, Array]:
    """Anchor, step and team of what was taken, anchor by anchor."""
    steps, found = len(taken), taken.T.ravel()
    at = np.flatnonzero(found > 0)  # of truth values, which is far faster than of numbers in two dimensions
    anchor = at // max(1, steps)
    return anchor, at - anchor * steps, found[at] - np.int8(1)


def _cut(taken: Array, serial: Array, row: Row, shape: Shape, anchors: Array) -> tuple[Array, Array, Array]:
    """The full matches of anchors that made several."""
    anchor, step_of, team = _entries(taken)
    if not len(anchor):
        return np.zeros(0, np.int64), np.zeros(0, np.int8), np.zeros(0, np.int64)
    position = anchors[anchor] + step_of
    label = anchor * np.int64(serial.shape[0] + 1) + serial[step_of, anchor]
    start = np.flatnonzero(np.concatenate(([True], label[1:] != label[:-1])))
    full = np.add.reduceat(row.size[position], start, dtype=np.int64) == sum(shape.rooms)
    counts = np.diff(np.concatenate((start, [len(label)])))
    keep = np.repeat(full, counts)
    return position[keep], team[keep], counts[full]


# Nothing below selects by a mask: a masked copy of some thousand numbers takes twenty times as long as their minimum. Where a ticket does not fit, what
# is added moves its number so far away that a minimum or maximum passes it by.


def _fits(state: _State, ticket: list[Array], fits: Array) -> Array:
    """Which anchors' tickets obey the pairwise rules."""
    columns = iter(ticket)
    for column, (low, high, limit) in zip(state.row.spans, state.spans, strict=True):
        theirs = next(columns)
        reach = np.maximum(high, theirs if column.high is column.low else next(columns))
        reach -= np.minimum(low, theirs)
        fits &= reach <= (np.maximum if column.loosest else np.minimum)(limit, next(columns))
    for kind, (bits, needs) in zip(state.row.bits, state.bits, strict=True):
        common = bits & next(columns)
        if kind.apart:
            fits &= common == 0
        elif kind.needs is None:
            fits &= common != 0
        else:
            fits &= np.bitwise_count(common) >= np.maximum(needs, next(columns))
    return fits


def _take(state: _State, ticket: list[Array], unfit: Array) -> None:
    """Add the tickets to what their anchors have gathered, but for the unfit ones."""
    columns = iter(ticket)
    away = unfit * _AWAY
    for column, (low, high, limit) in zip(state.row.spans, state.spans, strict=True):
        theirs = next(columns)
        np.minimum(low, theirs + away, out=low)
        np.maximum(high, (theirs if column.high is column.low else next(columns)) - away, out=high)
        if column.loosest:
            np.maximum(limit, next(columns) - away, out=limit)
        else:
            np.minimum(limit, next(columns) + away, out=limit)
    for kind, (bits, needs) in zip(state.row.bits, state.bits, strict=True):
        theirs = next(columns)
        every = np.negative(unfit.astype(bits.dtype))  # all bits where unfit
        if kind.apart:
            bits |= theirs & ~every
        else:
            bits &= theirs | every
        if kind.needs is not None:
            np.maximum(needs, next(columns) - away, out=needs)


def _team(state: _State, size: Array, roles: Array, fits: Array, *, spread: bool) -> Array:
    """1 + the team that takes each anchor's ticket, which is noted; 0 where none does, which is taken from `fits`."""
    gaps = [room - size for room in state.rooms]
    if state.roles:
        assert state.shape.role_rooms is not None
        for gap, seated, places in zip(gaps, state.roles, state.shape.role_rooms, strict=True):
            gap[(seated + roles > places).any(axis=1)] = -1
    nearest = [gap.view(np.uint16) for gap in gaps]  # those below 0 are the largest
    best = functools.reduce(np.maximum, gaps) if spread else functools.reduce(np.minimum, nearest).view(np.int16)
    fits &= best >= 0
    team = np.zeros(len(size), np.int8)
    free = fits.copy()
    for index, (room, gap) in enumerate(zip(state.rooms, gaps, strict=True)):
        mine = (gap == best) & free
        free ^= mine
        team += mine.view(np.int8) * np.int8(index + 1)
        room -= mine * size
        if state.roles:
            state.roles[index] += mine[:, None] * roles
    state.left -= fits * size
    return team


def select(candidates: Candidates, length: int, *, rounds: int = 8) -> Array:
    """
    Choose candidates that share no ticket, each of them better than every one that it shares a ticket with (but for those that lost themselves).

    Args:
        candidates: best first.
        length: of the row.
        rounds: what is undecided after so many is left out.
    Returns: a mask.
    """
    chosen = np.zeros(len(candidates), bool)
    taken = np.zeros(length, bool)
    owner = np.empty(length, np.int64)
    active, left = candidates, np.arange(len(candidates))
    for _ in range(rounds):
        if not len(left):
            break
        match = active.match
        owner[active.position[::-1]] = match[::-1]  # the best one writes last
        wins = np.logical_and.reduceat(owner[active.position] == match, active.start[:-1])
        chosen[left[wins]] = True
        taken[active.position[wins[match]]] = True
        loses = np.logical_or.reduceat(taken[active.position], active.start[:-1])
        active, left = active.keep(~loses), left[~loses]
    return chosen
