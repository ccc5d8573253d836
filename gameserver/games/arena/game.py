"""
The rules of the arena: move, aim, shoot, score, respawn, until the time is up.

State is kept in numpy columns with one row per seat, so that a crowd costs little more than a duel. A player moves one step per input, and
earns one step per tick: sending more inputs makes nobody faster.

Shots hit where they were aimed: a bullet flies its first moments through the time that its shooter was behind, past the others from where it saw
them to where they are now (`_fly`). After that it is where everyone sees it, and can be dodged.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gameserver.game import Columns, Game, Player, RoomContext
from gameserver.games.arena.maps import MAPS, PLAYER_RADIUS, YARD, Map
from gameserver.protocol.interest import Interest
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
MAX_LAG_S = 0.2
"""How much of its flight a bullet may make up for what its shooter saw late; a slower connection aims ahead for the rest."""
SIGHT = 48.0
"""How far players of a crowd are sure to see: as far as the page shows at its smallest scale on a wide screen, and farther than a bullet flies."""
_LARGEST = 255.0
"""Fields of the schema reach this far, whatever the map: 16 bits at 1/256."""
_PATH = np.linspace(0, 1, 9)[1:]
"""Where along the way that it makes up for a bullet looks for walls; half a unit apart at most."""
_SCORES_TOLD = 32
_TOLD_AT_ONCE = 200
"""Players in one event, whose names may be long."""
_CELL = 6.0
"""Side of the squares in which bullets look for players: no way of a bullet in one tick is longer."""


_Points = NDArray[np.float64]
"""Shape (n, 2)."""
_Seats = NDArray[np.int64]


class Arena(Game):
    """One match. Options: `map` (yard, duel, crowd), `duration_s`."""

    schema: ClassVar[Schema] = Schema(
        players=Table(
            x=Float(0, _LARGEST, 1 / 256),
            y=Float(0, _LARGEST, 1 / 256),
            aim=Float(-math.pi, math.pi, math.pi / 127),
            health=UInt(8),
            score=Int(16),
            deaths=UInt(16),
            alive=Bool(),
        ),
        bullets=Table(x=Float(0, _LARGEST, 1 / 256), y=Float(0, _LARGEST, 1 / 256), owner=UInt(16)),
        match=Table(left_s=UInt(16)),
    )
    inputs: ClassVar[Fields] = Fields(
        move_x=Float(-1, 1, 1 / 127),
        move_y=Float(-1, 1, 1 / 127),
        aim=Float(-math.pi, math.pi, math.pi / 127),
        fire=Bool(),
    )
    interest: ClassVar[Mapping[str, Interest]] = {"players": Interest(radius=SIGHT), "bullets": Interest(radius=SIGHT)}

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
        self._newcomers: list[Player] = []
        """Of a crowd: who has not been told of yet."""
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
            "players": [_who(player) for player in self._players.values()],
            "playground": {
                "width": self.map.width,
                "height": self.map.height,
                "shapes": [{"box": list(wall), "fill": "#4a5a8a"} for wall in self.map.walls],
                "tables": {
                    "players": {"radius": PLAYER_RADIUS, "label": True},
                    "bullets": {"radius": 0.15, "label": False},
                },
                "totals": {"left_s": "seconds left"},
            },
        }

    def join(self, player: Player) -> None:
        """Take a seat; whoever comes back finds its score."""
        self._players[player.seat] = player
        if player.seat not in self._known:
            self._known.add(player.seat)
            self._spawn(player.seat)
        if self.map.crowd:
            self._newcomers.append(player)
        else:
            self.room.event("joined", **_who(player))

    def leave(self, player: Player) -> None:
        """Leave the field; the score stays."""
        self._players.pop(player.seat, None)
        if not self.map.crowd:
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
        if self._newcomers and self.room.tick % self.room.tick_rate_hz == 0:
            # A crowd comes in crowds: told once a second, not once for each.
            self.room.event("players", players=[_who(player) for player in self._newcomers[:_TOLD_AT_ONCE]])
            del self._newcomers[:_TOLD_AT_ONCE]
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

    def viewpoint(self, player: Player) -> tuple[float, float] | None:
        """In a crowd where the player is; elsewhere everyone sees the whole field."""
        if not self.map.crowd:
            return None
        x, y = self._at[player.seat].tolist()
        return x, y

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
        muzzles = self._at[shooters] + way * PLAYER_RADIUS
        ends, flies = self._fly(shooters, muzzles, way)
        count = int(np.count_nonzero(flies))
        if not count:
            return
        ids = (self._next_bullet + np.arange(count)) % 65536
        self._next_bullet = (self._next_bullet + count) % 65536
        self._bullet_at = np.concatenate((self._bullet_at, ends[flies]))
        self._bullet_by = np.concatenate((self._bullet_by, way[flies] * BULLET_SPEED))
        self._bullet_life_s = np.concatenate((self._bullet_life_s, np.full(count, BULLET_LIFE_S)))
        self._bullet_owner = np.concatenate((self._bullet_owner, shooters[flies]))
        self._bullet_id = np.concatenate((self._bullet_id, ids))

    def _fly(self, shooters: _Seats, muzzles: _Points, way: _Points) -> tuple[_Points, NDArray[np.bool_]]:
        """Let new bullets fly through the time that their shooters were behind; where they are now, and which have hit nothing."""
        lags_s = np.array([min(self.room.lag_s(self._players[int(seat)]), MAX_LAG_S) for seat in shooters])
        ends = muzzles + way * (BULLET_SPEED * lags_s[:, None])
        flies = np.ones(len(shooters), bool)
        # Those who saw nearly the same moment, to an eighth of a tick, share one look back.
        moments = np.rint(lags_s * self.room.tick_rate_hz * 4)
        for moment in np.unique(moments[lags_s > 0]):
            group = np.flatnonzero(moments == moment)
            then = self._then(int(shooters[group[0]]), float(lags_s[group[0]]))
            path = muzzles[group, None] + _PATH[:, None] * (ends[group] - muzzles[group])[:, None]
            walls = self.map.blocked(path.reshape(-1, 2)).reshape(len(group), -1)
            stopped = walls.any(axis=1)
            ends[group[stopped]] = path[stopped, walls[stopped].argmax(axis=1)]
            flies[group] = ~stopped & ~self._hits(muzzles[group], ends[group], shooters[group], then)
        return ends, flies

    def _then(self, seat: int, lag_s: float) -> _Points:
        """Where everyone was when this seat's player saw them."""
        seen = self.room.rewind(self._players[seat], "players")
        then = self._at.copy()
        then[seen["id"]] = np.stack((seen["x"], seen["y"]), axis=1)
        # Whoever leapt meanwhile (it fell and came back) was not there to be hit.
        leapt = np.abs(then - self._at).max(axis=1) > 2 * SPEED * lag_s + PLAYER_RADIUS
        then[leapt] = self._at[leapt]
        return then

    def _move_bullets(self, dt_s: float) -> None:
        if not len(self._bullet_id):
            return
        before = self._bullet_at
        self._bullet_at = before + self._bullet_by * dt_s
        self._bullet_life_s = self._bullet_life_s - dt_s
        spent = self.map.blocked(self._bullet_at) | (self._bullet_life_s <= 0)
        spent |= self._hits(before, self._bullet_at, self._bullet_owner, self._at)
        keep = ~spent
        for name in ("_bullet_at", "_bullet_by", "_bullet_life_s", "_bullet_owner", "_bullet_id"):
            setattr(self, name, getattr(self, name)[keep])

    def _hits(self, before: _Points, after: _Points, owners: _Seats, then: _Points) -> NDArray[np.bool_]:
        """
        Count hits of bullets on their way; returns which bullets hit. The players go from `then` to where they are now meanwhile.

        Only pairs in neighbouring squares are looked at: with hundreds of players and thousands of bullets all pairs would be a million.
        """
        hit = np.zeros(len(before), bool)
        targets = np.array([seat for seat in self._players if self._health[seat] > 0], np.int64)
        if not len(targets) or not len(before):
            return hit
        bullet, target = _near(before, then[targets])
        seats = targets[target]
        foes = seats != owners[bullet]
        bullet, seats = bullet[foes], seats[foes]
        # In the frame of the player, who moves as well.
        way = (after - before)[bullet] - (self._at - then)[seats]
        apart = then[seats] - before[bullet]
        along = np.clip((apart * way).sum(axis=1) / np.maximum((way**2).sum(axis=1), 1e-9), 0, 1)
        close = np.linalg.norm(apart - along[:, None] * way, axis=1) < PLAYER_RADIUS
        teams = {seat: player.team for seat, player in self._players.items()}
        order = np.lexsort((along[close], bullet[close]))
        for index, seat in zip(bullet[close][order].tolist(), seats[close][order].tolist(), strict=True):
            owner = int(owners[index])
            if not hit[index] and self._health[seat] > 0 and not self._same_team(teams, owner, seat):
                hit[index] = True
                self._damage(seat, owner)
        return hit

    @staticmethod
    def _same_team(teams: Mapping[int, str], one: int, other: int) -> bool:
        return bool(teams.get(one)) and teams.get(one) == teams.get(other)

    def _damage(self, seat: int, by: int) -> None:
        self._health[seat] -= BULLET_DAMAGE
        x, y = (round(float(value), 2) for value in self._at[seat])
        if self._health[seat] > 0:
            if not self.map.crowd:
                self.room.event("hit", of=seat, by=by, x=x, y=y)
            return
        self._respawn_s[seat] = RESPAWN_S
        self._deaths[seat] += 1
        self._score[by] += 1
        # In a crowd only those whom it concerns: to tell all of all would be more than the world itself.
        audience = [self._players.get(seat), self._players.get(by)] if self.map.crowd else [None]
        for to in audience:
            if to is not None or not self.map.crowd:
                self.room.event("kill", to=to, of=seat, by=by, x=x, y=y)

    def _finish(self) -> None:
        scores = {player.id: int(self._score[seat]) for seat, player in self._players.items()}
        best = max(scores.values(), default=0)
        winners = sorted(player for player, score in scores.items() if score == best)
        told = dict(sorted(scores.items(), key=lambda entry: -entry[1])[:_SCORES_TOLD])
        self.room.event("over", scores=told, winners=winners[:_SCORES_TOLD])
        self.room.end(scores=scores, winners=winners)


def _who(player: Player) -> dict[str, Any]:
    return {"seat": player.seat, "player": player.id, "team": player.team}


def _near(points: _Points, others: _Points) -> tuple[_Seats, _Seats]:
    """Indices of all pairs of a point and one of the others whose squares are the same or touch."""
    rows = 1 << 20
    cells = np.floor(others / _CELL).astype(np.int64)
    keys = cells[:, 0] * rows + cells[:, 1]
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    mine = np.floor(points / _CELL).astype(np.int64)
    found = []
    for dx in (-1, 0, 1):
        # The three squares below each other lie next to each other in the order.
        column = (mine[:, 0] + dx) * rows + mine[:, 1]
        first, last = np.searchsorted(keys, column - 1), np.searchsorted(keys, column + 1, side="right")
        counts = last - first
        point = np.repeat(np.arange(len(points)), counts)
        start = np.repeat(first - np.cumsum(counts) + counts, counts)
        found.append((point, order[start + np.arange(len(point))]))
    return np.concatenate([point for point, _ in found]), np.concatenate([other for _, other in found])


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
