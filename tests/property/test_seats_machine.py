"""Parties and leavers on a real Valkey, against a model: no seat twice, no party split, no more players than seats."""

import asyncio
from typing import Any

import hypothesis.strategies as st
import pytest
import redis.asyncio
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from allocator.model import Allocation, GameServer, ServerState, Strategy, Temperature
from allocator.seats import NoSeats, Seats
from allocator.shelf import Shelf
from gameserver.sessions.client import StoreClient, connect
from gameserver.sessions.model import FleetName, MatchId, PlayerId, Seat, ServerName, SessionId, session_id
from gameserver.sessions.notices import Notices
from gameserver.sessions.port import SessionGone
from gameserver.sessions.valkey import ValkeySessions

FLEET = FleetName("arena")
RESERVED = f"wf:{{{FLEET}}}:reserved"
CAPACITY = 5
MATCHES = st.integers(0, 3)
PARTIES = st.integers(0, 7).flatmap(lambda i: st.tuples(st.just(i), st.integers(1, 3)))


def session(match: int) -> SessionId:
    return session_id(FLEET, MatchId(f"m{match}"))


def party(number: int, size: int) -> list[tuple[PlayerId, str]]:
    return [(PlayerId(f"p{number}-{i}"), "red" if i % 2 else "blue") for i in range(size)]


async def claim(shelf: Shelf, match: int, *, seated: int = 1, free: int = CAPACITY - 1, queue: str = "q") -> None:
    await shelf.claim(
        FLEET,
        session(match),
        seats=tuple(Seat(index=i, player=PlayerId(f"first-{match}-{i}")) for i in range(seated)),
        options={"queue": queue},
        temperature=Temperature.SHELF,
        free_seats=free,
    )


async def stocked(client: StoreClient) -> Shelf:
    shelf = Shelf(client)
    server = GameServer(name=ServerName("s"), fleet=FLEET, state=ServerState.ALLOCATED, host="h", ports={"udp": 1})
    await shelf.register(server, rooms=20)
    return shelf


class SeatsMachine(RuleBasedStateMachine):
    """The model is who sits where; after every step the records say the same."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.client = connect(url)
        self.seated: dict[int, set[PlayerId]] = {}
        self.parties: dict[int, int] = {}
        self.came: set[tuple[int, PlayerId]] = set()

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    @initialize()
    def begin(self) -> None:
        self.run(self.client.flushall())
        self.shelf = self.run(stocked(self.client))
        self.seats = Seats(self.client)
        self.sessions = ValkeySessions(self.client, FLEET)
        for match in range(3):
            self.run(claim(self.shelf, match))
            self.seated[match] = {PlayerId(f"first-{match}-0")}

    @rule(who=PARTIES, strategy=st.sampled_from(Strategy), times=st.integers(1, 2))
    def find(self, who: tuple[int, int], strategy: Strategy, times: int) -> None:
        number, size = who
        members = party(number, size)
        found = [
            self.run(self.seats.find(FLEET, f"r{number}", members, queue="q", strategy=strategy)) for _ in range(times)
        ]
        assert len({f.session.id if isinstance(f, Allocation) else None for f in found}) == 1
        names = {player for player, _ in members}
        if isinstance(found[0], Allocation):
            match = int(found[0].session.id.removeprefix(f"{FLEET}.m"))
            self.seated[match] |= names
            assert names <= {seat.player for seat in found[0].session.seats}
            self.parties[number] = match
        else:
            before = self.parties.get(number)
            assert all(len(held | names) > CAPACITY for match, held in self.seated.items() if match != before), (
                "a session had room for the party"
            )

    @rule(match=MATCHES, who=PARTIES)
    def reserve(self, match: int, who: tuple[int, int]) -> None:
        members = party(who[0] + 100, who[1])
        if match not in self.seated:
            with pytest.raises(SessionGone):
                self.run(self.seats.reserve(session(match), members))
            return
        names = {player for player, _ in members}
        found = self.run(self.seats.reserve(session(match), members))
        if len(self.seated[match] | names) <= CAPACITY:
            assert isinstance(found, Allocation)
            self.seated[match] |= names
        else:
            assert found == NoSeats(free=CAPACITY - len(self.seated[match]))

    @rule(match=MATCHES, count=st.integers(1, 3), epoch=st.sampled_from([1, 1, 1, 2]))
    def leave(self, match: int, count: int, epoch: int) -> None:
        leaving = sorted(self.seated.get(match, set()))[:count]
        if match not in self.seated or epoch != 1:
            with pytest.raises(SessionGone):
                self.run(self.seats.release(session(match), leaving, epoch=epoch))
            return
        for expected in (len(leaving), 0):  # asked again, nobody is there any more
            assert self.run(self.seats.release(session(match), leaving, epoch=epoch)) == expected
        self.seated[match] -= set(leaving)
        self.came -= {(match, player) for player in leaving}

    @rule(match=MATCHES, count=st.integers(1, 3))
    def come(self, match: int, count: int) -> None:
        """Their server says so: these seats are no longer only kept for them."""
        coming = sorted(p for p in self.seated.get(match, set()) if (match, p) not in self.came)[:count]
        if match in self.seated:
            self.run(self.sessions.seats(session(match), epoch=1, came=coming, left=()))
            self.came |= {(match, player) for player in coming}

    @rule(some=st.booleans())
    def time_passes(self, some: bool) -> None:
        """Seats that are kept for longer than their players had, all of them or some, are free again; those of players who came are not."""
        due = []
        for raw in self.run(self.client.zrange(RESERVED, 0, -1)):
            match, player = raw.decode().removeprefix(f"{FLEET}.m").split(" ")
            assert (int(match), player) not in self.came or int(match) not in self.seated
            if not some or len(due) % 2 == 0:
                self.run(self.client.zadd(RESERVED, {raw: 1}))
                due.append((session(int(match)), PlayerId(player)))
        playing = [(where, player) for where, player in due if player in self._players_of(where)]
        assert sorted(self.run(self.sessions.expire_seats())) == sorted(playing)
        for where, player in playing:
            self.seated[int(where.removeprefix(f"{FLEET}.m"))].discard(player)

    def _players_of(self, where: SessionId) -> set[PlayerId]:
        return self.seated.get(int(where.removeprefix(f"{FLEET}.m")), set())

    @rule(match=MATCHES)
    def end(self, match: int) -> None:
        self.run(self.shelf.end(session(match), reason="test", recycle=True))
        self.seated.pop(match, None)

    @rule(parties=st.lists(PARTIES, min_size=2, max_size=5, unique_by=lambda who: who[0]))
    def at_once(self, parties: list[tuple[int, int]]) -> None:
        """Parties at the same time: none is split, and together they are no more than there were seats."""

        async def everybody() -> list[Allocation | NoSeats]:
            asking = [self.seats.find(FLEET, f"r{n}-x", party(n + 200, size), queue="q") for n, size in parties]
            return list(await asyncio.gather(*asking))

        for (number, size), found in zip(parties, self.run(everybody()), strict=True):
            if isinstance(found, Allocation):
                match = int(found.session.id.removeprefix(f"{FLEET}.m"))
                self.seated[match] |= {player for player, _ in party(number + 200, size)}

    @invariant()
    def records_say_the_same(self) -> None:
        for match, players in self.seated.items():
            found = self.run(self.shelf.find(session(match)))
            assert found is not None
            seats = found.session.seats
            assert {seat.player for seat in seats} == players
            assert len({seat.index for seat in seats}) == len(seats) == len(players) <= CAPACITY
            assert all(0 <= seat.index < CAPACITY for seat in seats)
            assert found.session.free_seats == CAPACITY - len(seats)

    def teardown(self) -> None:
        self.run(self.client.aclose())
        self.runner.close()


def test_parties_and_leavers(valkey_url: str) -> None:
    """Whatever comes and goes, in whatever order: seats add up."""
    run_state_machine_as_test(
        lambda: SeatsMachine(valkey_url),
        settings=settings(
            max_examples=40,
            stateful_step_count=25,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        ),
    )


async def test_a_party_is_packed_or_spread(valkey: redis.asyncio.Redis) -> None:
    """Packed: where the fewest seats are left that are enough. Distributed: where the most are."""
    shelf, seats = await stocked(valkey), Seats(valkey)
    for match, free in enumerate((1, 3, 4)):
        await claim(shelf, match, free=free)
    two = [(PlayerId("a"), ""), (PlayerId("b"), "")]
    packed = await seats.find(FLEET, "r1", two, queue="q")
    assert isinstance(packed, Allocation)
    assert packed.session.id == session(1)
    three = [(PlayerId(name), "") for name in "cde"]
    spread = await seats.find(FLEET, "r2", three, queue="q", strategy=Strategy.DISTRIBUTED)
    assert isinstance(spread, Allocation)
    assert spread.session.id == session(2)
    assert await seats.find(FLEET, "r3", three, queue="q") == NoSeats(free=0)


async def test_only_the_queues_own_sessions_take_a_party(valkey: redis.asyncio.Redis) -> None:
    """Sessions of another queue, and those that were not opened, are left alone; opening is for who has the epoch."""
    shelf, seats = await stocked(valkey), Seats(valkey)
    await claim(shelf, 0, queue="other")
    await claim(shelf, 1, seated=2, free=0)
    alone = [(PlayerId("a"), "")]
    assert await seats.find(FLEET, "r1", alone, queue="q") == NoSeats(free=0)
    with pytest.raises(SessionGone, match="epoch 2"):
        await seats.open(session(1), epoch=2, free=1)
    with pytest.raises(ValueError, match="free"):
        await seats.open(session(1), epoch=1, free=-1)
    await seats.open(session(1), epoch=1, free=1)
    found = await seats.find(FLEET, "r1", alone, queue="q")
    assert isinstance(found, Allocation)
    assert found.session.seats[-1] == Seat(index=2, player=PlayerId("a"))
    for wrong in ([], [*alone, *alone]):
        with pytest.raises(ValueError, match="party"):
            await seats.reserve(session(1), wrong)
    await seats.release(session(1), [PlayerId("a"), PlayerId("first-1-0"), PlayerId("first-1-1")], epoch=1)
    emptied = await shelf.find(session(1))
    assert emptied is not None
    assert (emptied.session.seats, emptied.session.free_seats) == ((), 3)
    assert isinstance(await seats.reserve(session(1), alone), Allocation)


async def test_a_leaver_frees_its_seat_only_where_others_may_come(valkey: StoreClient) -> None:
    """A match that takes nobody keeps the seat of one who may come back, also once it was closed; an older epoch changes nothing."""
    shelf, seats, sessions = await stocked(valkey), Seats(valkey), ValkeySessions(valkey, FLEET)
    first = PlayerId("first-0-0")
    await claim(shelf, 0, free=0)
    await claim(shelf, 1, free=2)

    async def seated(match: int) -> tuple[int, int]:
        found = await shelf.find(session(match))
        assert found is not None
        return len(found.session.seats), found.session.free_seats

    await sessions.seats(session(0), epoch=1, came=(), left=[first])
    assert await seated(0) == (1, 0)
    with pytest.raises(SessionGone):
        await sessions.seats(session(1), epoch=2, came=(), left=[PlayerId("first-1-0")])
    await seats.open(session(1), epoch=1, free=0)
    await sessions.seats(session(1), epoch=1, came=(), left=[PlayerId("first-1-0")])
    assert await seated(1) == (1, 0)
    await seats.open(session(1), epoch=1, free=1)
    for _ in range(2):  # said again, nobody is there any more
        await sessions.seats(session(1), epoch=1, came=(), left=[PlayerId("first-1-0")])
        assert await seated(1) == (0, 2)


async def test_who_left_is_noted_until_it_is_back_and_who_was_excused_is_not(valkey: StoreClient) -> None:
    """In the record, by team, whether the seat is free for others or not; and once for the queue, in the order in which they left."""
    shelf, seats, sessions, notices = (
        await stocked(valkey),
        Seats(valkey),
        ValkeySessions(valkey, FLEET),
        Notices(valkey),
    )
    await claim(shelf, 0, seated=3, free=0)
    await claim(shelf, 1, free=2)
    await seats.reserve(session(1), [(PlayerId("eve"), "blue")])
    one, two, three = (PlayerId(f"first-0-{i}") for i in range(3))

    async def left(match: int) -> dict[str, str]:
        found = await shelf.find(session(match))
        assert found is not None
        return dict(found.session.left)

    for _ in range(2):
        await sessions.seats(session(0), epoch=1, came=(), left=[one, two, PlayerId("nobody")], excused=[two])
    await sessions.seats(session(1), epoch=1, came=[PlayerId("eve")], left=())
    await seats.release(session(1), [PlayerId("eve")], epoch=1)
    assert await left(0) == {one: ""}
    assert await left(1) == {"eve": "blue"}
    assert [(leaver.session, leaver.player) for leaver in await notices.leavers(FLEET, "q")] == [
        (session(0), one),
        (session(1), "eve"),
    ]
    await sessions.seats(session(0), epoch=1, came=[one], left=[three])
    assert await left(0) == {three: ""}
    for leaver in await notices.leavers(FLEET, "q"):
        await notices.forget(FLEET, "q", leaver)
    assert await notices.leavers(FLEET, "q") == []
    with pytest.raises(SessionGone):
        await sessions.seats(session(0), epoch=2, came=(), left=[one])
    assert await left(0) == {three: ""}


async def test_a_clock_that_went_back_keeps_no_seat_for_long(valkey: StoreClient) -> None:
    """A time that lies farther ahead than a seat is ever kept is cut to that."""
    shelf, seats = await stocked(valkey), Seats(valkey)
    await claim(shelf, 0)
    await seats.reserve(session(0), [(PlayerId("a"), "")])
    (member,) = await valkey.zrange(RESERVED, 0, -1)
    until_ms = float(await valkey.zscore(RESERVED, member))
    await valkey.zadd(RESERVED, {member: until_ms + 3_600_000})
    assert await ValkeySessions(valkey, FLEET).expire_seats() == []
    assert until_ms - 1000 <= float(await valkey.zscore(RESERVED, member)) <= until_ms + 60_000
