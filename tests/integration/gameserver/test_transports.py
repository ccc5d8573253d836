"""What a whole server process does for players and to those who break its rules, on each transport."""

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import product
from pathlib import Path

import pytest
import redis.asyncio
from game_server import FLEET, TRANSPORTS, Stage, ending, started, until_world

from gameserver.client.session import Ended, Seated, WorldSeen
from gameserver.client.udp import UdpGameClient
from gameserver.client.websocket import GameClient
from gameserver.protocol import messages as m
from gameserver.protocol.snapshot import World
from gameserver.sessions.checkpoints import unpack
from gameserver.sessions.client import connect as connect_store
from gameserver.sessions.control import SessionControl
from gameserver.sessions.model import PlayerId, SessionId
from gameserver.sessions.valkey import checkpoint_key, session_key

Client = GameClient | UdpGameClient

both = pytest.mark.parametrize("transport", TRANSPORTS)


@pytest.fixture
async def stage(tmp_path: Path, valkey: redis.asyncio.Redis, valkey_url: str) -> AsyncIterator[Stage]:
    async with asyncio.timeout(60), started(tmp_path, valkey, valkey_url) as stage:
        yield stage


async def last_word(client: Client) -> Ended:
    """How it ends, whatever is told before."""
    with contextlib.suppress(m.MalformedMessage):
        return await ending(client)
    raise AssertionError("the server broke the protocol")


async def said(client: Client, messages: Sequence[bytes]) -> Ended:
    """Say these messages, which no client of ours would, and hear the end."""
    for message in messages:
        await say(client, message)
    return await last_word(client)


async def say(client: Client, message: bytes) -> None:
    if isinstance(client, GameClient):
        await client._send(message)
    else:
        client._send(message)


async def until(client: Client, done: Callable[[World], object]) -> None:
    """Follow until a world is seen that will do."""
    async with asyncio.timeout(20):
        async for event in client.events():
            if isinstance(event, WorldSeen) and done(event.world):
                return
    raise AssertionError("the connection ended")


async def until_later(client: Client) -> None:
    """Follow for some ticks more."""
    tick = client.session.tick
    await until(client, lambda _: client.session.tick > tick + 3)


def aim_of(world: World) -> float:
    """Of the player in the first seat; none before it has come."""
    aims = world.values("players")["aim"]
    return float(aims[0]) if len(aims) else -9.0


@both
async def test_a_spectator_sees_and_is_not_seen(stage: Stage, transport: str) -> None:
    """Whoever has a spectator's token watches, whatever its client says of itself; what it sends moves nothing."""
    session = await stage.session("t1", "ann")
    async with (
        stage.client(transport, session, "ann") as ann,
        stage.client(transport, session, "eve", m.SPECTATOR_SEAT) as eve,
    ):
        await until_world(ann, 1)
        await until_world(eve, 1)
        assert eve.session.welcome is not None
        assert eve.session.welcome.seat == m.SPECTATOR_SEAT
        await eve.send_input(aim=3.0)
        await ann.send_input(aim=1.0)
        await until(eve, lambda world: aim_of(world) == pytest.approx(1.0, abs=0.05))
        assert eve.session.ack_input == 0
        await until_world(ann, 1)


@both
async def test_a_kicked_player_goes_and_stays_away(stage: Stage, valkey_url: str, transport: str) -> None:
    """It is told why, and no other token lets it in."""
    session = await stage.session("t2", "ann", "eve")
    await stage.valkey.hset(f"wf:{{{FLEET}}}:server:{stage.server.name}", "room:0", session)
    store = connect_store(valkey_url)
    async with stage.client(transport, session, "ann") as ann, stage.client(transport, session, "eve", 1) as eve:
        await until_world(eve, 2)
        assert await SessionControl(store).kick(session, PlayerId("eve"), "cheats")
        gone = await ending(eve)
        assert (gone.code, gone.reason) == (m.CloseCode.KICKED, "cheats")
        async with stage.client(transport, session, "eve", 1) as again:
            assert (await ending(again)).code == m.CloseCode.KICKED
        await until_world(ann, 1)
    await store.aclose()


@pytest.mark.parametrize(("first", "second"), list(product(TRANSPORTS, TRANSPORTS)))
async def test_a_second_connection_supersedes_the_first(stage: Stage, first: str, second: str) -> None:
    """A new token on any transport takes the seat over; the player is there once."""
    session = await stage.session("t3", "ann", "bob")
    async with stage.client(first, session, "ann") as ann, stage.client(first, session, "bob", 1) as bob:
        await until_world(ann, 2)
        async with stage.client(second, session, "ann") as again:
            assert (await ending(ann)).code == m.CloseCode.SUPERSEDED
            await until_world(again, 2)
            assert again.session.welcome is not None
            assert again.session.welcome.seat == 0
            await again.send_input(aim=2.0)
            await until(bob, lambda world: aim_of(world) == pytest.approx(2.0, abs=0.05))
            await until_world(bob, 2)


@both
async def test_a_session_that_has_moved_is_fenced(stage: Stage, transport: str) -> None:
    """No write of the old server passes, and its players are told to ask where the match is."""
    session = await stage.session("t4", "ann")
    async with stage.client(transport, session, "ann") as ann:
        await until_world(ann, 1)
        await stage.valkey.hset(session_key(session), mapping={"epoch": 2, "server": "elsewhere"})
        kept = await stage.valkey.get(checkpoint_key(session))
        assert (await ending(ann)).code == m.CloseCode.FENCED
    assert await stage.valkey.get(checkpoint_key(session)) == kept
    assert await stage.state(session) == "live"


@both
async def test_a_drain_saves_and_says_so(stage: Stage, transport: str) -> None:
    """The match's newest state is in the store by the time that its players are told."""
    session = await stage.session("t5", "ann")
    async with stage.client(transport, session, "ann") as ann:
        await until_world(ann, 1)
        pid = next(server.pid for fleet in stage.agones.status() for server in fleet.servers)
        assert pid
        os.kill(pid, signal.SIGTERM)
        assert (await ending(ann)).code == m.CloseCode.GOING_AWAY
        tick = ann.session.tick
    state = await stage.valkey.get(checkpoint_key(session))
    assert unpack(state).state
    assert int(await stage.valkey.hget(session_key(session), "checkpoint_tick")) >= tick - 2


def messages_of(session: SessionId) -> dict[str, tuple[Sequence[bytes], m.CloseCode]]:
    """What a seated client may say wrong, and what it is told."""
    good = m.encode(m.Ping(client_ms=1))
    return {
        "no type": ([b"\x7f"], m.CloseCode.MALFORMED),
        "a server's message": ([b"\x82" + bytes(13)], m.CloseCode.MALFORMED),
        "a ping too short": ([good[:-1]], m.CloseCode.MALFORMED),
        "a ping too long": ([good + b"\0"], m.CloseCode.MALFORMED),
        "an input without records": ([b"\x02" + bytes(17)], m.CloseCode.MALFORMED),
        "an input of another size": ([b"\x02" + bytes(12) + b"\1\0\0\0\1" + bytes(200)], m.CloseCode.MALFORMED),
        "a flood": ([good] * 400, m.CloseCode.FLOOD),
    }


@both
async def test_whoever_breaks_the_rules_is_told_which_and_goes_alone(stage: Stage, transport: str) -> None:
    """Each gets the documented code; a player of the same match sees all of them go, and plays on."""
    session = await stage.session("t6", "ann", "eve")
    async with stage.client(transport, session, "ann") as ann:
        for what, (messages, code) in messages_of(session).items():
            async with stage.client(transport, session, "eve", 1) as eve:
                await until_world(eve, 2)
                assert (await said(eve, messages)).code == code, what
        for token, code in (
            ("nonsense", m.CloseCode.UNAUTHORIZED),
            (stage.token(session, "eve", 1, epoch=7), m.CloseCode.FENCED),
        ):
            async with stage.connection(transport, token) as eve:
                assert (await last_word(eve)).code == code
        await until_later(ann)


@both
async def test_any_bytes_instead_of_a_message(stage: Stage, transport: str) -> None:
    """Whatever a seated client sends, the server answers with a close code or goes on, and serves the next."""
    session = await stage.session("t7", "ann", "eve")
    rng = random.Random(7)
    async with stage.client(transport, session, "ann") as ann:
        await until_world(ann, 1)
        for round_ in range(25):
            async with stage.client(transport, session, "eve", 1) as eve:
                async for event in eve.events():
                    if isinstance(event, Seated):
                        break
                for _ in range(8):
                    kind = bytes([rng.choice((1, 2, 2, 2, 3, 4, rng.randrange(256)))])
                    await say(eve, kind + rng.randbytes(rng.choice((0, 1, 16, 17, 18, 25, 100, 1100))))
                assert (await last_word(eve)).code in set(m.CloseCode), round_
        await until_later(ann)


async def test_players_of_both_families_and_transports_meet(
    tmp_path: Path, valkey: redis.asyncio.Redis, valkey_url: str
) -> None:
    """A server that listens on `::` is reached over IPv4 and IPv6, by WebSocket and UDP, at any address that is its own."""
    both_families = {"WARMFLEET_BIND_HOST": "::", "WARMFLEET_POD_IP": "::1"}
    async with asyncio.timeout(60), started(tmp_path, valkey, valkey_url, **both_families) as stage:
        ways = list(product(TRANSPORTS, ("127.0.0.1", "::1")))
        session = await stage.session("t8", *(f"p{seat}" for seat in range(len(ways))))
        async with contextlib.AsyncExitStack() as stack:
            for seat, (transport, host) in enumerate(ways):
                client = stage.client(transport, session, f"p{seat}", seat, host=host)
                await stack.enter_async_context(client)
                await until_world(client, seat + 1)
