"""A room, with connections in memory and a clock of the test's."""

import asyncio
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, ClassVar, NoReturn

import pytest
from prometheus_client import Histogram

from gameserver import metrics
from gameserver.client.session import ClientSession, Ended, Happened, Moving, Seated, WorldSeen
from gameserver.game import Columns, Game, Player
from gameserver.member import Member
from gameserver.protocol import messages as m
from gameserver.protocol.schema import Fields, Schema, Table, UInt
from gameserver.room import FAREWELL_S, INPUTS_PER_TICK, RECONNECT_WINDOW_S, STALL_S, Room
from gameserver.seats import SeatGrant
from gameserver.sessions.checkpoints import Checkpoint, pack
from gameserver.sessions.model import Orders, PlayerId, ServerMode, ServerName, Session, SessionId, SessionState
from gameserver.sessions.port import SessionGone, StoreUnavailable


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


async def test_calls_come_in_order() -> None:
    """Join before input, inputs in order and a few a tick, a step and a snapshot every tick."""
    stage = Stage()
    wire, member = stage.join("ann")
    await stage.tick()
    stage.send(wire, member, *range(INPUTS_PER_TICK + 2))
    await stage.tick(2)
    assert stage.game.log[:3] == ["join ann", "step ", "snapshot "]
    inputs = [line for line in stage.game.log if line.startswith("input")]
    assert inputs == [f"input ann {i}" for i in range(INPUTS_PER_TICK + 2)]
    first = stage.game.log.index(f"input ann {INPUTS_PER_TICK - 1}")
    assert stage.game.log[first + 1] == "step "
    assert wire.client.ack_input == INPUTS_PER_TICK + 2
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


async def test_a_player_is_shown_the_world_at_once() -> None:
    """Not a tick later: in a room that runs already the game knows of the player before it is shown anything."""
    stage = Stage()
    await stage.tick()
    wire, _ = stage.join("ann")
    assert stage.game.log[-1] == "join ann"
    assert [type(event) for event in wire.events(object)] == [Seated, Happened, WorldSeen]
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


async def test_a_game_that_fails_to_take_a_player_in_ends_its_room() -> None:
    """Also between two ticks."""
    stage = Stage(fail="join")
    await stage.tick()
    wire, _ = stage.join("ann")
    await stage.over()
    assert wire.closed is not None
    assert wire.closed[0] is m.CloseCode.GAME_ERROR


async def test_a_game_looks_back_at_what_a_player_saw() -> None:
    """`rewind` follows the view of the input at hand, not of one that still waits."""
    stage = Stage()
    wire, member = stage.join("ann")
    await stage.tick(20)
    for tick in (12, 15):
        stage.room.take_input(member, wire.client.send_input({"slot": 1}, view=tick << 8))
    assert member.player is not None
    assert stage.room.rewind(member.player, "count")["steps"].tolist() == [stage.game.steps]
    seen: list[list[int]] = []
    stage.game.input = lambda player, data: seen.append(stage.room.rewind(player, "count")["steps"].tolist())  # type: ignore[method-assign]
    await stage.tick()
    assert seen == [[12], [15]]
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


async def test_deltas_follow_what_a_client_acknowledged() -> None:
    """Full snapshots until the first acknowledgement, deltas against it afterwards, also across lost ones."""
    stage = Stage()
    wire, member = stage.join("ann")
    await stage.tick(2)
    assert set(wire.baselines) == {0}
    stage.send(wire, member, 1)
    acknowledged = wire.client.tick
    wire.lose = True
    await stage.tick(3)
    wire.lose = False
    await stage.tick()
    assert wire.baselines[-1] == acknowledged
    assert wire.events(WorldSeen)[-1].world.values("count")["steps"][0] == stage.game.steps
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


async def test_acknowledgements_that_cannot_be() -> None:
    """One of a tick to come counts as the newest, one of a tick long gone gets a full snapshot; neither hurts."""
    stage = Stage()
    wire, member = stage.join("ann")
    await stage.tick(3)

    def acknowledge(tick: int) -> None:
        zeros = m.Input(ack_tick=tick, ack_event=2**32 - 1, view=2**32 - 1, first_seq=0, count=1, records=b"\0")
        stage.room.take_input(member, m.encode(zeros))

    newest = stage.room.history.tick
    acknowledge(2**32 - 1)
    await stage.tick()
    assert wire.baselines[-1] == newest
    wire.lose = True
    await stage.tick(stage.room.history.size + 2)
    wire.lose = False
    acknowledge(1)  # older than what it has acknowledged: nothing new
    await stage.tick()
    assert wire.baselines[-1] == 0
    assert wire.closed is None
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


async def test_a_player_who_does_nothing_acknowledges_too() -> None:
    """It is sent deltas, and each event once; its game is told of no input, and its first one counts."""
    stage = Stage()
    wire, member = stage.join("ann", reliable=False)
    await stage.tick(2)
    acknowledged = wire.client.tick
    for message in wire.client.data_to_send(0.0):
        if message[:1] == b"\x02":
            stage.room.take_input(member, message)
    await stage.tick(2)
    assert wire.baselines[-1] == acknowledged
    assert not member.events
    assert not [line for line in stage.game.log if line.startswith("input")]
    stage.send(wire, member, 7)
    await stage.tick()
    assert [line for line in stage.game.log if line.startswith("input")] == ["input ann 7"]
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


async def test_events_are_repeated_until_acknowledged() -> None:
    """Over an unreliable connection a lost event comes again, once; after the acknowledgement no more."""
    stage = Stage()
    wire, member = stage.join("ann", reliable=False)
    wire.lose = True
    await stage.tick()
    wire.lose = False
    await stage.tick(2)
    assert [event.data["player"] for event in wire.events(Happened)] == ["ann"]
    stage.send(wire, member, 1)
    await stage.tick()
    assert not member.events
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


async def test_a_returning_player_supersedes_and_keeps_its_seat() -> None:
    """The old connection is closed; the game hears of neither; numbers start anew."""
    stage = Stage()
    old, _ = stage.join("ann")
    await stage.tick()
    new, member = stage.join("ann")
    assert old.closed is not None
    assert old.closed[0] is m.CloseCode.SUPERSEDED
    stage.send(new, member, 7)
    await stage.tick()
    assert [line for line in stage.game.log if "ann" in line] == ["join ann", "input ann 7"]
    assert isinstance(new.events((Seated, WorldSeen))[0], Seated)
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


async def test_a_seat_is_of_the_newest_token() -> None:
    """Whoever came too late for it is sent away as its new player comes, and is not let in after that; the game never has two in one seat."""
    stage = Stage()
    late, new = Wire(), Wire()
    stage.room.seat(stage.grant("late", 0, until_s=100), late)
    await stage.tick()
    assert not stage.room.roster.gives(stage.grant("new", 0, until_s=100))
    assert stage.room.roster.gives(stage.grant("new", 0, until_s=101))
    assert stage.room.roster.gives(stage.grant("late", 0, until_s=100))
    stage.room.seat(stage.grant("new", 0, until_s=101), new)
    assert late.closed == (m.CloseCode.FULL, "the seat is another's now")
    assert [line for line in stage.game.log if line[:4] in ("join", "leav")] == ["join late", "leave late", "join new"]
    assert (stage.room.roster.came, stage.room.roster.left) == ({"new"}, {"late"})
    assert not stage.room.roster.gives(stage.grant("late", 0, until_s=101))
    assert stage.room.roster.gives(stage.grant("late", 1, until_s=101))
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


async def test_what_a_game_wants_is_told_with_those_who_have_left_before() -> None:
    """Once a change; their seats are kept for them in a match that takes nobody."""
    stage = Stage()
    wire, member = stage.join("ann")
    _, leaver = stage.join("bob")
    await stage.tick()
    stage.room.leave(leaver)
    await stage.tick()
    assert stage.room.roster.left == {"bob"}
    stage.room.roster.left.clear()
    assert stage.room.wanted.untold is None
    stage.send(wire, member, 96)
    await stage.tick()
    assert stage.room.wanted.untold == {"red": 2}
    assert stage.room.roster.left == {"bob"}
    stage.room.wanted.told(stage.room.wanted.untold)
    stage.send(wire, member, 96)
    await stage.tick()
    assert stage.room.wanted.untold is None
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


async def test_a_leavers_seat_is_free_at_once() -> None:
    """For another in the same tick, by a token of the same second; who left and is given another seat has that one."""
    stage = Stage()
    gone, new, back = Wire(), Wire(), Wire()
    member = stage.room.seat(stage.grant("ann", 0, until_s=100), gone)
    await stage.tick()
    stage.room.leave(member)
    assert stage.room.roster.gives(stage.grant("bob", 0, until_s=100))
    stage.room.seat(stage.grant("bob", 0, until_s=100), new)
    stage.room.leave(stage.room.seat(stage.grant("ann", 1, until_s=100), back))
    stage.room.seat(stage.grant("ann", 2, until_s=100), back)
    assert [line for line in stage.game.log if line[:4] in ("join", "leav")] == [
        "join ann", "leave ann", "join bob", "join ann", "leave ann", "join ann",
    ]  # fmt: skip
    assert {member.player.seat for member in stage.room.roster.players.values() if member.player} == {0, 2}
    assert new.closed is None
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


async def test_a_lost_player_has_a_while_to_come_back() -> None:
    """Within the window nothing happens; after it the game is told, and an empty room ends."""
    store = Store()
    stage = Stage(store)
    wire, member = stage.join("ann")
    await stage.tick()
    stage.room.lose(member, wire)
    stage.now_s += RECONNECT_WINDOW_S - 1
    await stage.tick()
    assert "leave ann" not in stage.game.log
    stage.now_s += 2
    await stage.over()
    assert "leave ann" in stage.game.log
    assert store.ended == [b'{"abandoned": true}']


async def test_a_kicked_player_does_not_come_back() -> None:
    """Its connection is closed with the reason, the game hears `leave`, and the room remembers."""
    stage = Stage()
    wire, member = stage.join("eve")
    stage.join("ann")
    await stage.tick()
    stage.send(wire, member, 99)
    await stage.tick(2)
    assert wire.closed == (m.CloseCode.KICKED, "cheat")
    assert "leave eve" in stage.game.log
    assert stage.room.roster.kicked == {"eve"}
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


async def test_a_player_whose_part_is_over_is_excused_when_it_leaves() -> None:
    stage = Stage()
    wire, member = stage.join("eve")
    stage.join("ann")
    await stage.tick()
    stage.send(wire, member, 97)
    await stage.tick(2)
    stage.room.leave(member)
    await stage.tick()
    assert (stage.room.roster.left, stage.room.roster.excused) == ({"eve"}, {"eve"})
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


@pytest.mark.parametrize("call", ["join", "input", "step", "snapshot", "nonsense"])
async def test_a_game_that_fails_ends_its_room_alone(call: str) -> None:
    """Whatever call raises, or returns nonsense: players are told, the session ends with the error, nothing else is raised."""
    store = Store()
    stage = Stage(store, fail=call, checkpoint_interval_s=0.02)
    wire, member = stage.join("ann")
    if call == "input":
        await stage.tick()
        stage.send(wire, member, 1)
    await stage.over()
    assert stage.task.exception() is None
    assert wire.closed is not None
    assert wire.closed[0] is m.CloseCode.GAME_ERROR
    assert json.loads(store.ended[0]) == {"error": "the game failed"}


async def test_results_wait_out_an_outage() -> None:
    """The match is over at once for its players; its results are written when the store is back."""
    store = Store()
    stage = Stage(store)
    wire, member = stage.join("ann")
    await stage.tick()
    store.errors = [StoreUnavailable("away"), StoreUnavailable("away")]
    stage.send(wire, member, 98)
    await stage.over()
    assert wire.closed == (m.CloseCode.NORMAL, "the match is over")
    assert json.loads(store.ended[0]) == {"winner": "ann"}


async def test_a_failed_checkpoint_is_survived_and_a_refused_one_fences() -> None:
    """An outage costs one checkpoint; a newer epoch elsewhere ends the room at once, without results."""
    store = Store()
    stage = Stage(store, checkpoint_interval_s=0.01)
    wire, _ = stage.join("ann")
    store.errors = [StoreUnavailable("away")]
    await stage.tick(6)
    assert store.checkpoints
    store.errors = [SessionGone("moved")]
    await stage.over()
    assert wire.closed is not None
    assert wire.closed[0] is m.CloseCode.FENCED
    assert not store.ended
    assert not wire.events(Ended)


@pytest.mark.parametrize("how", ["raises", "nonsense"])
async def test_a_game_that_does_not_save_plays_on(how: str) -> None:
    """A save that raises or returns no bytes costs the checkpoint, and a hand-over, but not the match."""
    store = Store()
    stage = Stage(store, fail="save" if how == "raises" else "", checkpoint_interval_s=0.01)
    if how == "nonsense":
        stage.room._checkpoints._save = lambda: {"no": "bytes"}  # type: ignore[assignment, return-value]
    wire, _ = stage.join("ann")
    store.reserved = True
    await stage.tick(4)
    assert not await stage.room.hand_over()
    await stage.room.checkpoint()
    await stage.tick(2)
    assert (store.checkpoints, wire.closed, stage.task.done()) == ([], None, False)
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


async def test_a_room_that_is_handed_over_is_shown_until_its_clients_have_left() -> None:
    """Clients are told to move and see the old room on; nothing more of it is written, and its end is not the match's."""
    store = Store()
    stage = Stage(store, checkpoint_interval_s=0.01)
    wires = [stage.join(name)[0] for name in ("ann", "bob")]
    await stage.tick(2)
    assert not await stage.room.hand_over()
    store.reserved = True
    assert await stage.room.hand_over()
    written = len(store.checkpoints)
    assert [event.data["epoch"] for wire in wires for event in wire.events(Moving)] == [2, 2]
    before = wires[0].client.tick
    stage.room.end(winner="nobody")
    await stage.tick(3)
    assert wires[0].client.tick > before
    for member, wire in zip(tuple(stage.room.roster.players.values()), wires, strict=True):
        assert not stage.task.done()
        stage.room.lose(member, wire)
    await stage.over()
    assert (len(store.checkpoints), store.ended) == (written, [])


async def test_a_client_that_does_not_leave_is_sent_away() -> None:
    """A room that was handed over is closed after a while, with a code that makes clients ask where the match is."""
    store = Store()
    store.reserved = True
    stage = Stage(store)
    wire, _ = stage.join("ann")
    await stage.tick(2)
    assert await stage.room.hand_over()
    stage.now_s += FAREWELL_S
    await stage.over()
    assert wire.closed is not None
    assert wire.closed[0] is m.CloseCode.GOING_AWAY


async def test_after_a_standstill_nothing_is_shown_before_the_room_is_known_to_be_ours() -> None:
    """One that is still ours goes on; one that has moved meanwhile shows no tick more."""
    stage = Stage()
    wire, _ = stage.join("ann")
    await stage.tick(2)
    stage.now_s += STALL_S + 0.1
    await stage.tick(2)
    assert stage.stalls == 1
    seen = wire.client.tick
    stage.moved = True
    stage.now_s += STALL_S + 0.1
    await stage.over()
    assert (stage.stalls, wire.client.tick) == (2, seen)
    assert wire.closed == (m.CloseCode.FENCED, "moved")


async def test_the_kicked_stay_kicked_elsewhere() -> None:
    """A checkpoint carries who may not come back, beside the game's state."""
    stage = Stage(Store())
    stage.room.restore(pack(Checkpoint(state=b"7", kicked=frozenset({PlayerId("eve")}))))
    assert (stage.game.steps, stage.room.roster.kicked) == (7, {"eve"})
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


async def test_a_spectator_that_leaves_is_gone() -> None:
    """Spectators hold no seat, send no inputs, and are forgotten when they leave or are lost."""
    stage = Stage()
    _, ann = stage.join("ann")
    grant = SeatGrant(
        player=PlayerId("tv"),
        seat=m.SPECTATOR_SEAT,
        team="",
        session=SessionId("f.m"),
        server=ServerName("f-1"),
        epoch=1,
    )
    wires = [Wire() for _ in range(2)]
    watching = [stage.room.seat(grant, wire, spectator=True) for wire in wires]
    await stage.tick(2)
    stage.send(wires[0], watching[0], 98)
    await stage.tick(2)
    assert len(stage.room.roster.spectators) == 2
    assert [player.player.id for player in stage.room.roster.players.values() if player.player] == ["ann"]
    stage.room.leave(watching[0])
    stage.room.lose(watching[0], wires[0])
    stage.room.lose(watching[1], wires[1])
    assert len(stage.room.roster.spectators) == 0
    assert ann.connection is not None
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


async def test_results_are_told_before_the_end() -> None:
    """Everyone's last event is the results, over a path that loses messages too; players and spectators alike."""
    stage = Stage()
    wire, member = stage.join("ann")
    lossy, _ = stage.join("bob", reliable=False)
    said: list[bytes] = []
    lossy.send = lambda message: said.append(message)  # type: ignore[method-assign]
    await stage.tick()
    stage.send(wire, member, 98)
    await stage.over()
    assert wire.events(Happened)[-1].data == {"name": "results", "results": {"winner": "ann"}}
    assert wire.client.results == {"winner": "ann"}
    told = [message for message in said if b'"results"' in message]
    assert len(told) > 3, "each copy may be the one that arrives"


async def test_round_trips_are_measured_once_a_second() -> None:
    """From a snapshot to the first input that acknowledges it, however many inputs there are."""
    stage = Stage()
    wire, member = stage.join("ann")
    rtt, jitter = metrics.CLIENT_RTT_SECONDS, metrics.CLIENT_JITTER_SECONDS
    before, before_jitter = count_of(rtt), count_of(jitter)
    for _ in range(3):
        await stage.tick(2)
        stage.send(wire, member, 1, 1, 1)
        stage.now_s += 0.99
    assert count_of(rtt) - before == 3
    assert count_of(jitter) - before_jitter == 2
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


def count_of(histogram: Histogram) -> float:
    return next(s.value for family in histogram.collect() for s in family.samples if s.name.endswith("_count"))
