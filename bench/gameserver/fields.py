"""A thousand things on a plane among a few players: the same game with and without interest management."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from bench.gameserver.swarm import SPEED, WORLD, Swarm
from gameserver.game import Columns, Player, RoomContext
from gameserver.protocol.interest import Interest
from gameserver.protocol.schema import Float, Schema, Table, UInt

THINGS = 1000
SIGHT = WORLD / 16
"""A client is sent three squares of this side each way: 3.5 % of the plane."""


class Whole(Swarm):
    """Everyone sees all of it."""

    schema: ClassVar[Schema] = Schema(
        players=Table(x=Float(0, WORLD, 1 / 64), y=Float(0, WORLD, 1 / 64), score=UInt(16)),
        things=Table(x=Float(0, WORLD, 1 / 64), y=Float(0, WORLD, 1 / 64), kind=UInt(8)),
    )

    def __init__(self, room: RoomContext) -> None:
        super().__init__(room)
        rng = np.random.default_rng(1)
        self._things = rng.uniform(0, WORLD, (THINGS, 2))
        self._paths = rng.uniform(-127, 127, (THINGS, 2))
        self._kinds = rng.integers(0, 9, THINGS)

    def step(self, dt_s: float) -> None:
        """Move players and things, and bounce."""
        super().step(dt_s)
        self._things += self._paths * (SPEED * dt_s)
        self._paths[(self._things < 0) | (self._things > WORLD)] *= -1
        np.clip(self._things, 0, WORLD, out=self._things)

    def snapshot(self) -> Mapping[str, Columns]:
        """Players and things."""
        x, y = self._things.T
        return {**super().snapshot(), "things": {"id": np.arange(THINGS), "x": x, "y": y, "kind": self._kinds}}


class Near(Whole):
    """Everyone sees what is near."""

    interest: ClassVar[Mapping[str, Any]] = {"players": Interest(radius=SIGHT), "things": Interest(radius=SIGHT)}

    def viewpoint(self, player: Player) -> tuple[float, float] | None:
        """Where the player is."""
        x, y = self._at[player.seat].tolist()
        return x, y
