"""Maps of the arena: a field and its walls, and moving about among them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PLAYER_RADIUS = 0.5

Points = NDArray[np.float64]
"""Shape (n, 2): x to the right, y down, in units of the map."""


@dataclass(frozen=True, slots=True)
class Map:
    """A field from (0, 0) to (width, height); walls are (left, top, right, bottom)."""

    name: str
    width: float
    height: float
    walls: tuple[tuple[float, float, float, float], ...]

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
        y = points[:, 1]
        for left, top, right, bottom in self._grown():
            inside = (y > top) & (y < bottom) & (x > left) & (x < right)
            x = np.where(inside, np.where(step[:, 0] > 0, left, right), x)
        y = np.clip(y + step[:, 1], PLAYER_RADIUS, self.height - PLAYER_RADIUS)
        for left, top, right, bottom in self._grown():
            inside = (y > top) & (y < bottom) & (x > left) & (x < right)
            y = np.where(inside, np.where(step[:, 1] > 0, top, bottom), y)
        return np.stack((x, y), axis=1)

    def blocked(self, points: Points, margin: float = 0.0) -> NDArray[np.bool_]:
        """Which points (shape (n, 2)) are in a wall or outside the field, with a margin around walls."""
        x, y = points[:, 0], points[:, 1]
        out = (x < 0) | (y < 0) | (x > self.width) | (y > self.height)
        for left, top, right, bottom in self.walls:
            out |= (x > left - margin) & (x < right + margin) & (y > top - margin) & (y < bottom + margin)
        return out

    def _grown(self) -> tuple[tuple[float, float, float, float], ...]:
        r = PLAYER_RADIUS
        return tuple((left - r, top - r, right + r, bottom + r) for left, top, right, bottom in self.walls)


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
MAPS = {map_.name: map_ for map_ in (YARD, DUEL)}
