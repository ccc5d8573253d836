"""
Interest management: which rows of a large world a client is shown.

A game says for a table how far its players see (`Interest`) and where each of them is (`Game.viewpoint`). Space is cut into square cells as wide as that
radius; a client is shown the rows of its own cell and of the eight around it: everything within the radius, and nothing farther than twice its
diagonal. Clients in one cell are shown the same rows, so they share bytes. On the wire rows that leave a client's area are `removed` and those that
enter it are `added`: clients need to know nothing of this. Pure.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gameserver.protocol.messages import SharedSnapshot
from gameserver.protocol.schema import Schema, SchemaError
from gameserver.protocol.snapshot import Rows, SnapshotHistory, World, encode_delta, encode_full

Area = tuple[tuple[int, int], ...]
"""The cell of a viewpoint for each table with an interest, in the schema's order: two clients with equal areas are shown the same."""


Grid = list[NDArray[np.int64] | None]
"""For each table the cells of its rows, 2 × rows; None where everyone sees everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interest:
    """How far players see the rows of one table."""

    radius: float
    """In the units of the position fields; rows within it are always shown."""
    x: str = "x"
    y: str = "y"
    """The table's position fields."""


class Areas:
    """The interests of one game."""

    def __init__(self, schema: Schema, interests: Mapping[str, Interest]) -> None:
        """Raises SchemaError for a table or field that is not there, or a radius that is no positive number."""
        for name, interest in interests.items():
            table = schema.tables.get(name)
            if table is None:
                raise SchemaError(f"interest in a table {name!r} that the schema lacks")
            if not (math.isfinite(interest.radius) and interest.radius > 0):
                raise SchemaError(f"interest in {name}: radius {interest.radius}, a positive number is wanted")
            for field in (interest.x, interest.y):
                if field not in table.types:
                    raise SchemaError(f"interest in {name}: there is no field {field!r}")
        self._interests = [(name, interests.get(name)) for name in schema.tables]

    def at(self, x: float, y: float) -> Area:
        """
        The area that is shown to someone at a point.

        Raises: SchemaError for a point that is none.
        """
        if not (math.isfinite(x) and math.isfinite(y)):
            raise SchemaError(f"a viewpoint at {x}, {y}")
        return tuple(
            (math.floor(x / interest.radius), math.floor(y / interest.radius))
            for _, interest in self._interests
            if interest is not None
        )

    def grid(self, world: World) -> Grid:
        """The cell of every row, once for a world: 2 × rows for each table with an interest."""
        cells: Grid = []
        for name, interest in self._interests:
            if interest is None:
                cells.append(None)
                continue
            values = world.values(name)
            at = np.stack((values[interest.x], values[interest.y])) / interest.radius
            cells.append(np.floor(np.nan_to_num(at)).astype(np.int64))
        return cells

    def view(self, world: World, grid: Grid, area: Area) -> World:
        """The rows of `world` within an area."""
        tables, cells = [], iter(area)
        for rows, places in zip(world.tables, grid, strict=True):
            if places is None:
                tables.append(rows)
                continue
            x, y = next(cells)
            near = (np.abs(places[0] - x) <= 1) & (np.abs(places[1] - y) <= 1)
            tables.append(Rows(rows.ids[near], tuple(column[near] for column in rows.columns)))
        return World(world.schema, tuple(tables))


class Views:
    """What areas of a room's recent worlds hold, and the newest one's bytes, each made once for all who share it."""

    def __init__(self, areas: Areas, history: SnapshotHistory) -> None:
        """`history` is the room's own; this follows it."""
        self.areas = areas
        self._history = history
        self._tick = 0
        self._grid: Grid | None = None
        """Of the newest world; made when someone sees less than all of it."""
        self._views: dict[int, dict[Area | None, World]] = {}
        """Views that were sent, by tick: the baselines of later ones."""
        self._shared: dict[tuple[int, Area | None, Area | None], SharedSnapshot] = {}

    def snapshot(self, baseline: int, area_then: Area | None, area: Area | None) -> SharedSnapshot:
        """
        The newest world within `area` (None: all of it), against what a client holds.

        Args:
            baseline: the tick that the client has acknowledged, 0 for none.
            area_then: the area that it was sent then.
        Returns: all of it, on baseline 0, where the wanted one is gone.
        """
        self._follow()
        then = self._views.get(baseline, {}).get(area_then) if baseline != self._tick else None
        key = baseline if then is not None else 0, area_then if then is not None else None, area
        shared = self._shared.get(key)
        if shared is None:
            now = self._view(area)
            body = encode_delta(now, then) if then is not None else encode_full(now)
            shared = self._shared[key] = SharedSnapshot(self._tick, key[0], body)
        return shared

    def _follow(self) -> None:
        history = self._history
        if history.tick != self._tick:
            self._tick, self._grid = history.tick, None
            self._shared.clear()
            for tick in [tick for tick in self._views if tick < history.oldest]:
                del self._views[tick]

    def _view(self, area: Area | None) -> World:
        views = self._views.setdefault(self._tick, {})
        view = views.get(area)
        if view is None:
            world = self._history.world(self._tick)
            assert world is not None
            if area is not None and self._grid is None:
                self._grid = self.areas.grid(world)
            view = views[area] = (
                world if area is None or self._grid is None else self.areas.view(world, self._grid, area)
            )
        return view
