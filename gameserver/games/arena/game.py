"""
The rules of the arena: move, aim, shoot, score, respawn, until the time is up.

State is kept in numpy columns with one row per seat, so that a crowd costs little more than a duel. A player moves one step per input, and
earns one step per tick: sending more inputs makes nobody faster.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gameserver.game import Columns, Game, Player, RoomContext
from gameserver.games.arena.maps import MAPS, PLAYER_RADIUS, YARD, Map
from gameserver.protocol.schema import Bool, Fields, Float, Int, Schema, Table, UInt

SPEED = 7.0
"""Units a second."""
BULLET_SPEED = 20.0
BULLET_LIFE_S = 1.2
BULLET_DAMAGE = 20
COOLDOWN_S = 0.22
HEALTH = 100
RESPAWN_S = 2.5
STEPS_SAVED = 4
"""Steps that a player may save up: what a short stall of its connection held back."""
DURATION_S = 120.0
_LARGEST = 64.0
"""Fields of the schema reach this far, whatever the map."""


class Arena(Game):
    """One match. Options: `map` (yard, duel), `duration_s`."""

    schema: ClassVar[Schema] = Schema(
        players=Table(
            x=Float(0, _LARGEST, 1 / 512),
            y=Float(0, _LARGEST, 1 / 512),
            aim=Float(-math.pi, math.pi, math.pi / 127),
            health=UInt(8),
            score=Int(16),
            deaths=UInt(16),
            alive=Bool(),
        ),
        bullets=Table(x=Float(0, _LARGEST, 1 / 512), y=Float(0, _LARGEST, 1 / 512), owner=UInt(16)),
        match=Table(left_s=UInt(16)),
    )
    inputs: ClassVar[Fields] = Fields(
        move_x=Float(-1, 1, 1 / 127),
        move_y=Float(-1, 1, 1 / 127),
        aim=Float(-math.pi, math.pi, math.pi / 127),
        fire=Bool(),
    )

    def __init__(self, room: RoomContext) -> None:
        super().__init__(room)
        self.map: Map = MAPS.get(room.options.get("map", ""), YARD)
        self._ticks_left = round(_seconds(room.options.get("duration_s", "")) * room.tick_rate_hz)
        seats = room.seats
        self._players: dict[int, Player] = {}
        self._at = np.zeros((seats, 2))
        self._aim = np.zeros(seats)
        self._health = np.zeros(seats, np.int64)
        self._score = np.zeros(seats, np.int64)
        self._deaths = np.zeros(seats, np.int64)
        self._cooldown_s = np.zeros(seats)
        self._respawn_s = np.zeros(seats)
        self._steps = np.full(seats, STEPS_SAVED)
        self._known: set[int] = set()
        """Seats that have a state: taken now, or left by a player who may come back."""
        self._moves: list[dict[int, tuple[float, float]]] = []
        """Moves of this tick: the first of each seat, then the second of each, and so on."""
        self._firing = np.zeros(seats, bool)
        self._bullet_at = np.zeros((0, 2))
        self._bullet_by = np.zeros((0, 2))
        self._bullet_life_s = np.zeros(0)
        self._bullet_owner = np.zeros(0, np.int64)
        self._bullet_id = np.zeros(0, np.int64)
        self._next_bullet = 0

    def info(self) -> Mapping[str, Any]:
        """Map, constants for prediction, and who is there."""
        return {
            "map": self.map.describe(),
            "speed": SPEED,
            "radius": PLAYER_RADIUS,
            "health": HEALTH,
            "players": [{"seat": p.seat, "player": p.id, "team": p.team} for p in self._players.values()],
        }

    def join(self, player: Player) -> None:
        """Take a seat; whoever comes back finds its score."""
        self._players[player.seat] = player
        if player.seat not in self._known:
            self._known.add(player.seat)
            self._spawn(player.seat)
        self.room.event("joined", seat=player.seat, player=player.id, team=player.team)

    def leave(self, player: Player) -> None:
        """Leave the field; the score stays."""
        self._players.pop(player.seat, None)
        self.room.event("left", seat=player.seat, player=player.id)

    def input(self, player: Player, data: Mapping[str, Any]) -> None:
        """Aim and fire at once; the move is made in `step`, in rounds with everyone else's."""
        seat = player.seat
        self._aim[seat] = data["aim"]
        self._firing[seat] |= data["fire"]
        if self._steps[seat] > 0 and self._health[seat] > 0:
            self._steps[seat] -= 1
            for moves in self._moves:
                if seat not in moves:
                    break
            else:
                self._moves.append(moves := {})
            moves[seat] = (data["move_x"], data["move_y"])

    def step(self, dt_s: float) -> None:
        """Move players, shoot, move bullets, count hits, respawn, and end when the time is up."""
        self._move_players(dt_s)
        self._shoot(dt_s)
        self._move_bullets(dt_s)
        dead = self._health <= 0
        self._respawn_s[dead] -= dt_s
        for seat in np.flatnonzero(dead & (self._respawn_s <= 0)):
            if int(seat) in self._players:
                self._spawn(int(seat))
        self._ticks_left -= 1
        if self._ticks_left <= 0:
            self._finish()

    def snapshot(self) -> Mapping[str, Columns]:
        """What everyone sees."""
        seats = np.array(sorted(self._players), np.int64)
        health = np.maximum(self._health[seats], 0)
        return {
            "players": {
                "id": seats,
                "x": self._at[seats, 0],
                "y": self._at[seats, 1],
                "aim": self._aim[seats],
                "health": health,
                "score": self._score[seats],
                "deaths": self._deaths[seats],
                "alive": health > 0,
            },
            "bullets": {
                "id": self._bullet_id,
                "x": self._bullet_at[:, 0],
                "y": self._bullet_at[:, 1],
                "owner": self._bullet_owner,
            },
            "match": {"id": [0], "left_s": [math.ceil(self._ticks_left / self.room.tick_rate_hz)]},
        }

    def save(self) -> bytes:
        """Every player's state and every bullet, as JSON."""
        state = {
            "ticks_left": self._ticks_left,
            "next_bullet": self._next_bullet,
            "rng": self.room.rng.getstate(),
            "known": sorted(self._known),
            **{name: getattr(self, f"_{name}").tolist() for name in _COLUMNS},
        }
        return json.dumps(state, separators=(",", ":")).encode()

    def restore(self, state: bytes) -> None:
        """Take up a saved state."""
        saved = json.loads(state)
        self._ticks_left = saved["ticks_left"]
        self._next_bullet = saved["next_bullet"]
        version, words, gauss = saved["rng"]
        self.room.rng.setstate((version, tuple(words), gauss))
        self._known = set(saved["known"])
        for name in _COLUMNS:
            column = getattr(self, f"_{name}")
            setattr(self, f"_{name}", np.array(saved[name], column.dtype).reshape(-1, *column.shape[1:]))

    def _spawn(self, seat: int) -> None:
        """Put a player where it is farthest from the living, of a few random places."""
        rng, margin = self.room.rng, 2 * PLAYER_RADIUS
        places = np.array(
            [[rng.uniform(1, self.map.width - 1), rng.uniform(1, self.map.height - 1)] for _ in range(24)]
        )
        places = places[~self.map.blocked(places, margin)]
        others = self._at[[s for s in self._players if s != seat and self._health[s] > 0]]
        if not len(places):
            places = np.array([[1.0, 1.0]])
        if len(others):
            distance = np.linalg.norm(places[:, None] - others[None], axis=2).min(axis=1)
            places = places[np.argsort(distance)]
        self._at[seat] = places[-1]
        self._health[seat] = HEALTH
        self._steps[seat] = STEPS_SAVED
        self._cooldown_s[seat] = 0.0

    def _move_players(self, dt_s: float) -> None:
        for moves in self._moves:
            seats, way = np.array(list(moves)), np.array(list(moves.values()))
            length = np.linalg.norm(way, axis=1, keepdims=True)
            step = way / np.maximum(length, 1.0) * (SPEED * dt_s)
            self._at[seats] = self.map.move(self._at[seats], step)
        self._moves = []
        np.minimum(self._steps + 1, STEPS_SAVED, out=self._steps)

    def _shoot(self, dt_s: float) -> None:
        self._cooldown_s -= dt_s
        seated = np.zeros(len(self._health), bool)
        seated[list(self._players)] = True
        shooters = np.flatnonzero(self._firing & seated & (self._health > 0) & (self._cooldown_s <= 0))
        self._firing[:] = False
        if not len(shooters):
            return
        self._cooldown_s[shooters] = COOLDOWN_S
        way = np.stack((np.cos(self._aim[shooters]), np.sin(self._aim[shooters])), axis=1)
        ids = (self._next_bullet + np.arange(len(shooters))) % 65536
        self._next_bullet = int(self._next_bullet + len(shooters)) % 65536
        self._bullet_at = np.concatenate((self._bullet_at, self._at[shooters] + way * PLAYER_RADIUS))
        self._bullet_by = np.concatenate((self._bullet_by, way * BULLET_SPEED))
        self._bullet_life_s = np.concatenate((self._bullet_life_s, np.full(len(shooters), BULLET_LIFE_S)))
        self._bullet_owner = np.concatenate((self._bullet_owner, shooters))
        self._bullet_id = np.concatenate((self._bullet_id, ids))

    def _move_bullets(self, dt_s: float) -> None:
        if not len(self._bullet_id):
            return
        before = self._bullet_at
        self._bullet_at = before + self._bullet_by * dt_s
        self._bullet_life_s = self._bullet_life_s - dt_s
        spent = self.map.blocked(self._bullet_at) | (self._bullet_life_s <= 0)
        spent |= self._hits(before)
        keep = ~spent
        for name in ("_bullet_at", "_bullet_by", "_bullet_life_s", "_bullet_owner", "_bullet_id"):
            setattr(self, name, getattr(self, name)[keep])

    def _hits(self, before: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Count hits along each bullet's way of this tick; returns which bullets hit."""
        hit = np.zeros(len(before), bool)
        targets = np.array([seat for seat in self._players if self._health[seat] > 0], np.int64)
        if not len(targets):
            return hit
        way = self._bullet_at - before
        length2 = np.maximum((way**2).sum(axis=1), 1e-9)
        apart = self._at[targets][None] - before[:, None]
        along = np.clip((apart * way[:, None]).sum(axis=2) / length2[:, None], 0, 1)
        distance = np.linalg.norm(apart - along[..., None] * way[:, None], axis=2)
        foes = targets[None] != self._bullet_owner[:, None]
        teams = {seat: player.team for seat, player in self._players.items()}
        for bullet in np.flatnonzero(((distance < PLAYER_RADIUS) & foes).any(axis=1)):
            owner = int(self._bullet_owner[bullet])
            for index in np.argsort(along[bullet], kind="stable"):
                seat = int(targets[index])
                near = distance[bullet, index] < PLAYER_RADIUS and foes[bullet, index] and self._health[seat] > 0
                if near and not self._same_team(teams, owner, seat):
                    hit[bullet] = True
                    self._damage(seat, owner)
                    break
        return hit

    @staticmethod
    def _same_team(teams: Mapping[int, str], one: int, other: int) -> bool:
        return bool(teams.get(one)) and teams.get(one) == teams.get(other)

    def _damage(self, seat: int, by: int) -> None:
        self._health[seat] -= BULLET_DAMAGE
        x, y = (round(float(value), 2) for value in self._at[seat])
        if self._health[seat] > 0:
            self.room.event("hit", of=seat, by=by, x=x, y=y)
            return
        self._respawn_s[seat] = RESPAWN_S
        self._deaths[seat] += 1
        self._score[by] += 1
        self.room.event("kill", of=seat, by=by, x=x, y=y)

    def _finish(self) -> None:
        scores = {player.id: int(self._score[seat]) for seat, player in self._players.items()}
        best = max(scores.values(), default=0)
        winners = sorted(player for player, score in scores.items() if score == best)
        self.room.event("over", scores=scores, winners=winners)
        self.room.end(scores=scores, winners=winners)


_COLUMNS = (
    "at", "aim", "health", "score", "deaths", "cooldown_s", "respawn_s", "steps",
    "bullet_at", "bullet_by", "bullet_life_s", "bullet_owner", "bullet_id",
)  # fmt: skip


def _seconds(text: str) -> float:
    """The match's length from its options; anything but a sensible number is the default."""
    try:
        value = float(text)
    except ValueError:
        return DURATION_S
    return value if 1 <= value <= 36_000 else DURATION_S
