"""
Interpolation: the world shown a little in the past, between two snapshots that are there.

How far in the past follows from the jitter that was measured: the buffer holds what nearly all snapshots were late by, and no more. The shown time runs
evenly and bends towards its target slowly, so that a late snapshot never shows as a jerk. Pure: times are arguments. `js/interpolation.js`
does the same for browsers.
"""

import math
from collections import deque
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gameserver.protocol.snapshot import World

_WINDOW = 90
"""Snapshots whose lateness is remembered; about 3 s at 30 Hz."""
_IN_TIME = 0.95
"""The share of snapshots that must be there in time."""
_MAX_BEND = 0.1
"""The shown time runs up to this much faster or slower while it approaches its target."""
_JUMP_S = 0.5
"""Further than this off its target, the shown time jumps there."""
_MAX_DELAY_S = 0.5
_CLOCK_SET_S = 1.0
"""Neighbouring snapshots whose lateness differs by more were timed by a clock that was set in between, or a path that stood still."""


class Interpolation:
    """The worlds of one connection, and the time at which they are shown."""

    def __init__(self, tick_rate_hz: int, *, angles: Collection[str] = (), teleport: float = math.inf) -> None:
        """
        Begin with no worlds.

        Args:
            angles: fields that are angles in radians: they turn the short way.
            teleport: a row of which any other field changes by more between two snapshots jumps (a respawn).
        """
        self._interval_s = 1.0 / tick_rate_hz
        self._angles = frozenset(angles)
        self._teleport = teleport
        self._worlds: deque[tuple[int, World]] = deque(maxlen=_WINDOW)
        self._transits: deque[float] = deque(maxlen=_WINDOW)
        """Arrival less the tick's own time, of the recent snapshots."""
        self._fastest = 0.0
        self._shown_at_s: float | None = None
        self.shown_tick = 0.0
        self.delay_s = self._interval_s
        """How far in the past the world is shown."""
        self.jitter_s = 0.0
        """The lateness that 95 % of the snapshots stay below."""

    def push(self, tick: int, world: World, now_s: float) -> None:
        """Take a snapshot's world; one that is older than the newest is passed over."""
        if self._worlds and tick <= self._worlds[-1][0]:
            return
        self._worlds.append((tick, world))
        transit = now_s - tick * self._interval_s
        if self._transits and abs(transit - self._transits[-1]) > _CLOCK_SET_S:
            self._transits.clear()
        self._transits.append(transit)
        ordered = sorted(self._transits)
        self._fastest = ordered[0]
        self.jitter_s = ordered[math.ceil(len(ordered) * _IN_TIME) - 1] - ordered[0]
        self.delay_s = min(self._interval_s + self.jitter_s, _MAX_DELAY_S)

    def advance(self, now_s: float) -> float:
        """Move the shown time on to `now_s` and return it, as a tick with its fraction; 0 before the first snapshot."""
        if not self._worlds:
            return 0.0
        target = (now_s - self._fastest - self.delay_s) / self._interval_s
        elapsed = 0.0 if self._shown_at_s is None else (now_s - self._shown_at_s) / self._interval_s
        off = target - (self.shown_tick + elapsed)
        if self._shown_at_s is None or elapsed < 0 or abs(off) * self._interval_s > _JUMP_S:
            self.shown_tick = target
        else:
            self.shown_tick += elapsed + max(-_MAX_BEND * elapsed, min(_MAX_BEND * elapsed, off))
        self._shown_at_s = now_s
        while len(self._worlds) > 2 and self._worlds[1][0] <= self.shown_tick:
            self._worlds.popleft()
        return self.shown_tick

    def values(self, table: str) -> dict[str, NDArray[Any]]:
        """
        One table at the shown time: `id` and the columns, as `World.values`; empty before the first snapshot.

        Floats lie between the two snapshots around that time, all else is as of the earlier one.
        """
        if not self._worlds:
            return {}
        tick, world = self._worlds[0]
        before = world.values(table)
        if len(self._worlds) == 1 or self.shown_tick <= tick:
            return before
        next_tick, next_world = self._worlds[1]
        fraction = (self.shown_tick - tick) / (next_tick - tick)
        after = next_world.values(table)
        return after if fraction >= 1 else self._between(before, after, fraction)

    def _between(
        self, before: dict[str, NDArray[Any]], after: dict[str, NDArray[Any]], fraction: float
    ) -> dict[str, NDArray[Any]]:
        shown = {name: column.copy() for name, column in before.items()}
        _, here, there = np.intersect1d(before["id"], after["id"], assume_unique=True, return_indices=True)
        floats = [name for name, column in before.items() if column.dtype.kind == "f"]
        change = {name: after[name][there] - before[name][here] for name in floats}
        jumps = np.zeros(len(here), bool)
        for name in floats:
            if name in self._angles:
                change[name] -= 2 * np.pi * np.round(change[name] / (2 * np.pi))
            else:
                jumps |= np.abs(change[name]) > self._teleport
        for name in floats:
            shown[name][here] = before[name][here] + change[name] * fraction
        for name, column in after.items():
            shown[name][here[jumps]] = column[there[jumps]]
        return shown
