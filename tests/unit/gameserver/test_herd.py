"""The herd's rules."""

import random
from typing import Any

import numpy as np
import pytest

from gameserver.game import Player
from gameserver.games.herd import Herd
from gameserver.games.herd.bot import policy
from gameserver.games.herd.game import BARK_FEAR, BARK_PAUSE_S, BARK_S, DOG_SPEED, FEAR, HEIGHT, PEN, WIDTH
from gameserver.protocol.snapshot import World, encode_full
from gameserver.sessions.model import PlayerId, SessionId

RATE = 30
STILL = {"move_x": 0.0, "move_y": 0.0, "bark": False}


class FakeRoom:
    """What a room lends to its game; remembers what the game said."""

    session = SessionId("herd.M1")
    tick_rate_hz = RATE
    seats = 8

    def __init__(self, **options: str) -> None:
        self.options = options
        self.rng = random.Random("herd.M1")
        self.tick = 0
        self.events: list[dict[str, Any]] = []
        self.results: dict[str, Any] | None = None

    def event(self, name: str, *, to: Player | None = None, **data: Any) -> None:
        self.events.append({"name": name, **data})

    def kick(self, player: Player, reason: str) -> None:
        raise AssertionError

    def end(self, **results: Any) -> None:
        self.results = results


def field(dogs: int = 1, **options: str) -> tuple[Herd, FakeRoom, list[Player]]:
    room = FakeRoom(**options)
    game = Herd(room)  # type: ignore[arg-type]
    players = [Player(id=PlayerId(f"p{k}"), seat=k, team="") for k in range(dogs)]
    for player in players:
        game.join(player)
    return game, room, players


def step(game: Herd, room: FakeRoom, inputs: dict[Player, dict[str, Any]] | None = None, times: int = 1) -> None:
    for _ in range(times):
        room.tick += 1
        for player, data in (inputs or {}).items():
            game.input(player, STILL | data)
        game.step(1 / RATE)


def see(game: Herd) -> World:
    return World.of(Herd.schema, game.snapshot())


def test_dogs_together_bring_the_flock_home() -> None:
    """Bots that see what players see win well before the time is up, and everyone hears how it went."""
    game, room, players = field(4, sheep="60")
    rng = random.Random(3)
    while room.results is None:
        world = see(game)
        inputs = {player: policy(world, player.seat, rng) for player in players}
        for values in inputs.values():
            Herd.inputs.encode(values)
        step(game, room, inputs)
    assert room.results["won"]
    assert room.results["home"] == room.results["of"] == 60
    assert room.results["dogs"] == ["p0", "p1", "p2", "p3"]
    assert room.events[-1]["name"] == "over"
    assert see(game).values("match")["home"][0] == 60


def test_nobody_does_it_alone_by_standing_still() -> None:
    """Sheep that are left alone do not walk home; the match ends with the time."""
    game, room, _ = field(1, duration_s="20")
    step(game, room, times=20 * RATE)
    assert room.results is not None
    assert not room.results["won"]
    assert room.results["home"] < 12


def test_sheep_run_from_dogs_and_calm_down_again() -> None:
    """Away, not through; one that is out of reach grazes on."""
    game, room, (dog,) = field(1, sheep="2")
    game._at[:] = ((20.0, 20.0), (20.0, 38.0))
    game._dog_at[dog.seat] = (20.0 - 0.5 * FEAR, 20.0)
    step(game, room, times=RATE)
    assert game._at[0, 0] > 21.5
    assert bool(game._afraid[0])
    assert not game._afraid[1]
    game._dog_at[dog.seat] = (1.0, 1.0)
    step(game, room, times=3 * RATE)
    assert not game._afraid.any()
    assert np.linalg.norm(game._by[0]) < 1.0


def test_a_bark_carries_further_and_needs_breath() -> None:
    """For a moment sheep mind it from further away; then it has to pause."""
    game, room, (dog,) = field(1, sheep="1")
    game._at[0], game._dog_at[0] = (20.0, 20.0), (20.0 - (FEAR + BARK_FEAR) / 2, 20.0)
    step(game, room)
    assert not game._afraid[0]
    step(game, room, {dog: {"bark": True}})
    assert bool(game._afraid[0])
    assert see(game).values("dogs")["barking"].tolist() == [True]
    step(game, room, {dog: {"bark": True}}, times=round((BARK_S + 0.1) * RATE))
    assert game._bark_s[0] < 0
    step(game, room, {dog: {"bark": True}}, times=round(BARK_PAUSE_S * RATE) + 1)
    assert game._bark_s[0] > 0


def test_a_dog_runs_as_fast_as_a_dog_does() -> None:
    """However many inputs it sends, and no faster across; it stays on the field."""
    game, room, (dog,) = field()
    game._dog_at[0] = (10.0, 10.0)
    for _ in range(5):
        game.input(dog, {"move_x": 1.0, "move_y": 1.0, "bark": False})
    step(game, room)
    assert np.linalg.norm(game._dog_at[0] - 10.0) == pytest.approx(DOG_SPEED / RATE)
    step(game, room, {dog: {"move_x": -1.0}}, times=RATE * 20)
    assert game._dog_at[0, 0] == pytest.approx(0.7)


def test_who_is_home_stays_home() -> None:
    """Dogs in the pen frighten nobody out of it."""
    game, room, (dog,) = field(1, sheep="20")
    game._at[:] = np.array(PEN[:2]) + np.random.default_rng(1).uniform(-2, 2, (20, 2))
    game._at[0] = (5.0, 5.0)
    game._dog_at[0] = PEN[:2]
    step(game, room, {dog: {"bark": True}}, times=10 * RATE)
    assert np.count_nonzero(game._home) == 19
    assert (np.linalg.norm(game._at[1:] - PEN[:2], axis=1) < PEN[2]).all()


def test_a_restored_match_goes_on_as_if_nothing_had_happened() -> None:
    """The same state, to the byte, from then on."""
    game, room, players = field(3)
    rng = random.Random(4)
    moves = [{p: {"move_x": rng.uniform(-1, 1), "move_y": rng.uniform(-1, 1)} for p in players} for _ in range(300)]
    for inputs in moves[:150]:
        step(game, room, inputs)
    again = FakeRoom()
    copy = Herd(again)  # type: ignore[arg-type]
    copy.restore(game.save())
    again.tick = room.tick
    for player in players:
        copy.join(player)
    for inputs in moves[150:]:
        step(game, room, inputs)
        step(copy, again, inputs)
        assert encode_full(see(copy)) == encode_full(see(game))
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in game._at)


@pytest.mark.parametrize("text", ["", "many", "-3", "nan", "1e9"])
def test_a_senseless_option_is_the_default(text: str) -> None:
    """Options come from queues: a wrong one does not break a match."""
    game, _, _ = field(sheep=text, duration_s=text)
    assert len(game._at) == 120
    assert see(game).values("match")["left_s"][0] == 180
