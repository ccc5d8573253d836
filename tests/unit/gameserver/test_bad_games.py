"""A Game that returns nonsense, of every kind, or sleeps: docs/game-servers.md says what follows."""

import asyncio
import math
import time
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import structlog

from gameserver import room as rooms
from gameserver.client.session import ClientSession
from gameserver.game import Game, Player
from gameserver.protocol import messages as m
from gameserver.protocol.interest import Interest
from gameserver.protocol.schema import Fields, Float, Schema, Table, UInt
from gameserver.room import Room
from gameserver.seats import SeatGrant
from gameserver.sessions.checkpoints import Checkpoint, pack
from gameserver.sessions.model import PlayerId, ServerName, Session, SessionId, SessionState
from gameserver.tick import MAX_BEHIND


class Odd(Game):
    """Whatever the class attributes say."""

    schema: ClassVar[Schema] = Schema(things=Table(x=Float(0, 100, 0.1), kind=UInt(8)))
    inputs: ClassVar[Fields] = Fields(key=UInt(8))
    state: ClassVar[Any] = None
    looks_from: ClassVar[Any] = None
    sleeps_s: ClassVar[float] = 0.0
    results: ClassVar[Mapping[str, Any]] = {}
    told: ClassVar[Any] = None
    facts: ClassVar[Any] = {}
    raises: ClassVar[tuple[str, type[BaseException]]] = "", ValueError
    """In which call, and what."""

    def _call(self, name: str) -> None:
        where, what = self.raises
        if name == where:
            raise what

    def info(self) -> Mapping[str, Any]:
        self._call("info")
        return self.facts  # type: ignore[no-any-return]

    def join(self, player: Player) -> None:
        self._call("join")

    def leave(self, player: Player) -> None:
        self._call("leave")

    def input(self, player: Player, data: Mapping[str, Any]) -> None:
        self._call("input")

    def step(self, dt_s: float) -> None:
        self._call("step")
        time.sleep(self.sleeps_s)
        if self.told is not None:
            self.room.event("odd", value=self.told)
        if self.results:
            self.room.end(**self.results)

    def snapshot(self) -> Any:
        self._call("snapshot")
        return self.state if self.state is not None else {"things": {"id": [1], "x": [1.0], "kind": [2]}}

    def viewpoint(self, player: Player) -> Any:
        self._call("viewpoint")
        return self.looks_from

    def save(self) -> bytes:
        return b""

    def restore(self, state: bytes) -> None: ...


class Wire:
    reliable, peer = True, "test"

    def __init__(self) -> None:
        self.closed: m.CloseCode | None = None
        self.client = ClientSession("t")

    def send(self, message: bytes) -> None:
        self.client.receive(message, 0.0)

    def send_snapshot(self, snapshot: m.SharedSnapshot, ack_input: int) -> bool:
        self.send(snapshot.message(ack_input))
        return True

    def close(self, code: m.CloseCode, reason: str = "") -> None:
        self.closed = self.closed or code


def opened(rate_hz: int = 100, **attributes: Any) -> tuple[Room, Wire]:
    """A room with a player."""
    game = type("Bad", (Odd,), attributes)
    session = Session(id=SessionId("f.m"), server=ServerName("f-1"), room=0, epoch=1, state=SessionState.LIVE, seats=())
    room, wire = Room(session, game, seats=4, tick_rate_hz=rate_hz, store=None), Wire()
    grant = SeatGrant(player=PlayerId("ann"), seat=0, team="", session=session.id, server=session.server, epoch=1)
    room.seat(grant, wire)
    return room, wire


def things(**columns: Any) -> dict[str, Any]:
    return {"things": {"id": [1], "x": [1.0], "kind": [2]} | columns}


NONSENSE: dict[str, dict[str, Any]] = {
    "no mapping": {"state": 7},
    "an unknown table": {"state": {"things": things()["things"], "more": {}}},
    "a table that is none": {"state": {"things": 7}},
    "a missing column": {"state": {"things": {"id": [1], "x": [1.0]}}},
    "an unknown column": {"state": things(y=[1.0])},
    "columns of two lengths": {"state": things(x=[1.0, 2.0])},
    "an id twice": {"state": things(id=[1, 1], x=[1.0, 2.0], kind=[1, 2])},
    "a negative id": {"state": things(id=[-1])},
    "an id that is too large": {"state": things(id=[70_000])},
    "an id that is no integer": {"state": things(id=[1.5])},
    "words for numbers": {"state": things(x=["far"])},
    "None for a number": {"state": things(x=[None])},
    "a column of columns": {"state": things(x=[[1.0]])},
    "a viewpoint of one number": {"interest": {"things": Interest(radius=5, y="x")}, "looks_from": 7},
    "a viewpoint nowhere": {"interest": {"things": Interest(radius=5, y="x")}, "looks_from": (math.nan, 0.0)},
    "results that are no JSON": {"results": {"winner": object()}},
    "results that are no number": {"results": {"score": math.nan}},
    "facts that are no JSON": {"facts": {"walls": np.zeros(3)}},
    "facts that are no mapping": {"facts": 7},
    "facts that are a list": {"facts": ["a wall"]},
    "an event that is no JSON": {"told": {1, 2}},
    "an event that is not a number": {"told": math.nan},
    "an event that is too long": {"told": "x" * 70_000},
    "a viewpoint of words": {"interest": {"things": Interest(radius=5, y="x")}, "looks_from": ("here", "there")},
    "a viewpoint of three": {"interest": {"things": Interest(radius=5, y="x")}, "looks_from": (1.0, 2.0, 3.0)},
    "more things than there are ids": {"state": things(id=range(65537), x=[0.0] * 65537, kind=[0] * 65537)},
    "a column of dates": {"state": things(x=np.array(["2026-01-01"], dtype="datetime64[D]"))},
    "a column of complex numbers": {"state": things(x=np.array([1j]))},
}


@pytest.mark.parametrize("what", NONSENSE)
async def test_nonsense_ends_the_match_alone(what: str) -> None:
    """The players are told `game error`, nothing is raised, and the process goes on: another room plays."""
    room, wire = opened(**NONSENSE[what])
    other, watching = opened()
    async with asyncio.timeout(10):
        going_on = asyncio.create_task(other.run())
        await room.run()
        assert wire.closed is m.CloseCode.GAME_ERROR
        before = other.tick
        while other.tick < before + 3:
            await asyncio.sleep(0.005)
        other.stop(m.CloseCode.NORMAL, "")
        await going_on
    assert watching.closed is m.CloseCode.NORMAL


@pytest.mark.parametrize(
    "what", [ValueError, RecursionError, MemoryError, SystemExit, GeneratorExit, asyncio.CancelledError]
)
@pytest.mark.parametrize("call", ["info", "join", "leave", "input", "step", "snapshot", "viewpoint"])
async def test_whatever_is_raised_ends_the_match_alone(
    call: str, what: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whichever call: `exit()` in a game, too, is no more than the end of its match."""
    monkeypatch.setattr(rooms, "RECONNECT_WINDOW_S", -1.0)  # whoever leaves has gone for good
    seen = {"things": Interest(radius=5, y="x")} if call == "viewpoint" else {}
    room, wire = opened(raises=(call, what), interest=seen)
    async with asyncio.timeout(10):
        running = asyncio.create_task(room.run())
        press = m.Input(ack_tick=0, ack_event=0, view=0, first_seq=1, count=1, records=b"\0")
        if call == "input":
            await asyncio.sleep(0.03)
            room.take_input(room.roster.players[PlayerId("ann")], m.encode(press))
        if call == "leave":
            await asyncio.sleep(0.03)
            room.leave(room.roster.players[PlayerId("ann")])
        await running
    assert room._results == b'{"error": "the game failed"}'
    assert (wire.closed is m.CloseCode.GAME_ERROR) is (call != "leave")


def test_a_game_that_exits_at_its_start_or_as_it_is_restored_fails() -> None:
    """With an error that whoever opens rooms can meet."""
    with pytest.raises(RuntimeError, match="SystemExit"):
        opened(__init__=lambda game, room: exit())
    room, _ = opened(restore=lambda game, state: exit())
    with pytest.raises(RuntimeError, match="SystemExit"):
        room.restore(pack(Checkpoint(state=b"", kicked=frozenset())))


@pytest.mark.parametrize(
    ("x", "shown"), [(math.nan, 0.0), (math.inf, 100.0), (-math.inf, 0.0), (1e300, 100.0), (-5, 0.0), (True, 1.0)]
)
async def test_numbers_out_of_range_are_brought_into_it(x: float, shown: float) -> None:
    """A bug in the arithmetic of one thing does not cost the match: its place is the nearest that the schema has."""
    room, wire = opened(state=things(x=[x]))
    running = asyncio.create_task(room.run())
    async with asyncio.timeout(10):
        while wire.client.world is None:
            await asyncio.sleep(0.005)
        room.stop(m.CloseCode.NORMAL, "")
        await running
    assert wire.client.world.values("things")["x"][0] == pytest.approx(shown)


async def test_a_game_that_sleeps_slows_its_match_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ticks are given up beyond what can be caught up with, never run in a burst; the log names the room, once in a while."""
    monkeypatch.setattr(rooms, "SLOW_TICK_S", 0.02)
    room, wire = opened(rate_hz=200, sleeps_s=0.03)
    with structlog.testing.capture_logs() as logs:
        running = asyncio.create_task(room.run())
        async with asyncio.timeout(20):
            while room.tick < 12:
                await asyncio.sleep(0)
            room.stop(m.CloseCode.NORMAL, "")
            await running
    slow = [line for line in logs if line["event"] == "slow_tick"]
    assert [(line["session"], line["log_level"]) for line in slow] == [("f.m", "warning")]
    assert room._clock.dropped > MAX_BEHIND
    assert wire.closed is m.CloseCode.NORMAL
    assert wire.client.tick >= 12
