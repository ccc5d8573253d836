"""The arena's rules."""

import json
import math
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gameserver.game import Player
from gameserver.games.arena import Arena
from gameserver.games.arena.bot import policy
from gameserver.games.arena.game import (
    _CELL,
    BULLET_DAMAGE,
    BULLET_LIFE_S,
    BULLET_SPEED,
    COOLDOWN_S,
    HEALTH,
    RESPAWN_S,
    SIGHT,
    SPEED,
    _near,
)  # fmt: skip
from gameserver.games.arena.maps import MAPS, PLAYER_RADIUS
from gameserver.protocol.interest import Areas
from gameserver.protocol.snapshot import World, encode_full
from gameserver.sessions.model import PlayerId, SessionId

RATE = 30
STILL = {"move_x": 0.0, "move_y": 0.0, "aim": 0.0, "fire": False}


class FakeRoom:
    """What a room lends to its game; remembers what the game said."""

    session = SessionId("arena.M1")
    tick_rate_hz = RATE

    def __init__(self, seats: int = 8, **options: str) -> None:
        self.seats = seats
        self.options = options
        self.rng = random.Random("arena.M1")
        self.tick = 0
        self.events: list[dict[str, Any]] = []
        self.results: dict[str, Any] | None = None
        self.lag = 0.0
        self.seen: dict[str, Any] = {}

    def lag_s(self, player: Player) -> float:
        return self.lag

    def rewind(self, player: Player, table: str) -> dict[str, Any]:
        assert table == "players"
        return self.seen

    def event(self, name: str, *, to: Player | None = None, **data: Any) -> None:
        self.events.append({"name": name, **data} | ({"to": to.seat} if to is not None else {}))

    def kick(self, player: Player, reason: str) -> None:
        raise AssertionError(f"kicked {player}: {reason}")

    def end(self, **results: Any) -> None:
        self.results = results

    def named(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["name"] == name]


def seat(number: int, team: str = "") -> Player:
    return Player(id=PlayerId(f"p{number}"), seat=number, team=team)


def match(*teams: str, **options: str) -> tuple[Arena, FakeRoom, list[Player]]:
    """A match with a player for each team, that has begun."""
    room = FakeRoom(**options)
    game = Arena(room)
    players = [seat(k, team) for k, team in enumerate(teams)]
    for player in players:
        game.join(player)
    return game, room, players


def step(game: Arena, room: FakeRoom, inputs: dict[Player, dict[str, Any]] | None = None, times: int = 1) -> None:
    for _ in range(times):
        room.tick += 1
        for player, data in (inputs or {}).items():
            game.input(player, STILL | data)
        game.step(1 / RATE)


def see(game: Arena) -> World:
    return World.of(Arena.schema, game.snapshot())


def rows(game: Arena, table: str = "players") -> dict[int, dict[str, Any]]:
    columns = see(game).values(table)
    return {int(n): {name: column[k] for name, column in columns.items()} for k, n in enumerate(columns["id"])}


def face(game: Arena, shooter: Player, target: Player) -> float:
    """Put two players opposite each other in the open; returns the shooter's aim."""
    game._at[shooter.seat] = (2.0, 2.0)
    game._at[target.seat] = (4.0, 2.0)
    return 0.0


def random_inputs(players: list[Player], rng: random.Random) -> Iterator[dict[Player, dict[str, Any]]]:
    while True:
        yield {
            player: {
                "move_x": rng.uniform(-1, 1), "move_y": rng.uniform(-1, 1), "aim": rng.uniform(-math.pi, math.pi),
                "fire": rng.random() < 0.7,
            }
            for player in players
        }  # fmt: skip


def test_a_step_is_as_long_as_the_speed_says_and_a_diagonal_no_longer() -> None:
    """One input moves a player by one tick's way."""
    game, room, (one, two) = match("", "")
    game._at[0], game._at[1] = (2.0, 2.0), (2.0, 8.0)
    step(game, room, {one: {"move_x": 1.0}, two: {"move_x": 1.0, "move_y": 1.0}})
    assert game._at[0] == pytest.approx((2.0 + SPEED / RATE, 2.0))
    assert math.dist(game._at[1], (2.0, 8.0)) == pytest.approx(SPEED / RATE)


def test_sending_more_inputs_makes_nobody_faster() -> None:
    """A player moves one step per tick in the long run, however many inputs come."""
    game, room, (honest, greedy) = match("", "")
    game._at[0], game._at[1] = (2.0, 1.0), (2.0, 23.0)
    for _ in range(60):
        for _ in range(4):
            game.input(greedy, STILL | {"move_x": 1.0})
        step(game, room, {honest: {"move_x": 1.0}})
    ahead = game._at[1][0] - game._at[0][0]
    assert 0 <= ahead <= 4 * SPEED / RATE + 1e-9


@pytest.mark.parametrize("name", sorted(MAPS))
def test_nobody_gets_into_a_wall_or_out_of_the_field(name: str) -> None:
    """Players stay clear of walls by their radius, on every map, whatever they do."""
    game, room, players = match(*[""] * 8, map=name, duration_s="3600")
    inputs = random_inputs(players, random.Random(3))
    ways = [next(inputs) for _ in range(12)]
    for tick in range(600):
        step(game, room, {p: data | {"fire": False} for p, data in ways[tick // 50].items()})
        assert not game.map.blocked(game._at, margin=PLAYER_RADIUS - 1e-9).any()


def test_five_hits_kill_and_the_dead_come_back() -> None:
    """Damage, score, deaths, respawn at full health, each told as an event."""
    game, room, (shooter, target) = match("", "")
    aim = face(game, shooter, target)
    shots = HEALTH // BULLET_DAMAGE
    for _ in range(round((shots + 1) * (COOLDOWN_S + 1 / RATE) * RATE)):
        step(game, room, {shooter: {"aim": aim, "fire": True}})
        if not rows(game)[1]["alive"]:
            break
    seen = rows(game)
    assert (seen[0]["score"], seen[1]["deaths"], seen[1]["health"]) == (1, 1, 0)
    assert [(e["of"], e["by"]) for e in room.named("hit")] == [(1, 0)] * (shots - 1)
    assert [(e["of"], e["by"]) for e in room.named("kill")] == [(1, 0)]
    dead_at = tuple(game._at[1])
    step(game, room, {target: {"move_x": 1.0, "fire": True}})
    assert tuple(game._at[1]) == dead_at
    for _ in range(math.ceil(RESPAWN_S * RATE)):
        step(game, room)
    assert rows(game)[1]["health"] == HEALTH


def test_the_gun_has_its_pace() -> None:
    """Firing all the time makes no more bullets than the cooldown allows."""
    game, room, (shooter, _) = match("", "")
    game._at[0] = (2.0, 2.0)
    for _ in range(RATE):
        step(game, room, {shooter: {"fire": True}})
    assert game._next_bullet == pytest.approx(1 / COOLDOWN_S, abs=1)


def test_walls_stop_bullets() -> None:
    """A target behind a wall is not hit."""
    game, room, (shooter, _) = match("", "")
    left, top, right, bottom = game.map.walls[0]
    game._at[0], game._at[1] = (left - 2, (top + bottom) / 2), (right + 2, (top + bottom) / 2)
    for _ in range(RATE * 2):
        step(game, room, {shooter: {"fire": True}})
    assert rows(game)[1]["health"] == HEALTH
    assert not room.named("hit")


@pytest.mark.parametrize(("teams", "hits"), [(("red", "red"), False), (("red", "blue"), True), (("", ""), True)])
def test_no_harm_within_a_team(teams: tuple[str, str], hits: bool) -> None:
    """A team's bullets spare its own; those who have no team are everyone's foes."""
    game, room, (shooter, target) = match(*teams)
    aim = face(game, shooter, target)
    for _ in range(10):
        step(game, room, {shooter: {"aim": aim, "fire": True}})
    assert bool(room.named("hit")) is hits


def test_the_match_ends_when_its_time_is_up() -> None:
    """The last tick tells scores and winners, as event and as results."""
    game, room, _ = match("", "", duration_s="2")
    game._score[1] = 3
    for _ in range(2 * RATE - 1):
        step(game, room)
    assert room.results is None
    assert rows(game, "match")[0]["left_s"] == 1
    step(game, room)
    assert room.results == {"scores": {"p0": 0, "p1": 3}, "winners": ["p1"]}
    assert room.named("over") == [{"name": "over", **room.results}]
    json.dumps(room.results)


def test_who_leaves_is_gone_and_finds_its_score_again() -> None:
    """A player who left is not seen nor hit; coming back it keeps what it had."""
    game, room, (_, two) = match("", "")
    game._score[1] = 2
    game.leave(two)
    step(game, room)
    assert set(rows(game)) == {0}
    game.join(two)
    assert rows(game)[1]["score"] == 2


def test_the_same_inputs_give_the_same_match() -> None:
    """Two rooms of one session and the same inputs agree to the bit."""
    seen = []
    for _ in range(2):
        game, room, players = match(*[""] * 6)
        inputs = random_inputs(players, random.Random(5))
        for _ in range(300):
            step(game, room, next(inputs))
        seen.append((encode_full(see(game)), room.events))
    assert seen[0] == seen[1]
    assert any(event["name"] == "hit" for event in seen[0][1])


def test_a_restored_match_goes_on_as_if_nothing_had_happened() -> None:
    """After save, restore and everyone's return, both copies agree to the bit, the dice too."""
    game, room, players = match(*["red", "blue"] * 3)
    inputs = random_inputs(players, random.Random(6))
    for _ in range(200):
        step(game, room, next(inputs))
    again = FakeRoom()
    copy = Arena(again)
    copy.restore(game.save())
    for player in players:
        copy.join(player)
    assert encode_full(see(copy)) == encode_full(see(game))
    for _ in range(300):
        data = next(inputs)
        step(game, room, data)
        step(copy, again, data)
        assert encode_full(see(copy)) == encode_full(see(game))
    assert copy.save() == game.save()


def test_bots_fight_and_their_inputs_are_inputs() -> None:
    """Bots that follow the policy find and kill each other; every value is within its field's range."""
    game, room, players = match(*[""] * 4, map="duel")
    rng = random.Random(7)
    for _ in range(60 * RATE):
        world = see(game)
        inputs = {player: policy(world, player.seat, rng) for player in players}
        for values in inputs.values():
            read = Arena.inputs.decode(Arena.inputs.encode(values))
            assert read["aim"] == pytest.approx(values["aim"], abs=0.02)
        step(game, room, inputs)
    assert len(room.named("kill")) >= 3


def aimed_at_the_past(lag_s: float) -> int:
    """A runner crosses the line of fire; the shooter aims at where it was `lag_s` ago. Returns the runner's lost health."""
    game, room, (shooter, runner) = match("", "")
    game._at[shooter.seat], game._at[runner.seat] = (2.0, 2.0), (4.0, 2.0)
    room.seen = {"id": np.array([0, 1]), "x": game._at[:2, 0].copy(), "y": game._at[:2, 1].copy()}
    game._at[runner.seat] = (4.0, 2.0 + SPEED * 0.2)  # where it is now
    room.lag = lag_s
    step(game, room, {shooter: {"aim": 0.0, "fire": True}})
    for _ in range(RATE):
        step(game, room)
    return HEALTH - int(game._health[runner.seat])


def test_a_shot_hits_what_its_shooter_saw() -> None:
    """Aimed at where the other was shown, it hits if that was what the shooter saw, and misses if not."""
    assert aimed_at_the_past(0.2) == BULLET_DAMAGE
    assert aimed_at_the_past(0.0) == 0


def test_a_shot_of_the_past_does_not_go_through_walls_nor_hit_who_was_not_there() -> None:
    """What flew meanwhile flew among the walls; one that came back to life elsewhere was not in its way."""
    game, room, (shooter, other) = match("", "")
    wall = game.map.walls[0]
    y = (wall[1] + wall[3]) / 2
    game._at[shooter.seat], game._at[other.seat] = (wall[0] - 1.5, y), (wall[2] + 0.7, y)
    room.seen = {"id": np.array([0, 1]), "x": game._at[:2, 0].copy(), "y": game._at[:2, 1].copy()}
    room.lag = 10.0
    step(game, room, {shooter: {"aim": 0.0, "fire": True}})
    assert (len(game._bullet_id), game._health[other.seat]) == (0, HEALTH)

    game, room, (shooter, other) = match("", "")
    game._at[shooter.seat], game._at[other.seat] = (2.0, 2.0), (30.0, 20.0)
    room.seen = {"id": np.array([0, 1]), "x": np.array([2.0, 3.5]), "y": np.array([2.0, 2.0])}
    room.lag = 0.1
    step(game, room, {shooter: {"aim": 0.0, "fire": True}})
    assert game._health[other.seat] == HEALTH
    assert game._bullet_at[0, 0] > 2.0 + BULLET_SPEED * 0.1


@given(
    points=st.lists(st.tuples(st.floats(0.5, 239), st.floats(0.5, 239)), min_size=1, max_size=12),
    step=st.tuples(st.floats(-4, 4), st.floats(-4, 4)), name=st.sampled_from(sorted(MAPS)),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_moving_all_at_once_is_moving_each_wall_by_wall(
    points: list[tuple[float, float]], step: tuple[float, float], name: str
) -> None:
    """The vectorised slide gives, to the bit, what the loop over the walls gives that the browser runs."""
    map_, r = MAPS[name], PLAYER_RADIUS
    found = map_.move(np.array(points), np.tile(step, (len(points), 1)))
    for (x, y), at in zip(points, found.tolist(), strict=True):
        x = min(max(x + step[0], r), map_.width - r)
        for left, top, right, bottom in map_.walls:
            if top - r < y < bottom + r and left - r < x < right + r:
                x = left - r if step[0] > 0 else right + r
        y = min(max(y + step[1], r), map_.height - r)
        for left, top, right, bottom in map_.walls:
            if top - r < y < bottom + r and left - r < x < right + r:
                y = top - r if step[1] > 0 else bottom + r
        assert at == [x, y]


@given(seed=st.integers(0, 2**32), bullets=st.integers(0, 60), players=st.integers(1, 60), side=st.floats(3, 60))
@settings(max_examples=40, deadline=None)
def test_no_pair_that_is_near_is_overlooked(seed: int, bullets: int, players: int, side: float) -> None:
    """The squares find every player within a square's side of a bullet, each pair once."""
    rng = np.random.default_rng(seed)
    points, others = rng.uniform(-1, side, (bullets, 2)), rng.uniform(0, side, (players, 2))
    pairs = list(zip(*(found.tolist() for found in _near(points, others)), strict=True))
    assert len(set(pairs)) == len(pairs)
    apart = np.abs(points[:, None] - others[None]).max(axis=2)
    assert {(int(b), int(p)) for b, p in np.argwhere(apart <= _CELL)} <= set(pairs)


def test_in_a_crowd_only_those_whom_it_concerns_are_told() -> None:
    """A kill is told to two, hits and arrivals to nobody: what everyone must know is in the snapshot."""
    game, room, (one, two, _) = match("", "", "", map="crowd")
    aim = face(game, one, two)
    while game._health[two.seat] > 0:
        step(game, room, {one: {"aim": aim, "fire": True}})
    told = [(event["name"], event.get("to")) for event in room.events if event["name"] != "players"]
    assert told == [("kill", two.seat), ("kill", one.seat)]
    while not room.named("players"):
        step(game, room)
    assert [player["player"] for player in room.named("players")[0]["players"]] == ["p0", "p1", "p2"]
    step(game, room, times=2 * RATE)
    assert len(room.named("players")) == 1, "each newcomer is told of once"
    assert game.map.width > 200


def test_a_crowd_is_shown_to_each_from_where_it_stands() -> None:
    """In a crowd a player's view is around it, elsewhere it is the whole field; `SIGHT` reaches beyond any bullet."""
    crowd, _, players = match("", map="crowd")
    duel, _, others = match("", map="duel")
    assert crowd.viewpoint(players[0]) == tuple(crowd._at[players[0].seat].tolist())
    assert duel.viewpoint(others[0]) is None
    assert SIGHT > BULLET_SPEED * BULLET_LIFE_S
    assert Areas(Arena.schema, Arena.interest).at(100.0, 10.0) == ((2, 0), (2, 0))


def test_a_crowd_ends_with_the_best_only() -> None:
    """All scores are stored; an event carries a few."""
    room = FakeRoom(seats=400, map="crowd", duration_s="1")
    game = Arena(room)
    for k in range(400):
        game.join(seat(k))
    for _ in range(RATE):
        step(game, room)
    assert room.results is not None
    assert len(room.results["scores"]) == 400
    [over] = room.named("over")
    assert len(over["scores"]) == len(over["winners"]) == 32


def test_a_crowd_has_room() -> None:
    """Hundreds of seats work: everyone is somewhere, in the snapshot, and not in a wall."""
    room = FakeRoom(seats=300)
    game = Arena(room)
    players = [seat(k) for k in range(300)]
    for player in players:
        game.join(player)
    inputs = random_inputs(players, random.Random(8))
    for _ in range(20):
        step(game, room, next(inputs))
    columns = see(game).values("players")
    assert len(columns["id"]) == 300
    assert not game.map.blocked(np.stack((columns["x"], columns["y"]), axis=1)).any()


@pytest.mark.parametrize("text", ["", "soon", "-5", "nan", "1e9"])
def test_a_senseless_duration_is_the_default(text: str) -> None:
    """Options come from queues: a wrong one does not break a match."""
    game, _, _ = match("", duration_s=text)
    assert rows(game, "match")[0]["left_s"] == 120
