"""
The rules of the herd: players are dogs who drive a flock into its pen before the time is up, all of them against the sheep.

It stands beside the arena to keep `Game` honest: nobody fights, the match has one result for all, most of what clients see is nobody's (hundreds of sheep
against a few dogs), rows are not seats, whoever comes late just helps, and a lost player leaves nothing behind. Sheep keep together, apart and
in step (Reynolds' boids, 1987), and run from dogs.
"""

import io
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gameserver.game import Columns, Game, Player, RoomContext
from gameserver.protocol.schema import Bool, Fields, Float, Schema, Table, UInt

WIDTH, HEIGHT = 60.0, 40.0
PEN = (50.0, 20.0, 6.5)
"""Middle and radius of where the sheep belong."""
DOG_SPEED = 8.0
"""Units a second; sheep are slower, or there would be no herding them."""
SHEEP_SPEED = 5.0
GRAZING_SPEED = 0.5
FEAR = 7.0
"""Distance at which a sheep minds a dog."""
BARK_FEAR = 12.0
BARK_S = 0.6
BARK_PAUSE_S = 2.0
SHEEP = 120
MAX_SHEEP = 400
"""Sheep mind each other in pairs: their cost grows with the square of their number."""
DURATION_S = 180.0

Points = NDArray[np.float64]
"""Shape (n, 2)."""


class Herd(Game):
    """One match. Options: `sheep` (1 to 400), `duration_s`."""

    schema: ClassVar[Schema] = Schema(
        sheep=Table(x=Float(0, 63.75, 1 / 1024), y=Float(0, 63.75, 1 / 1024), home=Bool(), afraid=Bool()),
        dogs=Table(x=Float(0, 63.75, 1 / 1024), y=Float(0, 63.75, 1 / 1024), barking=Bool()),
        match=Table(left_s=UInt(16), home=UInt(16)),
    )
    inputs: ClassVar[Fields] = Fields(move_x=Float(-1, 1, 1 / 127), move_y=Float(-1, 1, 1 / 127), bark=Bool())

    def __init__(self, room: RoomContext) -> None:
        super().__init__(room)
        count = _number(room.options.get("sheep", ""), SHEEP, 1, MAX_SHEEP)
        duration_s = _number(room.options.get("duration_s", ""), DURATION_S, 1, 36_000)
        self._ticks_left = round(duration_s * room.tick_rate_hz)
        self._dogs: dict[int, Player] = {}
        self._dog_at = np.tile((PEN[0] - 10.0, PEN[1]), (room.seats, 1))
        self._dog_way = np.zeros((room.seats, 2))
        self._bark_s = np.full(room.seats, -BARK_PAUSE_S)
        """More than 0: barks for so long; down to the pause below 0 it has no voice."""
        rng = room.rng
        places = [(rng.uniform(3, WIDTH * 0.55), rng.uniform(3, HEIGHT - 3)) for _ in range(int(count))]
        self._at: Points = np.array(places)
        self._by: Points = np.zeros_like(self._at)
        self._phase = np.array([rng.uniform(0, 2 * math.pi) for _ in places])
        self._home = np.zeros(len(places), bool)
        self._afraid = np.zeros(len(places), bool)

    def info(self) -> Mapping[str, Any]:
        """The field, and how the playground draws it."""
        return {
            "width": WIDTH,
            "height": HEIGHT,
            "pen": list(PEN),
            "playground": {
                "title": "Bring the flock home",
                "width": WIDTH,
                "height": HEIGHT,
                "ground": "#5f8f4e",
                "shapes": [{"circle": list(PEN), "fill": "#86a95f", "stroke": "#f1e3c4"}],
                "tables": {
                    "sheep": {
                        "radius": 0.45,
                        "label": False,
                        "colour": "#f7f3ea",
                        "when": {"afraid": "#ffd1c4", "home": "#fffbe0"},
                    },
                    "dogs": {"radius": 0.75, "label": True, "seats": True, "ring": "barking"},
                },
                "totals": {"left_s": "seconds left", "home": f"of {len(self._at)} home"},
            },
        }

    def join(self, player: Player) -> None:
        """A dog comes, at the pen."""
        self._dogs[player.seat] = player
        self.room.event("joined", seat=player.seat, player=player.id)

    def leave(self, player: Player) -> None:
        """A dog goes; the sheep stay where they are."""
        self._dogs.pop(player.seat, None)
        self._dog_way[player.seat] = 0.0
        self.room.event("left", seat=player.seat, player=player.id)

    def input(self, player: Player, data: Mapping[str, Any]) -> None:
        """Run and bark; the newest of a tick counts."""
        way = np.array((data["move_x"], data["move_y"]))
        self._dog_way[player.seat] = way / max(1.0, float(np.linalg.norm(way)))
        if data["bark"] and self._bark_s[player.seat] <= -BARK_PAUSE_S:
            self._bark_s[player.seat] = BARK_S

    def step(self, dt_s: float) -> None:
        """Dogs run, sheep run from them, and who is in the pen stays there."""
        self._dog_at += self._dog_way * (DOG_SPEED * dt_s)
        np.clip(self._dog_at, 0.7, (WIDTH - 0.7, HEIGHT - 0.7), out=self._dog_at)
        self._bark_s = np.maximum(self._bark_s - dt_s, -BARK_PAUSE_S)
        self._move_sheep(dt_s)
        arrived = ~self._home & (np.linalg.norm(self._at - PEN[:2], axis=1) < PEN[2] - 0.8)
        self._home |= arrived
        if arrived.any():
            self.room.event("home", count=int(np.count_nonzero(self._home)))
        self._ticks_left -= 1
        if self._home.all() or self._ticks_left <= 0:
            self._finish()

    def snapshot(self) -> Mapping[str, Columns]:
        """Sheep, dogs, and how it stands."""
        dogs = np.array(sorted(self._dogs), np.int64)
        return {
            "sheep": {
                "id": np.arange(len(self._at)),
                "x": self._at[:, 0],
                "y": self._at[:, 1],
                "home": self._home,
                "afraid": self._afraid,
            },
            "dogs": {
                "id": dogs,
                "x": self._dog_at[dogs, 0],
                "y": self._dog_at[dogs, 1],
                "barking": self._bark_s[dogs] > 0,
            },
            "match": {
                "id": [0],
                "left_s": [math.ceil(max(self._ticks_left, 0) / self.room.tick_rate_hz)],
                "home": [np.count_nonzero(self._home)],
            },
        }

    def save(self) -> bytes:
        """Every array as numpy writes it."""
        out = io.BytesIO()
        np.savez(out, ticks_left=np.array(self._ticks_left), **{name: getattr(self, f"_{name}") for name in _SAVED})
        return out.getvalue()

    def restore(self, state: bytes) -> None:
        """Take up a saved state."""
        with np.load(io.BytesIO(state), allow_pickle=False) as saved:
            self._ticks_left = int(saved["ticks_left"])
            for name in _SAVED:
                setattr(self, f"_{name}", saved[name])

    def _move_sheep(self, dt_s: float) -> None:
        wish = self._graze() + self._flock() + self._flee()
        # Who is home stays there, whatever it fears.
        inwards = np.array(PEN[:2]) - self._at
        far = np.linalg.norm(inwards, axis=1) > PEN[2] - 1.2
        wish[self._home] = np.where(far[self._home, None], inwards[self._home] * 0.4, wish[self._home] * 0.15)
        self._by += (wish - self._by) * min(1.0, 4.0 * dt_s)
        speed = np.linalg.norm(self._by, axis=1, keepdims=True)
        self._by *= np.minimum(1.0, SHEEP_SPEED / np.maximum(speed, 1e-9))
        self._at += self._by * dt_s
        np.clip(self._at, 0.5, (WIDTH - 0.5, HEIGHT - 0.5), out=self._at)

    def _graze(self) -> Points:
        """Amble about; each its own way, the same for the same tick."""
        angle = self._phase + 2.0 * np.sin(self.room.tick / (4.0 * self.room.tick_rate_hz) + 3.0 * self._phase)
        return np.stack((GRAZING_SPEED * np.cos(angle), GRAZING_SPEED * np.sin(angle)), axis=1)

    def _flock(self) -> Points:
        """Keep together, apart and in step with those around; the frightened most of all."""
        x, y = self._at.T
        distance = np.hypot(x - x[:, None], y - y[:, None])
        near = ((distance < 5.0) & (distance > 0) & ~self._home).astype(float)
        count = near.sum(axis=1, keepdims=True)
        some = np.maximum(count, 1.0)
        together = (near @ self._at - count * self._at) / some
        in_step = near @ self._by / some - self._by
        push = near * (distance < 1.1) / np.maximum(distance, 0.05) ** 2
        away = push.sum(axis=1, keepdims=True) * self._at - push @ self._at
        eager = np.where(self._afraid, 0.55, 0.12)[:, None]
        wish: Points = eager * together + 0.5 * in_step + 0.8 * away
        return wish

    def _flee(self) -> Points:
        """Run from the dogs that are near; a bark carries further."""
        seats = np.array(sorted(self._dogs), np.int64)
        if not len(seats):
            self._afraid[:] = False
            return np.zeros_like(self._at)
        apart = self._at[:, None] - self._dog_at[seats][None]
        distance = np.maximum(np.linalg.norm(apart, axis=2), 0.1)
        reach = np.where(self._bark_s[seats] > 0, BARK_FEAR, FEAR)
        fear = np.clip(1.0 - distance / reach, 0.0, 1.0)
        self._afraid = (fear > 0).any(axis=1) & ~self._home
        run: Points = (apart / distance[..., None] * fear[..., None]).sum(axis=1)
        return run * (1.6 * SHEEP_SPEED)

    def _finish(self) -> None:
        home, left_s = int(np.count_nonzero(self._home)), max(0, self._ticks_left) // self.room.tick_rate_hz
        won = home == len(self._home)
        self.room.event("over", won=won, home=home, of=len(self._home), left_s=left_s)
        self.room.end(
            won=won, home=home, of=len(self._home), left_s=left_s, dogs=sorted(p.id for p in self._dogs.values())
        )


_SAVED = ("dog_at", "dog_way", "bark_s", "at", "by", "phase", "home", "afraid")


def _number(text: str, default: float, least: float, most: float) -> float:
    """An option as a number; anything senseless is the default."""
    try:
        value = float(text)
    except ValueError:
        return default
    return value if least <= value <= most else default
