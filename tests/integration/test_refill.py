"""Games that want players: from what they say to who is seated in their running match, with a real store."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeBackend
from game_server import ISSUER, started, until_world
from matchmaking import DUEL, FLEET, solo, until
from redis.exceptions import ConnectionError as RedisConnectionError
from structlog.testing import capture_logs

from allocator.model import Allocation, FleetPolicy, GameServer, ServerState, Temperature
from allocator.seats import NoSeats, Party, Seats
from allocator.service import Allocator
from allocator.shelf import Shelf
from gameserver.client.websocket import GameClient
from gameserver.seats import SeatGrant
from gameserver.sessions.client import StoreClient
from gameserver.sessions.control import SessionControl
from gameserver.sessions.model import MatchId, PlayerId, Seat, ServerName, SessionId, session_id
from gameserver.sessions.notices import Notices, Wanting
from gameserver.sessions.port import SessionGone
from gameserver.sessions.valkey import ValkeySessions, session_key
from matchmaker.backfill import Backfill, choose
from matchmaker.director import Director
from matchmaker.model import DifferenceRule, Limit, QueueConfig, Ticket, TicketId, TicketPlayer, TicketState
from matchmaker.records import TicketRecord
from matchmaker.store import TicketStore

NEAR = replace(DUEL, backfill=True, rules=(DifferenceRule(attribute="rating", limit=Limit(value=100)),))
SESSION = session_id(FLEET, MatchId("m"))
ANN, BOB, CAT, DAN = map(PlayerId, ("ann", "bob", "cat", "dan"))


@asynccontextmanager
async def directing(
    client: StoreClient, queue: QueueConfig = NEAR, *, seats: Seats | None = None
) -> AsyncIterator[None]:
    allocator = Allocator(Shelf(client), client, [FleetPolicy(name=FLEET)], FakeBackend(FLEET))
    director = Director(queue, TicketStore(client), allocator, supply=allocator, seats=seats or allocator.seats)
    task = asyncio.create_task(director.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), task.exception()


async def queued(store: TicketStore, name: str, rating: float) -> TicketId:
    made = await store.create(NEAR.name, solo(name, rating=rating), idempotency="", max_tickets=100)
    assert isinstance(made, TicketRecord), made
    return made.ticket.id


async def record_of(store: TicketStore, ticket: TicketId) -> TicketRecord:
    record = await store.fetch(ticket)
    assert record is not None
    return record


async def assigned(store: TicketStore, *tickets: TicketId) -> bool:
    return all([(await record_of(store, ticket)).state is TicketState.ASSIGNED for ticket in tickets])


async def running(client: StoreClient) -> ValkeySessions:
    """Ann and Bob's match on a server, as the shelf gives it out and the server opens it."""
    server = GameServer(
        name=ServerName("s"), fleet=FLEET, state=ServerState.ALLOCATED, host="h", ports={"websocket": 1}
    )
    shelf, sessions = Shelf(client), ValkeySessions(client, FLEET)
    await shelf.register(server, rooms=5)
    await claimed(shelf, SESSION)
    await sessions.open(SESSION, server=ServerName("s"), epoch=1)
    return sessions


async def claimed(shelf: Shelf, session: SessionId) -> None:
    seats = (Seat(index=0, player=ANN, team="red"), Seat(index=1, player=BOB, team="blue"))
    await shelf.claim(FLEET, session, seats=seats, options={"queue": NEAR.name}, temperature=Temperature.SHELF)


async def seated(client: StoreClient) -> dict[str, str]:
    found = await Shelf(client).find(SESSION)
    assert found is not None
    seats = [(seat.player, seat.team) for seat in found.session.seats]
    assert len(dict(seats)) == len(seats)
    return dict(seats)


async def heard(client: StoreClient) -> bool:
    return not await Notices(client).wants(FLEET, NEAR.name)


async def test_whoever_leaves_is_replaced_in_the_running_match(
    tmp_path: Path, valkey: StoreClient, valkey_url: str, store: TicketStore
) -> None:
    """By one who fits those who stay, themselves newcomers in the end; once the game wants nobody, nobody is sent."""
    tests = str(Path(__file__).parents[1])
    async with (
        started(tmp_path, valkey, valkey_url, WARMFLEET_GAME="wanting_game:Wanting", PYTHONPATH=tests) as stage,
        directing(valkey),
        asyncio.timeout(60),
    ):
        await Shelf(valkey).register(replace(stage.server, state=ServerState.ALLOCATED), rooms=2)

        async def joined(ticket: TicketId) -> GameClient:
            await until(lambda: assigned(store, ticket))
            record = await record_of(store, ticket)
            assert record.assignment is not None
            (player,) = record.ticket.players
            index, team = record.assignment["seats"][player.id]
            grant = SeatGrant(
                player=player.id, seat=index, team=team, session=SessionId(record.assignment["session"]),
                server=stage.server.name, epoch=1,
            )  # fmt: skip
            return GameClient(stage.url, ISSUER.issue(grant, time.time(), lifetime_s=60))

        first, second = [await queued(store, name, 1000) for name in ("ann", "bob")]
        async with await joined(first) as ann:
            async with await joined(second) as bob:
                await until_world(ann, 2)
                far = await queued(store, "far", 5000)
                await bob.leave()
            third = await queued(store, "cat", 1090)
            async with await joined(third) as cat:
                await until_world(cat, 2)
                sessions = {(await record_of(store, ticket)).assignment["session"] for ticket in (first, third)}  # type: ignore[index]
                (session,) = sessions
                await ann.leave()
                # Fits Cat, who came later, and not Ann, who has left.
                last = await queued(store, "last", 1180)
                async with await joined(last) as leaving:
                    await until_world(leaving, 2)
                    await leaving.leave()
                await until(lambda: _wants(valkey, session, {}))
                late = await queued(store, "late", 1090)
                await asyncio.sleep(0.5)
        records = [await record_of(store, ticket) for ticket in (far, late)]
        assert {record.state for record in records} == {TicketState.SEARCHING}
        assert await store.backfills(NEAR.name) == []


async def _wants(client: StoreClient, session: SessionId, teams: dict[str, int]) -> bool:
    return json.loads(await client.hget(session_key(session), "want")) == teams and await heard(client)


async def test_a_want_is_noted_once_a_change_and_with_every_seat_that_becomes_free(valkey: StoreClient) -> None:
    """There is one notice a session, however often it is said; a server that has lost the session says nothing."""
    sessions, notices = await running(valkey), Notices(valkey)
    for _ in range(2):
        await sessions.seats(SESSION, epoch=1, came=[ANN, BOB], left=(), want={"red": 1, "blue": 1})
    (one,) = await notices.wants(FLEET, NEAR.name)
    assert (one.session, one.change) == (SESSION, "1")
    await sessions.seats(SESSION, epoch=1, came=(), left=[BOB])
    (two,) = await notices.wants(FLEET, NEAR.name)
    await notices.settled(NEAR.name, one)
    assert await notices.wants(FLEET, NEAR.name) == [two]
    await sessions.seats(SESSION, epoch=1, came=(), left=[BOB])
    assert await notices.wants(FLEET, NEAR.name) == [two], "he had left before"
    with pytest.raises(SessionGone):
        await sessions.seats(SESSION, epoch=2, came=(), left=(), want={"red": 4})
    assert await notices.wants(FLEET, NEAR.name) == [two]
    found = await Shelf(valkey).find(SESSION)
    assert found is not None
    assert found.session.want == {"red": 1, "blue": 1}
    assert await seated(valkey) == {"ann": "red"}


async def test_the_newest_word_holds_whoever_says_it(valkey: StoreClient, store: TicketStore) -> None:
    """A service's over REST after the game's, the game's next after that; a notice heard again changes nothing; the session's end is the end of it."""
    sessions = await running(valkey)

    async def wanted() -> tuple[int, dict[str, int]] | None:
        assert await heard(valkey)
        found = await store.backfill(NEAR.name, SESSION)
        return found and (found.version, dict(found.teams))

    async with directing(valkey):
        await sessions.seats(SESSION, epoch=1, came=(), left=[BOB], want={"red": 1, "blue": 5, "green": 1})
        await until(lambda: heard(valkey))
        assert await wanted() == (1, {"blue": 1}), "the queue's teams are no larger"
        await Notices(valkey).want_again(NEAR.name, Wanting(session=SESSION, change="x"))
        await until(lambda: heard(valkey))
        assert await wanted() == (1, {"blue": 1})
        assert await store.put_backfill(NEAR.name, Backfill(session=SESSION, version=2, teams={"red": 1})) == (True, 2)
        await asyncio.sleep(0.7)
        assert await wanted() == (2, {"red": 1})
        await sessions.seats(SESSION, epoch=1, came=(), left=[ANN])
        await until(lambda: heard(valkey))
        assert await wanted() == (3, {"red": 1, "blue": 1})
        await sessions.seats(SESSION, epoch=1, came=(), left=(), want={})
        await until(lambda: heard(valkey))
        assert await wanted() is None
        with pytest.raises(SessionGone):
            await Seats(valkey).reserve(SESSION, [(CAT, "red")])
        await sessions.seats(SESSION, epoch=1, came=(), left=(), want={"red": 1})
        await until(lambda: heard(valkey))
        await sessions.end(SESSION, epoch=1, results=b"{}")
        await until(lambda: _wants_nobody(store))


async def _wants_nobody(store: TicketStore) -> bool:
    return await store.backfills(NEAR.name) == []


async def test_a_queue_without_backfill_says_so_once(valkey: StoreClient, store: TicketStore) -> None:
    sessions = await running(valkey)
    with capture_logs() as logs:
        async with directing(valkey, replace(NEAR, backfill=False)):
            for want in ({"red": 1, "blue": 1}, {"blue": 1}):
                await sessions.seats(SESSION, epoch=1, came=(), left=[BOB], want=want)
                await until(lambda: heard(valkey))
    assert [line["event"] for line in logs].count("game_wants_players_in_vain") == 1
    assert await store.backfills(NEAR.name) == []


class Closing(Seats):
    """A service closes the session at the wrong moment, twice."""

    closed = 0

    async def reserve(self, session: SessionId, party: Party) -> Allocation | NoSeats:
        if self.closed < 2:
            self.closed += 1
            await self.open(session, epoch=1, free=0)
        return await super().reserve(session, party)


async def test_who_could_not_be_seated_is_still_wanted(valkey: StoreClient, store: TicketStore) -> None:
    sessions = await running(valkey)
    await sessions.seats(SESSION, epoch=1, came=(), left=[BOB], want={"red": 1, "blue": 1})
    seats = Closing(valkey)
    async with directing(valkey, seats=seats):
        cat = await queued(store, "cat", 1000)
        await until(lambda: assigned(store, cat))
    assert seats.closed == 2
    assert await seated(valkey) == {"ann": "red", "cat": "blue"}


class Waiting(Seats):
    """Seats whose answer waits for a word."""

    def __init__(self, client: StoreClient) -> None:
        super().__init__(client)
        self.go = asyncio.Event()

    async def reserve(self, session: SessionId, party: Party) -> Allocation | NoSeats:
        await self.go.wait()
        return await super().reserve(session, party)


async def test_who_is_on_the_way_counts(valkey: StoreClient, store: TicketStore) -> None:
    """Whatever is said meanwhile: nobody else is sent for the same place."""
    sessions, seats = await running(valkey), Waiting(valkey)
    await sessions.seats(SESSION, epoch=1, came=(), left=[BOB], want={"red": 1, "blue": 1})
    async with directing(valkey, seats=seats):
        cat = await queued(store, "cat", 1000)
        await until(lambda: _is_placing(store, cat))
        await Notices(valkey).want_again(NEAR.name, Wanting(session=SESSION, change="x"))
        dan = await queued(store, "dan", 1000)
        await asyncio.sleep(1)
        seats.go.set()
        await until(lambda: assigned(store, cat))
        await until(lambda: heard(valkey))
        await asyncio.sleep(0.5)
    assert await seated(valkey) == {"ann": "red", "cat": "blue"}
    assert (await record_of(store, dan)).state is TicketState.SEARCHING


async def _is_placing(store: TicketStore, ticket: TicketId) -> bool:
    return (await record_of(store, ticket)).state is TicketState.PLACING


async def test_whoever_has_left_a_match_is_not_sent_back(valkey: StoreClient, store: TicketStore) -> None:
    """Nor who was removed from it."""
    sessions = await running(valkey)
    assert await SessionControl(valkey).kick(SESSION, DAN)
    await sessions.seats(SESSION, epoch=1, came=(), left=[BOB], want={"red": 1, "blue": 1})
    async with directing(valkey):
        back = [await queued(store, "bob", 1000), await queued(store, "dan", 2000)]
        cat = await queued(store, "cat", 3000)
        await until(lambda: assigned(store, cat))
        assert [(await record_of(store, ticket)).state for ticket in back] == [TicketState.SEARCHING] * 2
    assert await seated(valkey) == {"ann": "red", "cat": "blue"}


async def test_nobody_is_sent_to_a_match_that_is_to_move(valkey: StoreClient, store: TicketStore) -> None:
    """Until it has moved, or stays after all."""
    sessions = await running(valkey)
    await sessions.seats(SESSION, epoch=1, came=(), left=[BOB], want={"red": 1, "blue": 1})
    await valkey.hset(session_key(SESSION), "state", "draining")
    async with directing(valkey):
        await asyncio.sleep(1)
        assert await store.backfills(NEAR.name) == []
        await valkey.hset(session_key(SESSION), "state", "live")
        await until(lambda: heard(valkey))
        assert [want.teams for want in await store.backfills(NEAR.name)] == [{"blue": 1}]


async def test_a_director_that_leads_no_more_changes_no_want(store: TicketStore) -> None:
    want = Backfill(session=SESSION, version=1, teams={"red": 1})
    assert await store.hold_lease(NEAR.name, "new", lease_s=60)
    assert await store.put_backfill(NEAR.name, want, token="old") == (False, 0)
    assert await store.put_backfill(NEAR.name, want, token="new") == (True, 1)
    assert not await store.drop_backfill(NEAR.name, SESSION, token="old")
    assert len(await store.backfills(NEAR.name)) == 1
    assert await store.drop_backfill(NEAR.name, SESSION, token="new")


async def test_players_who_block_each_other_do_not_meet_by_backfill(store: TicketStore) -> None:
    """Whom those who play block is kept with the want."""
    ann = TicketPlayer(id=ANN, blocked=(CAT,), avoided=(BOB,), attributes={"modes": ("a", "b")}, latencies_ms={"eu": 9})
    want = Backfill(session=SESSION, version=1, teams={"red": 1}, players=(ann,))
    await store.put_backfill(NEAR.name, want)
    assert await store.backfill(NEAR.name, SESSION) == want
    cat, dan = (Ticket(id=TicketId(p), players=(TicketPlayer(id=p),), created_at_s=0) for p in (CAT, DAN))
    assert choose(replace(NEAR, rules=()), want, [cat, dan], 1.0) == {"red": (dan,)}


class Mortal(StoreClient):
    """A client whose process dies at a function or command, before or after it takes effect: nothing reaches the store from then on."""

    dies_at = ""
    after = False
    dead = False

    async def call_function(self, function: str, keys: Any, *args: Any) -> Any:
        return await self._do(function, super().call_function(function, keys, *args))

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        return await self._do(args[0], super().execute_command(*args, **options))

    async def _do(self, what: str, call: Any) -> Any:
        dies = not self.dead and what == self.dies_at
        if self.dead or (dies and not self.after):
            self.dead = True
            call.close()
            raise RedisConnectionError("dead")
        answer = await call
        if dies:
            self.dead = True
            raise RedisConnectionError("dead")
        return answer


@pytest.mark.one_server
@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_director_that_dies_at_any_step_leaves_the_want_to_the_next(
    valkey: StoreClient, valkey_url: str, store: TicketStore, after: bool
) -> None:
    """One place is wanted and two wait: one of them is seated, once, and nobody is wanted any more."""
    for step in (
        "SRANDMEMBER",
        "seats_open",
        "backfill_put",
        "SREM",
        "backfill_commit",
        "seats_reserve",
        "match_assign",
    ):
        await valkey.flushall()
        sessions = await running(valkey)
        await sessions.seats(SESSION, epoch=1, came=(), left=[BOB], want={"red": 1, "blue": 1})
        # Two who cannot make a match of their own.
        tickets = [await queued(store, "cat", 1000), await queued(store, "dan", 2000)]
        mortal = Mortal.from_url(valkey_url, socket_timeout=None, protocol=3)
        mortal.dies_at, mortal.after = step, after

        async def one_is_assigned() -> bool:
            return [await assigned(store, ticket) for ticket in tickets].count(True) == 1 and await heard(valkey)  # noqa: B023

        async with directing(mortal):
            await until(lambda: _died(mortal))  # noqa: B023
            async with directing(valkey):
                await until(one_is_assigned)
                await asyncio.sleep(0.3)
        assert (await seated(valkey)).keys() in ({"ann", "cat"}, {"ann", "dan"}), step
        assert await one_is_assigned(), step
        assert await store.backfills(NEAR.name) == [], step
        assert (await store.placing(NEAR.name)) == [], step
        await mortal.aclose()


async def _died(mortal: Mortal) -> bool:
    return mortal.dead
