"""
Workload A's game: everyone moves on both axes, everyone sees everyone. `colyseus.mjs` is the same game for the other side.

Fields, ranges and rules are the same on both sides: a position of two numbers in 16 bits and a score. A player's newest input is its direction; it keeps
moving with it, and bounces off the walls.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gameserver.game import Columns, Game, Player, RoomContext
from gameserver.protocol.schema import Fields, Float, Int, Schema, Table, UInt

WORLD = 65535 / 64
"""Edge of the square world: 16 bits in steps of 1/64."""
SPEED = 15.0 / 127
"""Units a second, for each step of an input's axis."""


class Swarm(Game):
    """Points on a plane."""

    schema: ClassVar[Schema] = Schema(
        players=Table(x=Float(0, WORLD, 1 / 64), y=Float(0, WORLD, 1 / 64), score=UInt(16))
    )
    inputs: ClassVar[Fields] = Fields(dx=Int(8), dy=Int(8))

    def __init__(self, room: RoomContext) -> None:
        super().__init__(room)
        self._at = np.zeros((room.seats, 2))
        self._way = np.zeros((room.seats, 2))
        self._score = np.zeros(room.seats, np.int64)
        self._seats = np.zeros(0, np.int64)

    def join(self, player: Player) -> None:
        """Put the player somewhere."""
        rng = self.room.rng
        self._at[player.seat] = rng.uniform(0, WORLD), rng.uniform(0, WORLD)
        self._way[player.seat] = 0
        self._seats = np.union1d(self._seats, [player.seat])

    def leave(self, player: Player) -> None:
        """Take it away."""
        self._seats = np.setdiff1d(self._seats, [player.seat])

    def input(self, player: Player, data: Mapping[str, Any]) -> None:
        """Turn."""
        self._way[player.seat] = data["dx"], data["dy"]

    def inputs_of(self, players: Sequence[Player], data: Mapping[str, NDArray[Any]]) -> None:
        """Turn everyone at once."""
        seats = [player.seat for player in players]
        self._way[seats, 0], self._way[seats, 1] = data["dx"], data["dy"]

    def step(self, dt_s: float) -> None:
        """Move, and bounce."""
        self._at += self._way * (SPEED * dt_s)
        out = (self._at < 0) | (self._at > WORLD)
        if out.any():
            np.clip(self._at, 0, WORLD, out=self._at)
            self._way[out] *= -1

    def snapshot(self) -> Mapping[str, Columns]:
        """Everyone."""
        seats = self._seats
        at = self._at[seats]
        return {"players": {"id": seats, "x": at[:, 0], "y": at[:, 1], "score": self._score[seats]}}

    def save(self) -> bytes:
        """Positions; nobody resumes a benchmark."""
        return self._at.tobytes()

    def restore(self, state: bytes) -> None:
        """Take up positions."""
        self._at = np.frombuffer(state).reshape(-1, 2).copy()
