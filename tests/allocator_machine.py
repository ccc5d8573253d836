"""
Allocators, keepers and game servers on a real Valkey, with everything that may go wrong between them.

Requests are cancelled anywhere, and so are ends, drains, moves and whole rounds; servers die, drain, stand still and wake up; the backend's replies are lost or
late. After every step no room is given twice and no match is believed live by two servers that the store would listen to; once left alone, everything
is put right, with no more lost than was never saved. Run by
tests/property/test_allocator_machine.py, also on stores that restart and fail over, and on the fake Agones.
"""

import asyncio
import random
from typing import Any

import hypothesis.strategies as st
import pytest
from allocating import FLEET, PREFIX, SEATS, Spoiled, Stage, World
from cutting import cut_short
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from allocator.model import Allocation, AllocationRequest, FleetPolicy, Unavailable
from allocator.ports import BackendUnavailable
from gameserver.sessions.model import MatchId, ServerMode, ServerName, SessionId, SessionState, session_id
from gameserver.sessions.port import SessionGone

MATCHES = st.integers(0, 9).map(lambda i: MatchId(f"m{i}"))
TWO = st.integers(0, 1)
STEPS = st.integers(0, 40)
ANY = st.integers(0, 20)


class AllocatorMachine(World):
    """Rules are what happens; what may be relied upon is the world's."""

    @initialize(
        rooms=st.integers(1, 3),
        shelf=st.integers(0, 3),
        recycle=st.booleans(),
        migrate=st.booleans(),
        ready=st.integers(0, 3),
        seed=st.integers(0, 2**16),
        lost=st.sampled_from([0.0, 0.4]),
    )
    def begin(self, rooms: int, shelf: int, recycle: bool, migrate: bool, ready: int, seed: int, lost: float) -> None:
        backend = self.run(self.made_backend(ready))
        backend.rng = random.Random(seed)
        self.begin_with(FleetPolicy(name=FLEET, rooms=rooms, shelf=shelf, recycle=recycle, migrate=migrate), backend)
        for number in range(3):
            self._enrich()
            self.a_match_begins(MatchId(f"first-{number}"), 0, joined=True)
        self.lose = backend.lose_replies = lost

    async def made_backend(self, ready: int) -> Stage:
        """With so many Ready servers."""
        return Spoiled(FLEET, ready)

    # The backend.

    @rule(count=st.integers(1, 3))
    def servers_come(self, count: int) -> None:
        self.backend.add(count)

    @rule(rate=st.sampled_from([0.0, 0.3, 1.0]))
    def replies_are_lost(self, rate: float) -> None:
        self.backend.lose_replies = rate

    # Allocators, keepers, recovery.

    @rule(keeper=TWO)
    def keep(self, keeper: int) -> None:
        self.run(self.round(keeper))

    @rule()
    def recover(self) -> None:
        self.run(self.recovery.round())

    @rule(match=MATCHES, who=TWO, joined=st.booleans())
    def a_match_begins(self, match: MatchId, who: int, joined: bool) -> None:
        """It gets a room if there is one, and its server opens it when the first player comes."""

        async def begin() -> None:
            found = await self._allocate(match, who)
            if joined and isinstance(found, Allocation):
                await self._joined(found.session.id, found.session.server, found.session.epoch)

        self.run(begin())

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

    @rule(match=MATCHES, who=TWO, steps=STEPS, deadline_s=st.sampled_from([0.002, 5.0, 30.0]))
    def cancel(self, match: MatchId, who: int, steps: int, deadline_s: float) -> None:
        self.run(self._cancelled(match, who, steps, deadline_s))

    @rule(
        what=st.sampled_from(["keep", "recover", "end", "drain", "move", "reserve"]),
        index=ANY,
        at=STEPS,
        late=st.booleans(),
    )
    def cut(self, what: str, index: int, at: int, late: bool) -> None:
        """Whatever changes something is cancelled at any of its waits, before the answer or with it."""

        async def work() -> None:
            try:
                await self._work(what, index)
            except BackendUnavailable:
                pass

        self.run(cut_short(work(), at, late=late))
        self.servers_follow()

    @rule(index=st.integers(0, 9))
    def end_from_outside(self, index: int) -> None:
        if live := self.live():
            self.run(self.allocators[0].end(live[index % len(live)], reason="test"))

    @rule(
        asked=st.lists(st.tuples(MATCHES, TWO, st.none() | STEPS), max_size=5, unique_by=lambda asked: asked[0]),
        rounds=st.lists(TWO, min_size=1, max_size=4),
        come=st.integers(0, 2),
        end=st.booleans(),
        die=st.booleans(),
    )
    def at_once(
        self, asked: list[tuple[MatchId, int, int | None]], rounds: list[int], come: int, end: bool, die: bool
    ) -> None:
        """Requests, both keepers, recovery, ends and deaths, all at the same time."""

        async def later() -> None:
            for _ in range(come):
                await asyncio.sleep(0.001)
                self.backend.add()
            if die and self.backend.all:
                self._dies(self.rng.choice(list(self.backend.all)))
            if end and (playing := self.playing()):
                await self._ends(*playing[0])
            await self.recovery.round()

        async def keep(keeper: int) -> None:
            for _ in range(rounds.count(keeper)):
                await self.round(keeper)

        async def everything() -> None:
            async with asyncio.TaskGroup() as tasks:
                for keeper in sorted(set(rounds)):
                    tasks.create_task(keep(keeper))
                tasks.create_task(later())
                for match, who, steps in asked:
                    asking = self._allocate(match, who) if steps is None else self._cancelled(match, who, steps, 5.0)
                    tasks.create_task(asking)

        self.run(everything())

    # Game servers.

    @rule(index=ANY)
    def a_player_comes(self, index: int) -> None:
        """Its server opens the match."""
        pending = [s for s in self.live() if self.records[s][1] is SessionState.PENDING]
        if pending:
            session = pending[index % len(pending)]
            epoch, _, name, _ = self.records[session]
            self.run(self._joined(session, ServerName(name), epoch))
        else:
            self._enrich()

    @rule(index=ANY, save=st.booleans())
    def play(self, index: int, save: bool) -> None:
        if held := self.playing():
            server, session = held[index % len(held)]
            self.run(server.play(session, save=save))
        else:
            self._enrich()

    @rule(index=ANY)
    def an_old_epoch_is_refused(self, index: int) -> None:
        moved = [session for session in self.live() if self.records[session][0] > 1]
        if moved:
            session = moved[index % len(moved)]
            writing = self.sessions.checkpoint(session, epoch=self.records[session][0] - 1, tick=10**6, state=b"old")
            with pytest.raises(SessionGone):
                self.run(writing)

    @rule(index=ANY)
    def a_server_hears(self, index: int) -> None:
        if servers := list(self.alive.values()):
            self.run(servers[index % len(servers)].hear(self.rng, self.lose))
        else:
            self._enrich()

    @rule(index=ANY)
    def a_match_ends(self, index: int) -> None:
        if held := self.playing():
            self.run(self._ends(*held[index % len(held)]))
        else:
            self._enrich()

    @rule(index=ANY)
    def a_server_dies(self, index: int) -> None:
        if names := list(self.backend.all):
            self._dies(names[index % len(names)])

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

    @rule(index=ANY, hears=st.booleans(), again=st.booleans())
    def a_server_is_drained(self, index: int, hears: bool, again: bool) -> None:
        """It says that it wants to be empty, rooms are kept for its sessions, and it hears of them, or not yet."""
        if busy := [server for server in self.alive.values() if server.open]:
            server = busy[index % len(busy)]
            server.mode = ServerMode.MIGRATE

            async def drain() -> None:
                await server.hear(self.rng, 0.0)
                await self.recovery.round()
                for session, held in list(server.open.items()) if again else ():
                    await self.shelf.reserve(session, epoch=held.epoch)  # another keeper saw the same
                if hears:
                    await server.hear(self.rng, self.lose)

            self.run(drain())
        else:
            self._enrich()

    @rule()
    def left_alone(self) -> None:
        self.run(self.settle())

    def _enrich(self) -> None:
        """Where there is nothing to act on, the world has grown poor: servers come and are shelved."""

        async def keep() -> None:
            await self.stock(2)
            for _ in range(4):
                await self.round(0)

        self.run(keep())

    async def _joined(self, session: SessionId, name: ServerName, epoch: int) -> None:
        server = self.alive.get(name)
        if server is not None and server.mode is ServerMode.SERVE:
            await server.take(session, epoch)

    def _dies(self, name: ServerName) -> None:
        self.alive.pop(name, None)
        self.backend.kill(name)

    async def _ends(self, server: Any, session: SessionId) -> None:
        try:
            await self.sessions.end(session, epoch=server.open[session].epoch, results=b"{}")
        except SessionGone:
            pass
        server.close(session)

    async def _work(self, what: str, index: int) -> None:
        live, servers = self.live(), list(self.alive)
        match what:
            case "keep":
                await self.client.delete(PREFIX + "keeper")
                await self.keepers[index % 2].round()
            case "recover":
                await self.recovery.round()
            case "drain" if servers:
                await self.shelf.drain(FLEET, servers[index % len(servers)])
            case "end" if live:
                await self.allocators[0].end(live[index % len(live)], reason="test")
            case "move" if live:
                session = live[index % len(live)]
                await self.shelf.move(session, epoch=self.records[session][0])
            case "reserve" if playing := self.playing():
                server, session = playing[index % len(playing)]
                await self.shelf.reserve(session, epoch=server.open[session].epoch)

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


def run_machine(make: Any, *, examples: int, steps: int = 40) -> None:
    run_state_machine_as_test(
        make,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],  # what a real store's timing shows once, shrinking rarely finds again
        ),
    )
