"""A player's link to its match over every transport: moves without a gap, lost and silent servers, ends."""

import asyncio
import base64
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gameserver.client.link import Dial, Link, LinkEvent, Lost, Over, TakenOver, dialer
from gameserver.client.matchmaking import MatchmakingFailed
from gameserver.client.session import Happened, Moving, WorldSeen
from gameserver.games.arena import Arena
from gameserver.gate import Gate, NoRoom
from gameserver.protocol import messages as m
from gameserver.protocol.netcode.tokens import issue_connect_token
from gameserver.room import Room
from gameserver.seats import SeatGrant, SeatIssuer, SeatVerifier
from gameserver.sessions.model import PlayerId, ServerName, Session, SessionId, SessionState
from gameserver.transports.loopback import Conditions, LoopbackTransport
from gameserver.transports.udp import UdpTransport
from gameserver.transports.websocket import WebSocketTransport

ISSUER = SeatIssuer(bytes(range(32)))
SESSION = SessionId("arena.m1")
KEY, PROTOCOL = bytes(range(32)), 7
TRANSPORTS = ("websocket", "udp", "loopback")


class Place:
    """One game server with one room of the session."""

    def __init__(self, world: "Stage", name: str, epoch: int, tick: int) -> None:
        self.name, self.epoch = ServerName(name), epoch
        session = Session(
            id=SESSION, server=self.name, room=0, epoch=epoch, state=SessionState.LIVE, seats=(), checkpoint_tick=tick
        )
        self.room = Room(session, Arena, seats=4, tick_rate_hz=30, store=None)
        self.transport: Any = None
        self.running: asyncio.Task[None]
        self.world = world

    async def find_room(self, grant: SeatGrant) -> Room:
        if self.running.done():
            raise NoRoom(m.CloseCode.FENCED, "the session has moved")
        return self.room

    def assignment(self, player: str) -> dict[str, Any]:
        grant = SeatGrant(player=PlayerId(player), seat=0, team="", session=SESSION, server=self.name, epoch=self.epoch)
        port = getattr(self.transport, "port", 0)
        connect = issue_connect_token(
            [("127.0.0.1", port or 1)], protocol_id=PROTOCOL, private_key=KEY, now_unix_s=time.time()
        )
        return {
            "session": SESSION, "epoch": self.epoch, "server": self.name, "host": "127.0.0.1", "ports": {"websocket": port},
            "seat": {"index": 0, "team": ""}, "token": ISSUER.issue(grant, time.time()),
            "connectToken": base64.b64encode(connect).decode(),
        }  # fmt: skip


class Stage:
    """Game servers, and where the session is."""

    def __init__(self, transport: str, stack: contextlib.AsyncExitStack) -> None:
        self.kind = transport
        self.stack = stack
        self.where: Place
        self.asked = 0
        self.failing: list[MatchmakingFailed] = []
        self.places: dict[str, Place] = {}

    async def place(self, name: str, epoch: int = 1, tick: int = 0) -> Place:
        place = self.places[name] = Place(self, name, epoch, tick)
        gate = Gate(SeatVerifier([ISSUER.public_key], place.name), place.find_room)
        if self.kind == "udp":
            place.transport = UdpTransport(gate.accept, host="127.0.0.1", port=0, protocol_id=PROTOCOL, private_key=KEY)
            await self.stack.enter_async_context(place.transport)
        elif self.kind == "websocket":
            place.transport = WebSocketTransport(gate.accept, host="127.0.0.1", port=0)
            await self.stack.enter_async_context(place.transport)
        else:
            conditions = Conditions(loss=0.05, delay_s=0.02, jitter_s=0.02, duplicates=0.05, reorder=0.05)
            place.transport = LoopbackTransport(gate.accept, conditions, seed=5)
        place.running = asyncio.create_task(place.room.run())
        self.stack.push_async_callback(self._stop, place)
        return place

    async def _stop(self, place: Place) -> None:
        place.room.stop(m.CloseCode.GOING_AWAY, "the test is over")
        await asyncio.wait([place.running])

    async def ask(self, session: str) -> dict[str, Any]:
        self.asked += 1
        if self.failing:
            raise self.failing.pop(0)
        return self.where.assignment("ann")

    def dial(self) -> Dial:
        if self.kind == "loopback":
            return lambda assignment: self.places[assignment["server"]].transport.client(assignment["token"])
        return dialer(self.kind)

    def link(self, **more: Any) -> Link:
        return Link(self.where.assignment("ann"), self.ask, self.dial(), rng=random.Random(1), **more)


@pytest.fixture(params=TRANSPORTS)
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    async with contextlib.AsyncExitStack() as stack:
        stage = Stage(request.param, stack)
        stage.where = await stage.place("first")
        yield stage


class Follower:
    """Keeps what a link told."""

    def __init__(self, link: Link) -> None:
        self.told: list[LinkEvent] = []
        self.task = asyncio.create_task(self._follow(link))

    async def _follow(self, link: Link) -> None:
        async for event in link.events():
            self.told.append(event)

    async def until(self, done: Callable[[], object], timeout_s: float = 20.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not done():
                await asyncio.sleep(0.01)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.told if isinstance(event, kind)]


async def test_a_move_leaves_no_gap(stage: Stage) -> None:
    """Told to move before the move is done, the old place goes on until the new one shows; nothing is lost in between."""
    async with stage.link() as link:
        seen = Follower(link)
        await seen.until(lambda: len(seen.of(WorldSeen)) > 5)
        stage.where.room.migrate({"session": SESSION, "reason": "drain"})
        asked = stage.asked
        await seen.until(lambda: stage.asked >= asked + 2)  # not moved yet: asked again, and still playing
        worlds = len(seen.of(WorldSeen))
        await seen.until(lambda: len(seen.of(WorldSeen)) > worlds + 3)
        first = stage.where
        stage.where = await stage.place("second", epoch=2, tick=first.room.tick)
        await seen.until(lambda: len(seen.of(TakenOver)) == 2)
        await seen.until(lambda: isinstance(seen.told[-1], WorldSeen))
        assert [event.assignment["server"] for event in seen.of(TakenOver)] == ["first", "second"]
        assert len(seen.of(Moving)) >= 1
        assert not seen.of(Lost)
        assert link.reconnects == 1
        # The old connection told worlds up to the moment at which the new one took over.
        at = next(k for k, event in enumerate(seen.told) if isinstance(event, TakenOver) and event.again)
        assert isinstance(seen.told[at - 1], WorldSeen | Happened)


async def test_a_move_with_its_place_needs_no_question(stage: Stage) -> None:
    """Migrate that brings the assignment is followed at once."""
    async with stage.link() as link:
        seen = Follower(link)
        await seen.until(lambda: seen.of(WorldSeen))
        first = stage.where
        stage.where = await stage.place("second", epoch=2)
        first.room.migrate({"session": SESSION, "assignment": stage.where.assignment("ann")})
        await seen.until(lambda: len(seen.of(TakenOver)) == 2)
        assert not seen.of(Lost)


async def test_a_server_that_vanishes_is_left_for_the_next(stage: Stage) -> None:
    """Killed without a word, or silent: the matchmaker is asked until it knows better, through its own outages."""
    async with stage.link() as link:
        seen = Follower(link)
        await seen.until(lambda: seen.of(WorldSeen))
        dead = stage.where
        dead.running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await dead.running
        stage.failing = [MatchmakingFailed("away"), MatchmakingFailed("busy", 503, 0.05)]
        await seen.until(lambda: stage.asked >= 4)
        assert link.over is None
        stage.where = await stage.place("second", epoch=2)
        await seen.until(lambda: len(seen.of(TakenOver)) == 2)
        assert link.assignment["server"] == "second"


@pytest.mark.sources
async def test_a_silent_server_is_suspected(stage: Stage) -> None:
    """A connection that stands still is not waited for: the session may be elsewhere already."""
    async with stage.link() as link:
        seen = Follower(link)
        await seen.until(lambda: seen.of(WorldSeen))
        assert stage.asked == 0, "as long as all is well, nobody is asked"
        stage.where.room._step = lambda: None  # type: ignore[method-assign]
        await seen.until(lambda: stage.asked >= 2)
        stage.where = await stage.place("second", epoch=2)
        await seen.until(lambda: len(seen.of(TakenOver)) == 2)
        assert not seen.of(Lost), "the old connection had not ended"


async def test_the_end_brings_the_results(stage: Stage) -> None:
    """A match that its game ends is over, with its results; nobody is asked."""
    async with stage.link() as link:
        seen = Follower(link)
        await seen.until(lambda: seen.of(WorldSeen))
        stage.where.room.end(winners=["ann"])
        await seen.until(lambda: seen.of(Over))
        assert seen.told[-1] == Over(code=m.CloseCode.NORMAL, reason="the match is over", results={"winners": ["ann"]})
        assert stage.asked == 0


@pytest.mark.parametrize(
    ("failed", "code"),
    [
        (MatchmakingFailed("the match is over", 410), m.CloseCode.NORMAL),
        (MatchmakingFailed("no seat", 403), m.CloseCode.UNAUTHORIZED),
        (MatchmakingFailed("no session", 404), m.CloseCode.UNAUTHORIZED),
    ],
)
async def test_what_the_matchmaker_says_is_final(stage: Stage, failed: MatchmakingFailed, code: m.CloseCode) -> None:
    """A session that has ended, or is none of this player's, ends the link."""
    async with stage.link() as link:
        seen = Follower(link)
        await seen.until(lambda: seen.of(WorldSeen))
        stage.failing = [failed]
        stage.where.room.stop(m.CloseCode.GOING_AWAY, "bye")
        await seen.until(lambda: seen.of(Over))
        assert seen.told[-1].code == code  # type: ignore[union-attr]


async def test_patience_has_an_end(stage: Stage) -> None:
    """A match that nobody knows of is given up after a while; leaving ends it at once."""
    async with stage.link(patience_s=0.5) as link:
        seen = Follower(link)
        await seen.until(lambda: seen.of(WorldSeen))
        stage.failing = [MatchmakingFailed("away")] * 1000
        stage.where.room.stop(m.CloseCode.GOING_AWAY, "bye")
        await seen.until(lambda: seen.of(Over))
        assert seen.told[-1].code == m.CloseCode.GOING_AWAY  # type: ignore[union-attr]


async def test_leaving_gives_the_seat_up(stage: Stage) -> None:
    """The server is told, and the link is over."""
    async with stage.link() as link:
        seen = Follower(link)
        await seen.until(lambda: seen.of(WorldSeen))
        await link.send_input(move_x=1)
        await link.leave()
        await seen.until(lambda: seen.of(Over))
        await seen.until(lambda: not stage.where.room.roster.players)


async def test_an_assignment_that_makes_no_sense_ends_the_link() -> None:
    """No transport that this client speaks, no token: said, not raised."""
    async with Link({"session": "s", "epoch": 1, "server": "x"}, _nobody, dialer("udp")) as link:
        told = [event async for event in link.events()]
    assert [type(event) for event in told] == [Over]
    assert "connectToken" in told[0].reason  # type: ignore[union-attr]


async def _nobody(session: str) -> dict[str, Any]:
    raise MatchmakingFailed("nobody is here")
