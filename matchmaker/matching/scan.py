"""
Many greedy searches in lock step: the vectorised heart of matching.

Tickets stand in a row, sorted so that good company is near. At every `stride`-th place an anchor opens a match and looks along the next `width`
tickets, one after the other, taking each that fits what it has: a team has room, every pairwise rule is obeyed. One numpy operation does one step of
all anchors at once, so that a ticket costs some nanoseconds a step whatever the rules are. Anchors know nothing of each other: either each has its own
stretch of the row and makes one match after the other of it (`again`), which is fast; or their stretches overlap and each makes one, of which `select`
picks, best first, those that share no ticket, which finds better ones.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_CHUNK = 8192
"""Anchors that go in lock step: their state stays in the processor's cache."""
_COMPRESS_EVERY = 6
"""Steps after which anchors that are done are left behind."""


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
    """The tickets in order, `length` of them; every array has `width` more entries at its end, whose group is -1."""

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
        parts.append(_lockstep(row, shape, anchors, width, again=again, partial=partial, spread=spread))
    if not parts:
        return Candidates(position=np.zeros(0, np.int64), team=np.zeros(0, np.int8), start=np.zeros(1, np.int64))
    position = np.concatenate([part[0] for part in parts])
    team = np.concatenate([part[1] for part in parts])
    counts = np.concatenate([part[2] for part in parts])
    return Candidates(position=position, team=team, start=np.concatenate(([0], np.cumsum(counts))))


class _Ahead:
    """The tickets that anchors come to, step by step: of stretches without overlap laid out at once, else fetched one step at a time."""

    def __init__(self, row: Row, anchors: Array, width: int, *, whole: bool) -> None:
        columns = [row.group, row.size]
        for span in row.spans:
            columns += [span.low, span.high, span.limit] if span.high is not span.low else [span.low, span.limit]
        for bits in row.bits:
            columns += [bits.bits] if bits.needs is None else [bits.bits, bits.needs]
        self._columns = [*columns, row.roles] if row.roles is not None else columns
        self.laid_out: list[Array] | None = None
        if whole:
            at = anchors[None, :] + np.arange(width)[:, None]
            self.laid_out = [column[at] for column in self._columns]

    def at(self, place: Array, step: int) -> list[Array]:
        """Group, size, then the columns of each span, of each set, and the roles."""
        if self.laid_out is not None:
            return [column[step] for column in self.laid_out]
        at = place + step
        return [column[at] for column in self._columns]


class _State:
    """What the anchors have gathered so far."""

    def __init__(self, row: Row, shape: Shape, anchors: Array) -> None:
        count = len(anchors)
        self.row = row
        self.shape = shape
        self.id: Array = np.arange(count)
        self.place = anchors
        self.group = row.group[anchors]
        self.serial: Array = np.zeros(count, np.int16)
        self.left = np.full(count, sum(shape.rooms), np.int16)
        """Players still wanted."""
        self.rooms = [np.full(count, room, np.int16) for room in shape.rooms]
        self.rooms_left = np.zeros((len(shape.rooms), count), np.int16)
        """Of anchors left behind."""
        self.spans: list[list[Array]] = [[np.zeros(count) for _ in range(3)] for _ in row.spans]
        self.bits: list[list[Array]] = [[np.zeros(count, np.uint64), np.zeros(count)] for _ in row.bits]
        self.roles = [np.zeros((count, row.roles.shape[1]), np.int16) for _ in shape.rooms if row.roles is not None]
        self.empty: list[Any] = [*shape.rooms, sum(shape.rooms)]
        for span in row.spans:
            self.empty += [np.inf, -np.inf, -np.inf if span.loosest else np.inf]
        for bits in row.bits:
            self.empty += [np.uint64(0) if bits.apart else ~np.uint64(0), -np.inf]
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
        moved = group != self.group
        if moved.any():
            self.reset(moved)
            self.group = np.where(moved, group, self.group)

    def compress(self, keep: Array) -> None:
        """Leave anchors behind, with the room that they have left."""
        self.rooms_left[:, self.id] = self.rooms
        self.id, self.place, self.group, self.serial = (a[keep] for a in (self.id, self.place, self.group, self.serial))
        self.rooms, self.left = [room[keep] for room in self.rooms], self.left[keep]
        self.spans = [[array[keep] for array in span] for span in self.spans]
        self.bits = [[array[keep] for array in bits] for bits in self.bits]
        self.roles = [array[keep] for array in self.roles]


def _lockstep(
    row: Row, shape: Shape, anchors: Array, width: int, *, again: bool, partial: bool, spread: bool
) -> tuple[Array, Array, Array]:
    """One chunk of `scan`: positions and teams of the tickets taken, match after match, and how many each match has."""
    state = _State(row, shape, anchors)
    taken = np.zeros((width, len(anchors)), np.int8)  # 1 + the team
    serial = np.zeros((width if again else 0, len(anchors)), np.int16)  # which of the anchor's matches
    ahead = _Ahead(row, anchors, width, whole=again)
    for step in range(width):
        if step and step % _COMPRESS_EVERY == 0 and not again:
            still = state.left > 0
            if not still.any():
                break
            if still.mean() < 0.7:
                state.compress(still)
        group, size, *rest = ahead.at(state.place, step)
        if again:
            state.follow(group)
            serial[step] = state.serial
        fits, changes = _fits(state, rest, group == state.group)
        team = _team(state, size, rest[-1] if state.roles else size, fits, spread=spread)
        fits = team > 0
        if not fits.any():
            continue
        taken[step, state.id] = team
        for target, value in changes:
            np.copyto(target, value, where=fits)
        if again and (done := state.left == 0).any():
            state.reset(done)
    state.compress(np.zeros(0, np.int64))
    if again:
        return _cut(taken, serial, row, shape, anchors)
    allowed = np.array(shape.rooms)[:, None] - np.array(shape.fewest)[:, None] if partial else 0
    complete = np.flatnonzero((state.rooms_left <= allowed).all(axis=0))
    found = np.ascontiguousarray(taken[:, complete].T)
    match, step_of = np.nonzero(found)
    counts = np.bincount(match, minlength=len(complete))
    return anchors[complete][match] + step_of, found[match, step_of] - np.int8(1), counts


def _cut(taken: Array, serial: Array, row: Row, shape: Shape, anchors: Array) -> tuple[Array, Array, Array]:
    """The full matches of anchors that made several."""
    found = np.ascontiguousarray(taken.T)
    anchor, step_of = np.nonzero(found)
    if not len(anchor):
        return np.zeros(0, np.int64), np.zeros(0, np.int8), np.zeros(0, np.int64)
    position = anchors[anchor] + step_of
    label = anchor * np.int64(serial.shape[0] + 1) + serial[step_of, anchor]
    start = np.flatnonzero(np.concatenate(([True], label[1:] != label[:-1])))
    full = np.add.reduceat(row.size[position], start, dtype=np.int64) == sum(shape.rooms)
    counts = np.diff(np.concatenate((start, [len(label)])))
    keep = np.repeat(full, counts)
    return position[keep], found[anchor, step_of][keep] - np.int8(1), counts[full]


def _fits(state: _State, ticket: list[Array], fits: Array) -> tuple[Array, list[tuple[Array, Array]]]:
    """Which anchors' tickets obey the pairwise rules, and what becomes of the state where they are taken."""
    changes: list[tuple[Array, Array]] = []
    columns = iter(ticket)
    for column, (low, high, limit) in zip(state.row.spans, state.spans, strict=True):
        theirs = next(columns)
        lower = np.minimum(low, theirs)
        higher = np.maximum(high, theirs if column.high is column.low else next(columns))
        strictest = (np.maximum if column.loosest else np.minimum)(limit, next(columns))
        fits &= higher - lower <= strictest
        changes += [(low, lower), (high, higher), (limit, strictest)]
    for kind, (bits, needs) in zip(state.row.bits, state.bits, strict=True):
        theirs = next(columns)
        if kind.apart:
            fits &= bits & theirs == 0
            changes.append((bits, bits | theirs))
            continue
        common = bits & theirs
        changes.append((bits, common))
        if kind.needs is None:
            fits &= common != 0
        else:
            most = np.maximum(needs, next(columns))
            fits &= np.bitwise_count(common) >= most
            changes.append((needs, most))
    return fits, changes


def _team(state: _State, size: Array, roles: Array, fits: Array, *, spread: bool) -> Array:
    """1 + the team that takes each anchor's ticket, which is noted; 0 where none does."""
    team = np.zeros(len(size), np.int8)
    best = np.full(len(size), -1 if spread else np.iinfo(np.int16).max, np.int16)
    for index, room in enumerate(state.rooms):
        takes = (room >= size) & ((room > best) if spread else (room < best))
        takes &= fits
        if state.roles:
            assert state.shape.role_rooms is not None
            takes &= (state.roles[index] + roles <= state.shape.role_rooms[index]).all(axis=1)
        np.copyto(best, room, where=takes)
        np.copyto(team, np.int8(index + 1), where=takes)
    np.subtract(state.left, size, out=state.left, where=team > 0)
    for index, room in enumerate(state.rooms):
        mine = team == index + 1
        np.subtract(room, size, out=room, where=mine)
        if state.roles:
            state.roles[index][mine] += roles[mine]
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
