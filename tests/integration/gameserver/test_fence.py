"""The fence between two servers that both think a match is theirs: the session's epoch."""

from collections.abc import Awaitable, Callable

import pytest
import redis.asyncio

from gameserver.sessions.model import FleetName, MatchId, PlayerId, Seat, ServerMode, ServerName, session_id
from gameserver.sessions.port import SessionGone
from gameserver.sessions.valkey import ValkeySessions, checkpoint_key, encode_seats, session_key

FLEET, OLD, NEW = FleetName("arena"), ServerName("arena-1"), ServerName("arena-2")
SESSION = session_id(FLEET, MatchId("m1"))

WRITES: dict[str, Callable[[ValkeySessions], Awaitable[object]]] = {
    "open": lambda store: store.open(SESSION, server=OLD, epoch=1),
    "checkpoint": lambda store: store.checkpoint(SESSION, epoch=1, tick=99, state=b"old"),
    "unchanged checkpoint": lambda store: store.checkpoint(SESSION, epoch=1, tick=99, state=None),
    "seats": lambda store: store.seats(SESSION, epoch=1, came={PlayerId("eve")}, left={PlayerId("ann")}),
    "want": lambda store: store.seats(SESSION, epoch=1, came=(), left=(), want={"red": 2}),
    "vacate": lambda store: store.vacate(SESSION, [PlayerId("ann")], epoch=1),
    "end": lambda store: store.end(SESSION, epoch=1, results=b'{"winner": "eve"}'),
}


@pytest.mark.parametrize("write", WRITES)
async def test_no_write_of_an_older_epoch_passes(valkey: redis.asyncio.Redis, write: str) -> None:
    """Whatever a server still says of a session that has moved is refused, and changes nothing."""
    store = ValkeySessions(valkey, FLEET)
    await store.prepare()
    seats = encode_seats((Seat(index=0, player=PlayerId("ann"), team="red"),))
    record = {
        "server": NEW,
        "room": 0,
        "epoch": 2,
        "state": "live",
        "seats": seats,
        "free_seats": 1,
        "checkpoint_tick": 50,
    }
    await valkey.hset(session_key(SESSION), mapping=record)
    await valkey.set(checkpoint_key(SESSION), b"new")
    before = await valkey.hgetall(session_key(SESSION)), await valkey.keys()
    with pytest.raises(SessionGone):
        await WRITES[write](store)
    assert (await valkey.hgetall(session_key(SESSION)), await valkey.keys()) == before
    assert await valkey.get(checkpoint_key(SESSION)) == b"new"
    orders = await store.beat(OLD, ttl_s=3, mode=ServerMode.SERVE, rooms={SESSION: 1})
    assert orders.fenced == {SESSION}


async def test_a_hand_over_of_an_older_epoch_does_not_pass(valkey: redis.asyncio.Redis) -> None:
    """A server that hands a session over which has been moved meanwhile hears that it is gone; its checkpoint is not kept."""
    store = ValkeySessions(valkey, FLEET)
    await store.prepare()
    record = {"server": OLD, "room": 0, "epoch": 1, "state": "live", "seats": "[]", "checkpoint_tick": 50}
    await valkey.hset(session_key(SESSION), mapping=record)
    session, _ = await store.open(SESSION, server=OLD, epoch=1)
    await valkey.hset(session_key(SESSION), mapping={"server": NEW, "epoch": 2})
    await valkey.set(checkpoint_key(SESSION), b"new")
    with pytest.raises(SessionGone):
        await store.hand_over(session, tick=99, state=b"old")
    assert await valkey.get(checkpoint_key(SESSION)) == b"new"
    assert await valkey.hget(session_key(SESSION), "checkpoint_tick") == b"50"
