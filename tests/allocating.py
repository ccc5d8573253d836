"""The allocator's world for state machines: allocators, keepers, recovery and game servers around one store, and what must hold of it at any time."""

import asyncio
import random
from collections.abc import Coroutine, Mapping
from typing import Any, Protocol, TypeVar

from fakes import FakeBackend
from game_model import ModelServer
from hypothesis.stateful import RuleBasedStateMachine, invariant

from allocator.keeper import ShelfKeeper
from allocator.model import FleetPolicy, GameServer, ServerState
from allocator.ports import SHELF_LABEL, Backend, BackendUnavailable
from allocator.recovery import Recovery
from allocator.service import Allocator
from allocator.shelf import Shelf
from gameserver.sessions.client import StoreClient, connect
from gameserver.sessions.model import FleetName, PlayerId, Seat, ServerMode, ServerName, SessionId, SessionState
from gameserver.sessions.valkey import ValkeySessions

T = TypeVar("T")
FLEET = FleetName("arena")
PREFIX = f"wf:{{{FLEET}}}:"
SEATS = (Seat(index=0, player=PlayerId("ann")),)
SETTLE_S = 0.02
"""Stands in for the planner's: these backends' lists are never older than that."""


class Stage(Backend, Protocol):
    """A backend whose servers a test can see, add and kill, and whose calls it can spoil."""

    rng: random.Random
    lose_replies: float

    @property
    def all(self) -> Mapping[ServerName, GameServer]:
        """Its servers."""

    def add(self, count: int = 1) -> None:
        """More servers, Ready now or soon."""

    def kill(self, name: ServerName) -> None:
        """A server's process dies."""


class World(RuleBasedStateMachine):
    """Two allocators, two keepers that overlap as if there were no lease, and the game servers; a machine adds what happens to them."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.client = self.run(self.connected(url))
        self.shelf = Shelf(self.client)
        self.sessions = ValkeySessions(self.client, FLEET)
        self.records: dict[SessionId, tuple[int, SessionState, str, str]] = {}
        """Epoch, state, server and room that each session was last seen with."""
        self.floor: dict[SessionId, int] = {}
        """The tick that each session may never fall below: its newest stored checkpoint."""
        self.alive: dict[ServerName, ModelServer] = {}
        self.asleep: dict[ServerName, ModelServer] = {}
        """Stopped: they know what they knew, and may wake up."""
        self.lose = 0.0

    async def connected(self, url: str) -> StoreClient:
        client = connect(url)
        await client.flushall()
        return client

    def begin_with(self, policy: FleetPolicy, backend: Stage) -> None:
        self.policy, self.backend, self.rng = policy, backend, backend.rng
        self.allocators = [Allocator(Shelf(self.client), self.client, [policy], backend) for _ in range(2)]
        self.keepers = [ShelfKeeper(policy, Shelf(self.client), self.client, backend) for _ in range(2)]
        self.recovery = Recovery(policy, self.shelf)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @invariant()
    def one_place_each(self) -> None:
        """No two live sessions share a room; a session moves only with a new epoch; its end is final; no checkpoint goes back."""
        self.run(self.check_sessions())

    @invariant()
    def rooms_add_up(self) -> None:
        """Each room of a registered server is free, held or spent, exactly once."""
        self.run(self.check_rooms())

    def teardown(self) -> None:
        try:
            if hasattr(self, "backend"):
                self.run(self.finish())
        finally:
            self.run(self.close())
            self.runner.close()

    async def close(self) -> None:
        await self.client.aclose()

    async def round(self, keeper: int) -> bool:
        """One keeper's round; half of the time the other's lease has just run out, in the midst of its work as it may be."""
        if self.rng.random() < 0.5:
            await self.client.delete(PREFIX + "keeper")
        try:
            return await self.keepers[keeper].round()
        except BackendUnavailable:
            return True
        finally:
            self.servers_follow()

    def servers_follow(self) -> None:
        """Allocated servers play; those that are gone do not."""
        allocated = {name for name, server in self.backend.all.items() if server.state is ServerState.ALLOCATED}
        for name in self.alive.keys() - allocated:
            del self.alive[name]
        for name in allocated - self.alive.keys() - self.asleep.keys():
            self.alive[name] = ModelServer(name, self.sessions)

    def playing(self) -> list[tuple[ModelServer, SessionId]]:
        return [(server, session) for server in self.alive.values() for session in server.open]

    def live(self) -> list[SessionId]:
        return [session for session, (_, state, _, _) in self.records.items() if state is not SessionState.ENDED]

    async def check_sessions(self) -> None:
        lost = {raw.decode() for raw in await self.client.smembers(PREFIX + "lost")}
        holders: dict[tuple[str, str], SessionId] = {}
        for raw in sorted(await self.client.keys(PREFIX + "session:*")):
            session = SessionId(raw.decode().removeprefix(PREFIX + "session:"))
            names = ("epoch", "state", "server", "room", "checkpoint_tick", "next_server", "next_room")
            values = await self.client.hmget(raw, *names)
            epoch, state, server, room, tick, next_server, next_room = (v.decode() if v else "" for v in values)
            now = (int(epoch), SessionState(state), server, room)
            self._check_change(session, self.records.get(session), now)
            self.records[session] = now
            assert int(tick or 0) >= self.floor.get(session, 0), f"{session}: a checkpoint went back"
            self.floor[session] = int(tick or 0)
            if now[1] is SessionState.ENDED:
                continue
            heard = [
                one.name
                for one in (*self.alive.values(), *self.asleep.values())
                if session in one.open and (one.name, one.open[session].epoch) == (server, now[0])
            ]
            assert len(heard) <= 1, f"{session}: {heard} would all be listened to"
            if session not in lost:
                holder = holders.setdefault((server, room), session)
                assert holder == session, f"{holder} and {session} are both in room {room} of {server}"
                await self._check_held(session, server, room)
            if next_server:
                await self._check_held(session, next_server, next_room)

    @staticmethod
    def _check_change(session: SessionId, before: tuple[Any, ...] | None, now: tuple[Any, ...]) -> None:
        if before is not None:
            assert now[0] >= before[0], f"{session}: epoch went back"
            assert now[2:] == before[2:] or now[0] > before[0], f"{session}: moved without an epoch"
            assert before[1] is not SessionState.ENDED or now[1] is SessionState.ENDED, f"{session}: came back"

    async def _check_held(self, session: SessionId, server: str, room: str) -> None:
        held = await self.client.hget(f"{PREFIX}server:{server}", f"room:{room}")
        assert held == session.encode(), f"{session} does not hold room {room} of {server}, {held!r} does"

    async def _check_holder(self, server: str, room: int, session: str) -> None:
        """Who holds a room is there, or will be, or is over and to be freed."""
        names = ("state", "server", "room", "next_server", "next_room")
        found = [
            value.decode() if value else "" for value in await self.client.hmget(f"{PREFIX}session:{session}", *names)
        ]
        places = ((found[1], found[2]), (found[3], found[4]))
        assert found[0] in ("", "ended") or (server, str(room)) in places, (
            f"{session} holds room {room} of {server}, and is at {places}"
        )

    async def check_rooms(self) -> None:
        registered = {raw.decode() for raw in await self.client.smembers(PREFIX + "servers")}
        shelf = await self.client.zrange(PREFIX + "shelf", 0, -1, withscores=True)
        claimable = {raw.decode(): int(free) for raw, free in shelf}
        assert claimable.keys() <= registered
        assert {raw.decode().split(":")[-1] for raw in await self.client.keys(PREFIX + "rooms:*")} <= registered
        for server in registered:
            fields = await self.client.hgetall(f"{PREFIX}server:{server}")
            free = [int(raw) for raw in await self.client.lrange(f"{PREFIX}rooms:{server}", 0, -1)]
            held = {int(key.removeprefix(b"room:")): by for key, by in fields.items() if key.startswith(b"room:")}
            assert len({*free, *held}) == len(free) + len(held) == int(fields[b"rooms"]) - int(fields[b"spent"])
            for room, by in held.items():
                await self._check_holder(server, room, by.decode())
            wanted = 0 if fields[b"draining"] == b"1" else len(free)
            assert claimable.get(server, 0) == wanted, (
                f"{server} stands on the shelf with other rooms than are free: {fields}"
            )

    async def settle(self) -> None:
        """Left alone, with servers enough, keepers, recovery and servers put everything right."""
        before, self.lose, self.backend.lose_replies = (self.lose, self.backend.lose_replies), 0.0, 0.0
        await self.stock(8)
        await asyncio.sleep(2 * SETTLE_S)
        await self.client.delete(PREFIX + "keeper")
        quiet = 0  # twice in a row: what a server says is acted on in the round after
        for _ in range(60):
            done = [await self.keepers[index].round() for index in range(2)]
            self.servers_follow()
            done.append(await self.recovery.round())
            done += [await self._hears(server) for server in list(self.alive.values())]
            quiet = 0 if any(done) else quiet + 1
            if quiet == 2:
                break
        else:
            raise AssertionError("the world does not come to rest")
        for server in self.asleep.values():
            await server.hear(self.rng, 0.0)
            assert not server.open, f"{server.name} was given up, and plays on"
        await self._check_rest()
        self.lose, self.backend.lose_replies = before

    async def stock(self, count: int) -> None:
        """So many servers more are Ready."""
        self.backend.add(count)

    async def _hears(self, server: ModelServer) -> bool:
        """One beat; a server that is to go and has nothing left goes. True when anything changed."""
        before = {session: held.epoch for session, held in server.open.items()}
        await server.hear(self.rng, 0.0)
        if server.mode is not ServerMode.SERVE and not server.open:
            fields = await self.client.hgetall(f"{PREFIX}server:{server.name}")
            if not any(key.startswith(b"room:") for key in fields):
                self.alive.pop(server.name, None)
                self.backend.kill(server.name)
                await asyncio.sleep(SETTLE_S)
                return True
        return before != {session: held.epoch for session, held in server.open.items()}

    async def _check_rest(self) -> None:
        """Nothing waits, nothing is lost, shelf and backend agree, and each match that is played is played where the store says, as saved last."""
        state = await self.shelf.observe(FLEET)
        assert (state.waiters, state.ended, state.lost) == (0, (), ())
        assert state.free >= self.policy.shelf
        allocated = [server for server in self.backend.all.values() if server.state is ServerState.ALLOCATED]
        assert all(server.labels[SHELF_LABEL] for server in allocated)
        assert sorted(entry.server for entry in state.entries) == sorted(server.name for server in allocated)
        await self.check_sessions()
        held = {room.session: entry.server for entry in state.entries for room in entry.sessions}
        assert held == {session: self.records[session][2] for session in self.live()}
        for session in self.live():
            epoch, where, name, _ = self.records[session]
            if where is not SessionState.PENDING:
                server = self.alive[ServerName(name)]
                assert server.mode is not ServerMode.MIGRATE, f"{session} stayed on a server that wants to be empty"
                assert server.open[session].epoch == epoch
                assert server.tick[session] >= self.floor[session]

    async def finish(self) -> None:
        """All matches end: every room is free again, and nothing is waited for."""
        await self.settle()
        for session in self.live():
            await self.allocators[1].end(session, reason="test")
        await self.settle()
        state = await self.shelf.observe(FLEET)
        assert all(entry.free == entry.rooms for entry in state.entries)
        assert state.free < self.policy.shelf + self.policy.rooms


class Spoiled(FakeBackend):
    """Its calls take a moment before and after their effect, so that others come between, and fail as Agones' do."""

    async def allocate(self, fleet: FleetName, *, labels: Any, annotations: Any) -> GameServer | None:
        await self._pause()
        if self.rng.random() < self.lose_replies / 2:
            if self.rng.random() < 0.5:
                return None  # UnAllocated: its cache has not seen the Ready ones yet
            raise BackendUnavailable("Contention, 429 or 503: nothing has happened")
        try:
            return await super().allocate(fleet, labels=labels, annotations=annotations)
        finally:
            await self._pause()

    async def servers(self, fleet: FleetName, *, fresh: bool = False) -> tuple[GameServer, ...]:
        await self._pause()
        found = await super().servers(fleet)
        await self._pause()
        return found

    async def label(self, server: ServerName, labels: Any) -> None:
        await self._pause()
        await super().label(server, labels)
        await self._pause()

    async def delete(self, server: ServerName) -> None:
        await self._pause()
        await super().delete(server)
        await self._pause()

    async def _pause(self) -> None:
        await asyncio.sleep(self.rng.choice([0, 0, 0.0003, 0.001]))
