"""A real game server process under the laptop's Agones, on a real Valkey, with real WebSockets."""

import asyncio
import json
import os
import signal
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.asyncio
from agones_fake.certificates import Authority
from game_server import FLEET, Stage, ending, started, until_world
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gameserver.client.session import Ended, Happened, Seated, WorldSeen
from gameserver.client.websocket import ConnectFailed, GameClient
from gameserver.protocol import messages as m
from gameserver.sessions.checkpoints import unpack
from gameserver.sessions.client import connect as connect_store
from gameserver.sessions.control import MAX_REASON_LENGTH, SessionControl
from gameserver.sessions.model import MatchId, PlayerId, SessionId, session_id
from gameserver.sessions.valkey import checkpoint_key, session_key


@pytest.fixture
async def stage(tmp_path: Path, valkey: redis.asyncio.Redis, valkey_url: str) -> AsyncIterator[Stage]:
    async with started(tmp_path, valkey, valkey_url) as stage:
        yield stage


async def refused(stage: Stage, token: str) -> Ended:
    async with GameClient(stage.url, token) as client:
        return await ending(client)


async def test_two_players_see_each_other_move(stage: Stage) -> None:
    """Both are seated, an input of one moves it in the other's world, and the first player's ack follows."""
    session = await stage.session("m1", "ann", "bob")
    async with asyncio.timeout(10), GameClient(stage.url, stage.token(session, "ann")) as ann:
        async with GameClient(stage.url, stage.token(session, "bob", 1)) as bob:
            await until_world(ann, 2)
            await until_world(bob, 2)
            assert bob.world is not None
            before = bob.world.values("players")["x"][0]
            way = 1.0 if before < 20 else -1.0
            for _ in range(10):
                await ann.send_input(move_x=way, aim=1.0)
            async for event in bob.events():
                if isinstance(event, WorldSeen) and abs(event.world.values("players")["x"][0] - before) > 0.5:
                    break
            async for event in ann.events():
                if isinstance(event, WorldSeen) and ann.session.ack_input == 10:
                    break
    assert await stage.state(session) == "live"


async def test_the_end_of_a_match_is_told_and_stored(stage: Stage) -> None:
    """When the time is up players hear it, the results are stored, and the room waits to be freed."""
    session = await stage.session("m2", "ann", duration_s="1")
    seen = []
    async with asyncio.timeout(10), GameClient(stage.url, stage.token(session, "ann")) as ann:
        async for event in ann.events():
            seen.append(event)
    assert isinstance(seen[0], Seated)
    assert [e.data["name"] for e in seen if isinstance(e, Happened)] == ["joined", "over", "results"]
    assert seen[-1] == Ended(code=m.CloseCode.NORMAL, reason="the match is over")
    async with asyncio.timeout(5):
        while await stage.state(session) != "ended":
            await asyncio.sleep(0.02)
    results = json.loads(await stage.valkey.hget(session_key(session), "results"))
    assert results == {"scores": {"ann": 0}, "winners": ["ann"]}
    assert await stage.valkey.smembers("wf:{arena}:ended") == {session.encode()}


async def test_wrong_tokens_are_refused(stage: Stage) -> None:
    """Nonsense, expired, used and fenced tokens each get their code; the server goes on."""
    session = await stage.session("m3", "ann")
    async with asyncio.timeout(20):
        assert (await refused(stage, "nonsense")).code == m.CloseCode.UNAUTHORIZED
        assert "expired" in (await refused(stage, stage.token(session, "ann", lifetime_s=-1))).reason
        assert (await refused(stage, stage.token(session, "ann", epoch=7))).code == m.CloseCode.FENCED
        token = stage.token(session, "ann")
        async with GameClient(stage.url, token) as ann:
            await until_world(ann, 1)
            assert "used" in (await refused(stage, token)).reason
            await until_world(ann, 1)


async def test_malformed_messages_close_only_their_connection(stage: Stage) -> None:
    """Junk, text, oversized frames and inputs before Hello are answered with a code; a player beside them plays on."""
    session = await stage.session("m4", "ann", "eve")
    eve = m.encode(m.Hello(token=stage.token(session, "eve", 1)))
    bad_input = m.encode(m.Input(ack_tick=0, ack_event=0, view=0, first_seq=1, count=2, records=b"123"))
    cases: list[tuple[list[bytes | str], int]] = [
        ([b""], 4002), ([b"\xff\x00"], 4002), (["text"], 4002), ([b"x" * 5000], 1009),
        ([m.encode(m.Ping(client_ms=1))], 4003), ([eve, bad_input], 4002),
    ]  # fmt: skip
    async with asyncio.timeout(20), GameClient(stage.url, stage.token(session, "ann")) as ann:
        await until_world(ann, 1)
        for messages, code in cases:
            async with connect(stage.url, subprotocols=["warmfleet.1"], proxy=None) as raw:  # type: ignore[list-item]
                for message in messages:
                    await raw.send(message)
                    await asyncio.sleep(0.05)
                with pytest.raises(ConnectionClosed) as closed:
                    while True:
                        await raw.recv()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == code, messages
        await until_world(ann, 2)


async def test_foreign_pages_and_other_protocols_are_refused(stage: Stage) -> None:
    """A browser page from elsewhere is refused in the handshake; so is a client without the subprotocol."""
    with pytest.raises(InvalidStatus, match="403"):
        await connect(stage.url, subprotocols=["warmfleet.1"], origin="https://evil.example", proxy=None)  # type: ignore[list-item, arg-type]
    with pytest.raises(InvalidStatus, match="400"):
        await connect(stage.url, proxy=None)


async def test_a_second_connection_supersedes_the_first(stage: Stage) -> None:
    """A player who connects again with a new token keeps its seat; the old connection is closed."""
    session = await stage.session("m5", "ann")
    async with asyncio.timeout(10), GameClient(stage.url, stage.token(session, "ann")) as old:
        await until_world(old, 1)
        async with GameClient(stage.url, stage.token(session, "ann")) as new:
            assert (await ending(old)).code == m.CloseCode.SUPERSEDED
            await until_world(new, 1)
            await new.send_input(fire=True)


async def test_a_full_server_and_a_flood(stage: Stage) -> None:
    """A session beyond the rooms is refused; a flood closes its connection."""
    sessions = [await stage.session(f"r{i}", "ann") for i in range(3)]
    async with asyncio.timeout(20), GameClient(stage.url, stage.token(sessions[0], "ann")) as ann:
        await until_world(ann, 1)
        async with GameClient(stage.url, stage.token(sessions[1], "ann")) as other:
            await until_world(other, 1)
            assert (await refused(stage, stage.token(sessions[2], "ann"))).code == m.CloseCode.FULL
            for _ in range(600):
                await other.send_input(aim=0.5)
            assert (await ending(other)).code == m.CloseCode.FLOOD
        await until_world(ann, 1)


async def test_a_drain_checkpoints_and_says_where_to_ask(stage: Stage) -> None:
    """SIGTERM: the match is checkpointed, its player told that the server goes, and the process ends with 0."""
    session = await stage.session("m6", "ann")
    async with asyncio.timeout(20), GameClient(stage.url, stage.token(session, "ann")) as ann:
        await until_world(ann, 1)
        os.kill(stage.agones.status()[0].servers[0].pid, signal.SIGTERM)
        assert (await ending(ann)).code == m.CloseCode.GOING_AWAY
    assert await stage.state(session) == "live"
    state = unpack(await stage.valkey.get(checkpoint_key(session))).state
    assert json.loads(state)["known"] == [0]
    assert not stage.agones.status()[0].reason


async def test_a_moved_session_stops_its_old_room(stage: Stage) -> None:
    """Once the record has a newer epoch, the next checkpoint is refused and the room stops at once."""
    session = await stage.session("m7", "ann")
    async with asyncio.timeout(20), GameClient(stage.url, stage.token(session, "ann")) as ann:
        await until_world(ann, 1)
        await stage.valkey.hset(session_key(session), mapping={"epoch": 2, "server": "arena-other"})
        assert (await ending(ann)).code == m.CloseCode.FENCED
    assert await stage.state(session) == "live"


async def test_a_restored_match_goes_on(stage: Stage) -> None:
    """A session with a checkpoint continues with its tick, and its player finds its state."""
    first = await stage.session("m8", "ann")
    async with asyncio.timeout(20), GameClient(stage.url, stage.token(first, "ann")) as ann:
        async for event in ann.events():
            if isinstance(event, WorldSeen) and event.tick > 20:
                break
        x = ann.world.values("players")["x"][0] if ann.world else None
    state = await stage.valkey.get(checkpoint_key(first))
    second = await stage.session("m9", "ann", epoch=3)
    await stage.valkey.set(checkpoint_key(second), state)
    await stage.valkey.hset(session_key(second), "checkpoint_tick", 18)
    async with asyncio.timeout(20), GameClient(stage.url, stage.token(second, "ann", epoch=3)) as ann:
        await until_world(ann, 1)
        assert ann.session.tick >= 19
        assert ann.world.values("players")["x"][0] == x


async def test_a_player_who_leaves_for_good_frees_its_seat(stage: Stage) -> None:
    """Where others may come: the seat that it was given is its own once it came, and anybody's once it said goodbye."""
    session = await stage.session("m8", "ann", "bob")
    record, reserved = session_key(session), f"wf:{{{FLEET}}}:reserved"
    await stage.valkey.hset(record, "free_seats", 0)
    await stage.valkey.zadd(reserved, {f"{session} bob": 2e12})
    async with asyncio.timeout(15), GameClient(stage.url, stage.token(session, "ann")):
        async with GameClient(stage.url, stage.token(session, "bob", 1)) as bob:
            await until_world(bob, 2)
            while await stage.valkey.zcard(reserved):
                await asyncio.sleep(0.05)
            assert int(await stage.valkey.hget(record, "free_seats")) == 0
            await bob.leave()
        while int(await stage.valkey.hget(record, "free_seats")) == 0:
            await asyncio.sleep(0.05)
        assert json.loads(await stage.valkey.hget(record, "seats")) == [[0, "ann", "ann"]]


async def test_a_player_is_kicked_from_outside(stage: Stage, valkey_url: str) -> None:
    """It is told why, at once, and not let in again, nor where the session goes on; the others play, and its spectating name is out as well."""
    session = await stage.session("m10", "ann", "eve")
    await stage.valkey.hset(f"wf:{{{FLEET}}}:server:{stage.server.name}", "room:0", session)
    client = connect_store(valkey_url)
    control = SessionControl(client)
    async with asyncio.timeout(30), GameClient(stage.url, stage.token(session, "ann")) as ann:
        async with (
            GameClient(stage.url, stage.token(session, "eve", 1)) as eve,
            GameClient(stage.url, stage.token(session, "eve", m.SPECTATOR_SEAT)) as watching,
        ):
            await until_world(ann, 2)
            assert await control.kick(session, PlayerId("eve"), "cheats")
            assert await control.kick(session, PlayerId("eve"), "again")
            for gone in (await ending(eve), await ending(watching)):
                assert (gone.code, gone.reason) == (m.CloseCode.KICKED, "cheats")
        await until_world(ann, 1)
        assert (await refused(stage, stage.token(session, "eve", 1))).code == m.CloseCode.KICKED
        # Before it has come, and on whichever server opens the session.
        later = await stage.session("m11", "bob")
        assert await control.kick(later, PlayerId("bob"))
        assert (await refused(stage, stage.token(later, "bob"))).code == m.CloseCode.KICKED
    await stage.valkey.hset(session_key(later), "state", "ended")
    assert not await control.kick(later, PlayerId("ann"))
    assert not await control.kick(session_id(FLEET, MatchId("never")), PlayerId("ann"))
    with pytest.raises(ValueError, match="characters"):
        await control.kick(session, PlayerId("ann"), "x" * (MAX_REASON_LENGTH + 1))
    await client.aclose()


async def test_a_certificate_is_taken_up_while_players_play(
    tmp_path: Path, valkey: redis.asyncio.Redis, valkey_url: str
) -> None:
    """TLS by files: who plays stays when they change, half a change changes nothing, and the next player is shown the new certificate."""
    old, new = Authority("old"), Authority("new")
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"

    def write(authority: Authority) -> None:
        for path, pem in zip((certificate, key), authority.issue("server", server=True), strict=True):
            path.write_bytes(pem)

    def player(stage: Stage, session: SessionId, name: str, seat: int, authority: Authority) -> GameClient:
        trust = ssl.create_default_context(cadata=authority.pem.decode())
        return GameClient(stage.url.replace("ws:", "wss:"), stage.token(session, name, seat), tls=trust)

    write(old)
    files = {"WARMFLEET_TLS_CERT": str(certificate), "WARMFLEET_TLS_KEY": str(key)}
    async with asyncio.timeout(60), started(tmp_path, valkey, valkey_url, **files) as stage:
        session = await stage.session("m12", "ann", "bob")
        async with player(stage, session, "ann", 0, old) as ann:
            await until_world(ann, 1)
            kept = certificate.read_bytes()
            write(new)
            certificate.write_bytes(kept)  # half-way through a rotation
            async with player(stage, session, "bob", 1, old) as bob:
                await until_world(bob, 2)
            write(new)
            while True:
                try:
                    async with player(stage, session, "bob", 1, new) as bob:
                        await until_world(bob, 2)
                    break
                except ConnectFailed:
                    await asyncio.sleep(0.2)
            await ann.send_input(aim=1.0)
            async for event in ann.events():
                if isinstance(event, WorldSeen) and ann.session.ack_input == 1:
                    break
