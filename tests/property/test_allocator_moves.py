"""
Servers that die, drain, stand still and lose replies, while their sessions are played: one live place each, whatever happens.

Game servers are modelled by what they know: the sessions they have open, at which epochs, and how far each has got. They act only on what the store
tells them, as real ones do. After every step no session is believed live by two servers that the store would listen to; once left alone, every
session is on a server that lives, with no more lost than was never saved.
"""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any, TypeVar

import hypothesis.strategies as st
from fakes import FakeBackend
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from allocator.keeper import ShelfKeeper
from allocator.model import Allocation, AllocationRequest, FleetPolicy, ServerState
from allocator.recovery import Recovery
from allocator.service import Allocator
from allocator.shelf import Shelf
from gameserver.sessions.client import connect
from gameserver.sessions.model import (
    FleetName,
    MatchId,
    PlayerId,
    Seat,
    ServerMode,
    ServerName,
    Session,
    SessionId,
    SessionState,
    session_id,
)
from gameserver.sessions.port import SessionGone
from gameserver.sessions.valkey import ValkeySessions

T = TypeVar("T")
FLEET = FleetName("arena")
PREFIX = f"wf:{{{FLEET}}}:"
SEATS = (Seat(index=0, player=PlayerId("ann")),)
ANY = st.integers(0, 20)


class ModelServer:
    """A game server's side: what it has open, and what it does when it hears something."""

    def __init__(self, name: ServerName, sessions: ValkeySessions) -> None:
        self.name = name
        self.mode = ServerMode.SERVE
        self.open: dict[SessionId, Session] = {}
        self.tick: dict[SessionId, int] = {}
        self.saved: dict[SessionId, int] = {}
        self._store = sessions

    async def hear(self, rng: random.Random, lose: float) -> None:
        """One heartbeat and what follows from it; a lost reply is a beat whose orders are not heard."""
        orders = await self._store.beat(
            self.name, ttl_s=60, mode=self.mode, rooms={session: held.epoch for session, held in self.open.items()}
        )
        if rng.random() < lose:
            return
        for session in orders.fenced:
            self.close(session)
        for placed in orders.placed:
            held = self.open.get(placed.session)
            if held is None and (self.mode is ServerMode.SERVE or placed.epoch > 1):
                await self.take(placed.session, placed.epoch)
            elif held is not None and placed.reserved:
                await self.hand_over(held, rng, lose)

    async def take(self, session: SessionId, epoch: int) -> None:
        try:
            record, state = await self._store.open(session, server=self.name, epoch=epoch)
        except SessionGone:
            return
        self.open[session] = record
        self.tick[session] = self.saved[session] = int(state or b"0")
        assert self.tick[session] == record.checkpoint_tick

    async def hand_over(self, held: Session, rng: random.Random, lose: float) -> None:
        tick = self.tick[held.id]
        try:
            moved = await self._store.hand_over(held, tick=tick, state=str(tick).encode())
            while rng.random() < lose:  # the reply is lost: it asks again, and hears the same
                again = await self._store.hand_over(held, tick=tick, state=b"never")
                assert (again is None) == (moved is None)
        except SessionGone:
            moved = held
        if moved is not None:
            self.close(held.id)

    async def play(self, session: SessionId, *, save: bool) -> None:
        self.tick[session] += 1
        if save:
            tick = self.tick[session]
            try:
                await self._store.checkpoint(
                    session, epoch=self.open[session].epoch, tick=tick, state=str(tick).encode()
                )
                self.saved[session] = tick
            except SessionGone:
                self.close(session)

    def close(self, session: SessionId) -> None:
        for known in (self.open, self.tick, self.saved):
            known.pop(session, None)


class MovesMachine(RuleBasedStateMachine):
    """Rules are what happens, invariants what may be relied upon."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.client = self.run(self._connect(url))
        self.sessions = ValkeySessions(self.client, FLEET)
        self.shelf = Shelf(self.client)
        self.alive: dict[ServerName, ModelServer] = {}
        self.asleep: dict[ServerName, ModelServer] = {}
        """Stopped: they know what they knew, and may wake up."""
        self.floor: dict[SessionId, int] = {}
        """The tick that each session may never fall below: its newest stored checkpoint."""
        self.matches = 0

    @staticmethod
    async def _connect(url: str) -> Any:
        client = connect(url)
        await client.flushall()
        return client

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize(
        rooms=st.integers(1, 3), migrate=st.booleans(), seed=st.integers(0, 2**16), lose=st.sampled_from([0.0, 0.4])
    )
    def begin(self, rooms: int, migrate: bool, seed: int, lose: float) -> None:
        self.rng, self.lose = random.Random(seed), lose
        policy = FleetPolicy(name=FLEET, rooms=rooms, shelf=2, migrate=migrate)
        self.backend = FakeBackend(FLEET, 4)
        self.keeper = ShelfKeeper(policy, self.shelf, self.client, self.backend)
        self.recovery = Recovery(policy, self.shelf)
        self.allocator = Allocator(self.shelf, self.client, [policy], self.backend)
        self.run(self._keep())
        for _ in range(3):
            self.a_match_begins()

    @rule()
    def a_match_begins(self) -> None:
        self.matches += 1
        self.run(self._place(f"m{self.matches}"))

    @rule(index=ANY, save=st.booleans())
    def play(self, index: int, save: bool) -> None:
        if held := [(server, session) for server in self.alive.values() for session in server.open]:
            server, session = held[index % len(held)]
            self.run(server.play(session, save=save))

    @rule(index=ANY)
    def a_server_hears(self, index: int) -> None:
        if servers := list(self.alive.values()):
            self.run(servers[index % len(servers)].hear(self.rng, self.lose))

    @rule(index=ANY)
    def a_server_dies(self, index: int) -> None:
        if names := list(self.alive):
            name = names[index % len(names)]
            self.alive.pop(name)
            self.backend.kill(name)

    @rule(index=ANY)
    def a_server_stands_still_and_is_given_up(self, index: int) -> None:
        if names := list(self.alive):
            name = names[index % len(names)]
            self.asleep[name] = self.alive.pop(name)
            self.run(self.shelf.drop(FLEET, name, dead=True))
            self.backend.kill(name)

    @rule(index=ANY, save=st.booleans())
    def a_server_wakes_up(self, index: int, save: bool) -> None:
        """Of its sessions that have moved it can write nothing, and its first word with the store leaves it with none of them."""
        if names := list(self.asleep):
            server = self.asleep[names[index % len(names)]]
            for session in list(server.open) if save else ():
                self.run(server.play(session, save=True))
            self.run(server.hear(self.rng, 0.0))
            for session, held in server.open.items():
                found = self.run(self.shelf.find(session))
                assert found is not None
                assert (found.session.server, found.session.epoch) == (server.name, held.epoch)

    @rule(index=ANY, how=st.sampled_from([ServerMode.MIGRATE, ServerMode.FINISH]))
    def a_server_is_told_to_go(self, index: int, how: ServerMode) -> None:
        if servers := list(self.alive.values()):
            servers[index % len(servers)].mode = how

    @rule(index=ANY, hears=st.booleans())
    def a_server_is_drained(self, index: int, hears: bool) -> None:
        """It says that it wants to be empty, rooms are kept for its sessions, and it hears of them, or not yet."""
        if busy := [server for server in self.alive.values() if server.open]:
            server = busy[index % len(busy)]
            server.mode = ServerMode.MIGRATE

            async def drain() -> None:
                await server.hear(self.rng, 0.0)
                await self.recovery.round()
                if hears:
                    await server.hear(self.rng, self.lose)

            self.run(drain())

    @rule()
    def recover(self) -> None:
        self.run(self.recovery.round())

    @rule(count=st.integers(1, 2))
    def keep(self, count: int) -> None:
        self.backend.add(count)
        self.run(self._keep())

    @rule(index=ANY)
    def a_match_ends(self, index: int) -> None:
        if held := [(server, session) for server in self.alive.values() for session in server.open]:
            server, session = held[index % len(held)]
            try:
                self.run(self.sessions.end(session, epoch=server.open[session].epoch, results=b"{}"))
            except SessionGone:
                pass
            server.close(session)

    @rule()
    def settle(self) -> None:
        self.run(self._settle())

    @invariant()
    def one_server_each(self) -> None:
        """The store listens to at most one server about each session; no checkpoint goes back; rooms add up."""
        self.run(self._check())

    def teardown(self) -> None:
        try:
            if hasattr(self, "backend"):
                self.run(self._settle())
        finally:
            self.run(self.client.aclose())
            self.runner.close()

    async def _place(self, match: str) -> None:
        request = AllocationRequest(match=MatchId(match), fleets=(FLEET,), seats=SEATS)
        found = await self.allocator.allocate(request, deadline_s=0.02)
        server = self.alive.get(found.session.server) if isinstance(found, Allocation) else None
        if server is not None and server.mode is ServerMode.SERVE:
            await server.take(session_id(FLEET, MatchId(match)), 1)

    async def _keep(self) -> None:
        for _ in range(10):
            done = await self.keeper.round()
            for name, server in self.backend.all.items():
                if server.state is ServerState.ALLOCATED and name not in self.alive:
                    self.alive[name] = ModelServer(name, self.sessions)
            if not done:
                return

    async def _check(self) -> None:
        for raw in await self.client.keys(PREFIX + "session:*"):
            session = SessionId(raw.decode().removeprefix(PREFIX + "session:"))
            values = await self.client.hmget(
                raw, "server", "epoch", "state", "checkpoint_tick", "next_server", "next_room"
            )
            server, epoch, state, tick, next_server, next_room = (v.decode() if v else None for v in values)
            heard = [
                held.name
                for held in (*self.alive.values(), *self.asleep.values())
                if session in held.open
                and (held.name, str(held.open[session].epoch)) == (server, epoch)
                and state != "ended"
            ]
            assert len(heard) <= 1
            assert int(tick or 0) >= self.floor.get(session, 0), "a checkpoint went back"
            self.floor[session] = int(tick or 0)
            if next_server is not None and state != "ended":
                kept = await self.client.hget(f"{PREFIX}server:{next_server}", f"room:{next_room}")
                assert kept == session.encode(), "the reserved room is not kept"
        for name in await self.client.smembers(PREFIX + "servers"):
            fields = await self.client.hgetall(f"{PREFIX}server:{name.decode()}")
            free = [int(room) for room in await self.client.lrange(f"{PREFIX}rooms:{name.decode()}", 0, -1)]
            held = [int(key.removeprefix(b"room:")) for key in fields if key.startswith(b"room:")]
            assert len(set(free + held)) == len(free + held) == int(fields[b"rooms"]) - int(fields[b"spent"])

    async def _settle(self) -> None:
        """Left alone, with servers enough and no reply lost, every session is live on a server that serves, where it was saved last."""
        lose, self.lose = self.lose, 0.0
        for _ in range(12):
            self.backend.add(3)
            await self._keep()
            await self.recovery.round()
            for server in list(self.alive.values()):
                await server.hear(self.rng, 0.0)
                if server.mode is not ServerMode.SERVE and not server.open and server.name in self.alive:
                    left = await self.client.hgetall(f"{PREFIX}server:{server.name}")
                    if not [key for key in left if key.startswith(b"room:")]:
                        self.alive.pop(server.name)
                        self.backend.kill(server.name)
        self.lose = lose
        for server in self.asleep.values():
            await server.hear(self.rng, 0.0)
            assert not server.open
        state = await self.shelf.observe(FLEET)
        assert state.lost == ()
        for raw in await self.client.keys(PREFIX + "session:*"):
            session = SessionId(raw.decode().removeprefix(PREFIX + "session:"))
            found = await self.shelf.find(session)
            assert found is not None
            if found.session.state in (SessionState.LIVE, SessionState.DRAINING):
                server = self.alive[found.session.server]
                assert server.mode is not ServerMode.MIGRATE, f"{session} stayed on a server that wants to be empty"
                assert server.open[session].epoch == found.session.epoch
                assert server.tick[session] >= found.session.checkpoint_tick


def test_sessions_move_among_faults(valkey_url: str) -> None:
    """No session is lost, none is played by two servers that are listened to, and no checkpoint goes back."""
    run_state_machine_as_test(
        lambda: MovesMachine(valkey_url),
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        ),
    )
