"""A room under test: a game that counts what it is told, connections in memory, a store that remembers, a clock moved by hand."""

import asyncio
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, ClassVar, NoReturn

from gameserver.client.session import ClientSession
from gameserver.game import Columns, Game, Player
from gameserver.member import Member
from gameserver.protocol import messages as m
from gameserver.protocol.schema import Fields, Schema, Table, UInt
from gameserver.room import Room
from gameserver.seats import SeatGrant
from gameserver.sessions.model import Orders, PlayerId, ServerMode, ServerName, Session, SessionId, SessionState


class Counting(Game):
    """Counts steps and remembers what it was told; `fail` names the call that raises."""

    schema: ClassVar[Schema] = Schema(count=Table(steps=UInt(16)))
    inputs: ClassVar[Fields] = Fields(slot=UInt(8))
    fail: ClassVar[str] = ""

    def __init__(self, room: Any) -> None:
        super().__init__(room)
        self.steps = 0
        self.log: list[str] = []

    def _told(self, what: str, detail: str) -> None:
        self.log.append(f"{what} {detail}")
        if what == self.fail:
            raise RuntimeError(what)

    def join(self, player: Player) -> None:
        self._told("join", player.id)
        self.room.event("hello", player=player.id)

    def leave(self, player: Player) -> None:
        self._told("leave", player.id)

    def input(self, player: Player, data: Mapping[str, Any]) -> None:
        self._told("input", f"{player.id} {data['slot']}")
        if data["slot"] == 99:
            self.room.kick(player, "cheat")
        if data["slot"] == 96:
            self.room.want({"red": 2, "blue": 0})
        if data["slot"] == 97:
            self.room.excuse(player)
        if data["slot"] == 98:
            self.room.end(winner=player.id)

    def step(self, dt_s: float) -> None:
        self.steps += 1
        self._told("step", "")

    def snapshot(self) -> Mapping[str, Columns]:
        if self.fail == "nonsense":
            return {"count": {"id": [0], "wrong": [1]}}
        self._told("snapshot", "")
        return {"count": {"id": [0], "steps": [self.steps]}}

    def save(self) -> bytes:
        self._told("save", "")
        return json.dumps(self.steps).encode()

    def restore(self, state: bytes) -> None:
        self.steps = json.loads(state)


class Wire:
    """A connection whose client is in the same process; it loses what `lose` says."""

    def __init__(self, *, reliable: bool = True) -> None:
        self.peer = "test"
        self.reliable = reliable
        self.client = ClientSession("t")
        self.lose = False
        self.closed: tuple[m.CloseCode, str] | None = None
        self.baselines: list[int] = []

    def send(self, message: bytes) -> None:
        if self.closed is None and not self.lose:
            self.client.receive(message, 0.0)

    def send_snapshot(self, snapshot: m.SharedSnapshot, ack_input: int) -> bool:
        self.baselines.append(snapshot.baseline)
        self.send(snapshot.message(ack_input))
        return not self.lose

    def close(self, code: m.CloseCode, reason: str = "") -> None:
        self.closed = self.closed or (code, reason)

    def events(self, kind: type[Any]) -> list[Any]:
        found = []
        while (event := self.client.next_event()) is not None:
            if isinstance(event, kind):
                found.append(event)
        return found


class Store:
    """Remembers; `errors` are raised by the next calls."""

    def __init__(self) -> None:
        self.checkpoints: list[tuple[int, bytes | None]] = []
        self.reserved = False
        self.ended: list[bytes] = []
        self.errors: list[Exception] = []

    def _maybe_raise(self) -> None:
        if self.errors:
            raise self.errors.pop(0)

    async def open(self, session: SessionId, *, server: ServerName, epoch: int) -> tuple[Session, bytes | None]:
        raise NotImplementedError

    async def checkpoint(self, session: SessionId, *, epoch: int, tick: int, state: bytes | None) -> None:
        self._maybe_raise()
        self.checkpoints.append((tick, state))

    async def hand_over(self, session: Session, *, tick: int, state: bytes) -> Session | None:
        self._maybe_raise()
        self.checkpoints.append((tick, state))
        return replace(session, epoch=session.epoch + 1, server=ServerName("f-2")) if self.reserved else None

    async def end(self, session: SessionId, *, epoch: int, results: bytes) -> None:
        self._maybe_raise()
        self.ended.append(results)

    async def seats(
        self,
        session: SessionId,
        *,
        epoch: int,
        came: Collection[PlayerId],
        left: Collection[PlayerId],
        excused: Collection[PlayerId] = (),
        want: Mapping[str, int] | None = None,
    ) -> None:
        raise NotImplementedError

    async def beat(
        self, server: ServerName, *, ttl_s: float, mode: ServerMode, rooms: Mapping[SessionId, int]
    ) -> Orders:
        raise NotImplementedError

    async def goodbye(self, server: ServerName) -> None:
        raise NotImplementedError

    async def listen(self, server: ServerName, heard: Callable[[], None]) -> NoReturn:
        raise NotImplementedError


class Stage:
    """A room at 100 Hz whose clock is moved by hand: each `tick` lets one tick pass."""

    def __init__(self, store: Store | None = None, *, fail: str = "", checkpoint_interval_s: float = 0.0) -> None:
        self.now_s = 0.0
        self.store = store
        self.stalls = 0
        self.moved = False
        game = type("Failing", (Counting,), {"fail": fail})
        session = Session(
            id=SessionId("f.m"), server=ServerName("f-1"), room=0, epoch=1, state=SessionState.LIVE, seats=()
        )
        self.room = Room(
            session, game, seats=4, tick_rate_hz=100, store=store, checkpoint_interval_s=checkpoint_interval_s,
            stalled=self._stalled, now=lambda: self.now_s,
        )  # fmt: skip
        self.game: Counting = self.room._game  # type: ignore[assignment]
        self.task = asyncio.create_task(self.room.run())

    async def _stalled(self) -> None:
        self.stalls += 1
        if self.moved:
            self.room.stop(m.CloseCode.FENCED, "moved")

    async def tick(self, count: int = 1) -> None:
        for _ in range(count):
            before = self.room.tick
            while self.room.tick == before and not self.task.done():
                self.now_s += 0.01
                await asyncio.sleep(0.011)

    def join(self, name: str, *, reliable: bool = True) -> tuple[Wire, Member]:
        there = self.room.roster.players.get(PlayerId(name))
        seat = len(self.room.roster.players) if there is None or there.player is None else there.player.seat
        wire = Wire(reliable=reliable)
        return wire, self.room.seat(self.grant(name, seat), wire)

    def grant(self, name: str, seat: int, until_s: int = 0) -> SeatGrant:
        return SeatGrant(
            player=PlayerId(name), seat=seat, team="", session=SessionId("f.m"), server=ServerName("f-1"), epoch=1,
            expires_at_s=until_s,
        )  # fmt: skip

    def send(self, wire: Wire, member: Member, *slots: int) -> None:
        for slot in slots:
            self.room.take_input(member, wire.client.send_input({"slot": slot}))

    async def over(self) -> None:
        async with asyncio.timeout(5):
            while not self.task.done():
                self.now_s += 0.01
                await asyncio.sleep(0.002)
