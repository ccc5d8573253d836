"""
Two allocators and two keepers on a real Valkey, with everything that may go wrong between them.

Requests are cancelled anywhere, servers die, the backend's replies are lost or late, keepers overlap as if the lease were not there. After
every step no room is given twice; once left alone, the keepers put everything right.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import hypothesis.strategies as st
import pytest
from fakes import FakeBackend
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from allocator.keeper import ShelfKeeper
from allocator.model import Allocation, AllocationRequest, FleetPolicy, GameServer, ServerState, Unavailable
from allocator.ports import SHELF_LABEL, BackendUnavailable
from allocator.service import Allocator
from allocator.shelf import Shelf
from gameserver.sessions.client import connect
from gameserver.sessions.model import (
    FleetName,
    MatchId,
    PlayerId,
    Seat,
    ServerName,
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
SETTLE_S = 0.02
"""Stands in for the planner's: this backend's lists are never older than that."""
MATCHES = st.integers(0, 9).map(lambda i: MatchId(f"m{i}"))
TWO = st.integers(0, 1)
STEPS = st.integers(0, 40)


class LateBackend(FakeBackend):
    """Its calls take a moment before and after their effect, so that others come between."""

    async def allocate(
        self, fleet: FleetName, *, labels: Mapping[str, str], annotations: Mapping[str, str]
    ) -> GameServer | None:
        async with self._late():
            return await super().allocate(fleet, labels=labels, annotations=annotations)

    async def servers(self, fleet: FleetName, *, fresh: bool = False) -> tuple[GameServer, ...]:
        async with self._late():
            return await super().servers(fleet)

    async def label(self, server: ServerName, labels: Mapping[str, str]) -> None:
        async with self._late():
            await super().label(server, labels)

    async def delete(self, server: ServerName) -> None:
        async with self._late():
            await super().delete(server)

    @asynccontextmanager
    async def _late(self) -> AsyncIterator[None]:
        await self._pause()
        try:
            yield
        finally:
            await self._pause()

    async def _pause(self) -> None:
        await asyncio.sleep(self.rng.choice([0, 0, 0.0003, 0.001]))


class AllocatorMachine(RuleBasedStateMachine):
    """Rules are what happens, invariants what may be relied upon."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.client = self.run(self._connect(url))
        self.shelf = Shelf(self.client)
        self.sessions = ValkeySessions(self.client, FLEET)
        self.records: dict[SessionId, tuple[int, SessionState, str, str]] = {}
        """Epoch, state, server and room that each session was last seen with."""

    @staticmethod
    async def _connect(url: str) -> Any:
        client = connect(url)
        await client.flushall()
        return client

    @initialize(
        rooms=st.integers(1, 3),
        shelf=st.integers(0, 3),
        recycle=st.booleans(),
        ready=st.integers(0, 3),
        seed=st.integers(0, 2**16),
        lost=st.sampled_from([0.0, 0.4]),
    )
    def begin(self, *, rooms: int, shelf: int, recycle: bool, ready: int, seed: int, lost: float) -> None:
        self.policy = FleetPolicy(name=FLEET, rooms=rooms, shelf=shelf, recycle=recycle)
        self.backend = LateBackend(FLEET, ready)
        self.backend.rng = random.Random(seed)
        self.backend.lose_replies = lost
        self.allocators = [Allocator(Shelf(self.client), self.client, [self.policy], self.backend) for _ in range(2)]
        self.keepers = [ShelfKeeper(self.policy, Shelf(self.client), self.client, self.backend) for _ in range(2)]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    # What happens.

    @rule(count=st.integers(1, 3))
    def servers_come(self, count: int) -> None:
        self.backend.add(count)

    @rule(index=st.integers(0, 20))
    def server_dies(self, index: int) -> None:
        if names := list(self.backend.all):
            self.backend.kill(names[index % len(names)])

    @rule(rate=st.sampled_from([0.0, 0.3, 1.0]))
    def replies_are_lost(self, rate: float) -> None:
        self.backend.lose_replies = rate

    @rule(keeper=TWO)
    def keep(self, keeper: int) -> None:
        self.run(self._round(keeper))

    @rule(match=MATCHES, who=TWO)
    def allocate(self, match: MatchId, who: int) -> None:
        self.run(self._allocate(match, who))

    @rule(match=MATCHES, twice=st.booleans())
    def repeat(self, match: MatchId, twice: bool) -> None:
        """The same match is asked for at both allocators, at once or one after the other: one session."""

        async def ask() -> None:
            if twice:
                found = [await self._allocate(match, 0), await self._allocate(match, 1, retried=True)]
            else:
                found = list(await asyncio.gather(self._allocate(match, 0), self._allocate(match, 1)))
            given = [a.session for a in found if isinstance(a, Allocation)]
            assert len({session.id for session in given}) <= 1
            assert len({(session.epoch, session.server, session.room) for session in given}) <= 1

        self.run(ask())

    @rule(match=MATCHES, who=TWO, steps=STEPS, deadline_s=st.sampled_from([0.002, 5.0]))
    def cancel(self, match: MatchId, who: int, steps: int, deadline_s: float) -> None:
        self.run(self._cancelled(match, who, steps, deadline_s))

    @rule(
        asked=st.lists(st.tuples(MATCHES, TWO, st.none() | STEPS), max_size=5, unique_by=lambda asked: asked[0]),
        rounds=st.lists(TWO, min_size=1, max_size=4),
        come=st.integers(0, 2),
        end=st.booleans(),
        die=st.booleans(),
    )
    def at_once(
        self,
        asked: list[tuple[MatchId, int, int | None]],
        rounds: list[int],
        come: int,
        end: bool,
        die: bool,
    ) -> None:
        """Requests, both keepers, ends and deaths, all at the same time."""

        async def later() -> None:
            for _ in range(come):
                await asyncio.sleep(0.001)
                self.backend.add()
            if die and self.backend.all:
                self.backend.kill(self.backend.rng.choice(list(self.backend.all)))
            if end:
                await self._play(index=0, over=True)

        async def keep(keeper: int) -> None:
            for _ in range(rounds.count(keeper)):
                await self._round(keeper)

        async def everything() -> None:
            async with asyncio.TaskGroup() as tasks:
                for keeper in sorted(set(rounds)):
                    tasks.create_task(keep(keeper))
                tasks.create_task(later())
                for match, who, steps in asked:
                    asking = self._allocate(match, who) if steps is None else self._cancelled(match, who, steps, 5.0)
                    tasks.create_task(asking)

        self.run(everything())

    @rule(index=st.integers(0, 9), over=st.booleans())
    def play(self, index: int, over: bool) -> None:
        self.run(self._play(index=index, over=over))

    @rule(index=st.integers(0, 9))
    def end_from_outside(self, index: int) -> None:
        if live := self._live():
            self.run(self.allocators[0].end(live[index % len(live)], reason="test"))

    @rule()
    def settle(self) -> None:
        """Left alone, with servers enough, the keepers put everything right."""
        rate = self.backend.lose_replies
        self.run(self._settle())
        self.backend.lose_replies = rate

    # What may be relied upon.

    @invariant()
    def one_place_each(self) -> None:
        """No two live sessions share a room; a session moves only with a new epoch; its end is final."""
        self.run(self._check_sessions())

    @invariant()
    def rooms_add_up(self) -> None:
        """Each room of a registered server is free, held or spent, exactly once."""
        self.run(self._check_rooms())

    def teardown(self) -> None:
        try:
            if hasattr(self, "backend"):
                self.run(self._finish())
        finally:
            self.run(self.client.aclose())
            self.runner.close()

    async def _allocate(self, match: MatchId, who: int, *, retried: bool = False) -> Allocation | Unavailable:
        request = AllocationRequest(match=match, fleets=(FLEET,), seats=SEATS, retried=retried)
        found = await self.allocators[who].allocate(request, deadline_s=0.01)
        if isinstance(found, Allocation):
            assert found.session.id == session_id(FLEET, match)
        return found

    async def _cancelled(self, match: MatchId, who: int, steps: int, deadline_s: float) -> None:
        """Cancel a request after so many steps of the loop; unless it was answered, it holds nothing then."""
        known = await self.shelf.find(session_id(FLEET, match)) is not None
        request = AllocationRequest(match=match, fleets=(FLEET,), seats=SEATS)
        asking = asyncio.create_task(self.allocators[who].allocate(request, deadline_s=deadline_s))
        for step in range(steps):
            await asyncio.sleep(0.0002 if step % 4 == 3 else 0)
        asking.cancel()
        await asyncio.wait([asking])
        if asking.cancelled():
            found = await self.shelf.find(session_id(FLEET, match))
            assert known or found is None or found.session.state is SessionState.ENDED
            assert await self.client.zscore(PREFIX + "waiters", session_id(FLEET, match)) is None
        else:
            asking.result()

    async def _round(self, keeper: int) -> bool:
        """One keeper's round; half of the time the other's lease has just run out, in the midst of its work as it may be."""
        if self.backend.rng.random() < 0.5:
            await self.client.delete(PREFIX + "keeper")
        try:
            return await self.keepers[keeper].round()
        except BackendUnavailable:
            return True

    async def _play(self, *, index: int, over: bool) -> None:
        """A server opens a session, writes, perhaps ends it; an older epoch than the record's is refused."""
        live = self._live()
        if not live or (found := await self.shelf.find(live[index % len(live)])) is None:
            return
        session = found.session
        if session.state is SessionState.ENDED or session.server not in self.backend.all:
            return
        if session.epoch > 1:
            with pytest.raises(SessionGone):
                await self.sessions.checkpoint(session.id, epoch=session.epoch - 1, tick=1, state=b"old")
        try:
            await self.sessions.open(session.id, server=session.server, epoch=session.epoch)
            await self.sessions.checkpoint(session.id, epoch=session.epoch, tick=1, state=b"new")
            if over:
                await self.sessions.end(session.id, epoch=session.epoch, results=b"{}")
        except SessionGone:
            now = await self.shelf.find(session.id)  # another was faster
            assert now is not None
            assert now.session.state is SessionState.ENDED or now.session.epoch > session.epoch

    def _live(self) -> list[SessionId]:
        return [session for session, (_, state, _, _) in self.records.items() if state is not SessionState.ENDED]

    async def _check_sessions(self) -> None:
        lost = {raw.decode() for raw in await self.client.smembers(PREFIX + "lost")}
        holders: dict[tuple[str, str], SessionId] = {}
        for raw in sorted(await self.client.keys(PREFIX + "session:*")):
            session = SessionId(raw.decode().removeprefix(PREFIX + "session:"))
            values = await self.client.hmget(raw, "epoch", "state", "server", "room")
            epoch, state, server, room = (value.decode() for value in values)
            now = (int(epoch), SessionState(state), server, room)
            before = self.records.get(session)
            self.records[session] = now
            if before is not None:
                assert now[0] >= before[0], f"{session}: epoch went back"
                assert now[2:] == before[2:] or now[0] > before[0], f"{session}: moved without an epoch"
                assert before[1] is not SessionState.ENDED or now[1] is SessionState.ENDED, f"{session}: came back"
            if now[1] is not SessionState.ENDED and session not in lost:
                holder = holders.setdefault((server, room), session)
                assert holder == session, f"{holder} and {session} are both in room {room} of {server}"
                held = await self.client.hget(f"{PREFIX}server:{server}", f"room:{room}")
                assert held == session.encode(), f"{session} does not hold its room, {held!r} does"

    async def _check_rooms(self) -> None:
        registered = {raw.decode() for raw in await self.client.smembers(PREFIX + "servers")}
        claimable = {
            raw.decode(): int(n) for raw, n in await self.client.zrange(PREFIX + "shelf", 0, -1, withscores=True)
        }
        assert claimable.keys() <= registered
        assert {raw.decode().split(":")[-1] for raw in await self.client.keys(PREFIX + "rooms:*")} <= registered
        for server in registered:
            fields = await self.client.hgetall(f"{PREFIX}server:{server}")
            free = [int(raw) for raw in await self.client.lrange(f"{PREFIX}rooms:{server}", 0, -1)]
            held = [int(key.removeprefix(b"room:")) for key in fields if key.startswith(b"room:")]
            assert len(set(free + held)) == len(free + held) == int(fields[b"rooms"]) - int(fields[b"spent"])
            assert claimable.get(server, 0) == len(free)

    async def _settle(self) -> None:
        self.backend.lose_replies = 0.0
        self.backend.add(8)
        await asyncio.sleep(2 * SETTLE_S)
        await self.client.delete(PREFIX + "keeper")
        for _ in range(40):
            if not any([await self.keepers[0].round(), await self.keepers[1].round()]):
                break
        else:
            raise AssertionError("the keepers do not come to rest")
        state = await self.shelf.observe(FLEET)
        assert (state.waiters, state.ended, state.lost) == (0, (), ())
        assert state.free >= self.policy.shelf
        allocated = [s for s in self.backend.all.values() if s.state is ServerState.ALLOCATED]
        assert all(server.labels[SHELF_LABEL] for server in allocated)
        assert sorted(entry.server for entry in state.entries) == sorted(server.name for server in allocated)
        await self._check_sessions()
        held = {room.session: entry.server for entry in state.entries for room in entry.sessions}
        assert held == {session: self.records[session][2] for session in self._live()}

    async def _finish(self) -> None:
        """All matches end: every room is free again, and nothing is waited for."""
        await self._settle()
        for session in self._live():
            await self.allocators[1].end(session, reason="test")
        await self._settle()
        state = await self.shelf.observe(FLEET)
        assert all(entry.free == entry.rooms for entry in state.entries)
        assert state.free < self.policy.shelf + self.policy.rooms


def test_allocators_and_keepers_among_faults(valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No step gives a room twice, and no fault leaves anything behind."""
    monkeypatch.setattr("allocator.planner.SETTLE_S", SETTLE_S)
    run_state_machine_as_test(
        lambda: AllocatorMachine(valkey_url),
        settings=settings(
            max_examples=40,
            stateful_step_count=25,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],  # what a real store's timing shows once, shrinking rarely finds again
        ),
    )
