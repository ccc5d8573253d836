"""Maps of the arena: a field and its walls, and moving about among them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

PLAYER_RADIUS = 0.5

Points = NDArray[np.float64]
"""Shape (n, 2): x to the right, y down, in units of the map."""


@dataclass(frozen=True)
class Map:
    """A field from (0, 0) to (width, height); walls are (left, top, right, bottom)."""

    name: str
    width: float
    height: float
    walls: tuple[tuple[float, float, float, float], ...]
    crowd: bool = False
    """Whether there are too many players to tell each of them of all the others."""

    def describe(self) -> dict[str, Any]:
        """For the browser: it draws the walls and predicts with them."""
        return {
            "name": self.name,
            "width": self.width,
            "height": self.height,
            "walls": [list(wall) for wall in self.walls],
        }

    def move(self, points: Points, step: Points) -> Points:
        """
        Move players (shape (n, 2)) by `step`, sliding along walls: first in x, then in y.

        The browser's prediction does the same in the same order (web/slide.js); change both.
        """
        x = np.clip(points[:, 0] + step[:, 0], PLAYER_RADIUS, self.width - PLAYER_RADIUS)
        y = points[:, 1].copy()
        self._slide(x, y, step[:, 0], along=0)
        y = np.clip(y + step[:, 1], PLAYER_RADIUS, self.height - PLAYER_RADIUS)
        self._slide(y, x, step[:, 1], along=1)
        return np.stack((x, y), axis=1)

    def _slide(
        self, moved: NDArray[np.float64], other: NDArray[np.float64], step: NDArray[np.float64], *, along: int
    ) -> None:
        """Bring what moved into a wall back to its face, in place, wall by wall in their order."""
        low, high, from_, to = self._faces[along]
        rows = np.arange(len(moved))
        walls = np.full(len(moved), -1)
        while True:
            # The first wall, after the one before, that each is in: as in a loop over the walls, for everyone at once.
            at, across = moved[rows, None], other[rows, None]
            inside = (across > from_) & (across < to) & (at > low) & (at < high) & (self._numbers > walls[:, None])
            some = inside.any(axis=1)
            if not some.any():
                return
            rows, walls = rows[some], inside[some].argmax(axis=1)
            moved[rows] = np.where(step[rows] > 0, low[walls], high[walls])

    @cached_property
    def _numbers(self) -> NDArray[np.int64]:
        return np.arange(len(self.walls))

    @cached_property
    def _faces(self) -> tuple[tuple[NDArray[np.float64], ...], tuple[NDArray[np.float64], ...]]:
        """Where a player's middle cannot be, as columns of all walls: (left, right, top, bottom), and the same with the axes changed."""
        left, top, right, bottom = np.array(self.walls, float).reshape(-1, 4).T
        r = PLAYER_RADIUS
        return (left - r, right + r, top - r, bottom + r), (top - r, bottom + r, left - r, right + r)

    def blocked(self, points: Points, margin: float = 0.0) -> NDArray[np.bool_]:
        """Which points (shape (n, 2)) are in a wall or outside the field, with a margin around walls."""
        x, y = points[:, 0, None], points[:, 1, None]
        left, right, top, bottom = self._sides
        out = (points[:, 0] < 0) | (points[:, 1] < 0) | (points[:, 0] > self.width) | (points[:, 1] > self.height)
        walls = (x > left - margin) & (x < right + margin) & (y > top - margin) & (y < bottom + margin)
        return np.asarray(out | walls.any(axis=1))

    @cached_property
    def _sides(self) -> tuple[NDArray[np.float64], ...]:
        left, top, right, bottom = np.array(self.walls, float).reshape(-1, 4).T
        return left, right, top, bottom


def _blocks(across: int, down: int, apart: float) -> tuple[tuple[float, float, float, float], ...]:
    """A town: blocks in rows, every other one lying, so that no street is seen along its whole length."""
    walls = []
    for row in range(down):
        for column in range(across):
            x, y = (column + 0.5 + 0.25 * (row % 2)) * apart, (row + 0.5) * apart
            wide, high = (5.0, 1.5) if (row + column) % 2 else (1.5, 5.0)
            walls.append((x - wide, y - high, x + wide, y + high))
    return tuple(walls)


YARD = Map(
    "yard",
    40.0,
    24.0,
    (
        (8, 5, 12, 6.5), (28, 5, 32, 6.5), (8, 17.5, 12, 19), (28, 17.5, 32, 19),
        (18.5, 9, 21.5, 15), (5, 10.5, 6.5, 13.5), (33.5, 10.5, 35, 13.5),
        (14, 2, 15.5, 5), (24.5, 19, 26, 22), (24.5, 2, 26, 5), (14, 19, 15.5, 22),
    ),
)  # fmt: skip
DUEL = Map("duel", 26.0, 16.0, ((6, 4, 8, 7), (18, 9, 20, 12), (11.5, 6, 14.5, 10), (18, 3, 21, 4.5), (5, 11.5, 8, 13)))
CROWD = Map("crowd", 240.0, 240.0, _blocks(9, 9, 26.0), crowd=True)
"""Room for some four hundred: about as much for each as in the yard with eight."""
MAPS = {map_.name: map_ for map_ in (YARD, DUEL, CROWD)}
