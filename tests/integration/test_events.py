"""Lifecycle events on a real Valkey: told with the decision, in order, and sent on at least once."""

import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import uvicorn
from matchmaking import DUEL, FakeAllocator, solo, until
from valkeys import Valkey

from allocator.model import GameServer, ServerState, Temperature
from allocator.shelf import Shelf
from fleets.examples.live_health import Health
from gameserver.sessions.client import StoreClient, connect
from gameserver.sessions.model import FleetName, MatchId, PlayerId, Seat, ServerName, session_id
from gameserver.sessions.port import StoreUnavailable
from gameserver.sessions.valkey import ValkeySessions
from matchmaker.director import Director
from matchmaker.events import relay as relay_module
from matchmaker.events.kafka import Kafka
from matchmaker.events.model import Event, check, schema
from matchmaker.events.relay import Relay, SinkRefused, SinkUnavailable, fleet_prefix, queue_prefix
from matchmaker.events.webhook import Webhook, verify
from matchmaker.records import TicketRecord
from matchmaker.store import TicketStore

P = queue_prefix(DUEL.name)
SECRET = b"s" * 32


class Taken:
    """A sink that takes, or does not."""

    name = "taken"

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.fail: list[Exception] = []
        self.calls = 0

    async def send(self, events: Sequence[Event]) -> None:
        self.calls += 1
        if self.fail:
            raise self.fail.pop(0)
        self.events += events


async def told(client: StoreClient, prefix: str = P) -> list[dict[str, Any]]:
    rows: Any = await client.xrange(f"{prefix}events")
    return [json.loads(fields[b"event"]) for _, fields in rows]


async def queue(store: TicketStore, name: str) -> str:
    made = await store.create(DUEL.name, solo(name), idempotency="", max_tickets=100)
    assert isinstance(made, TicketRecord)
    return made.ticket.id


async def play(store: TicketStore) -> None:
    """Two players are matched; a third leaves."""
    director = asyncio.create_task(Director(DUEL, store, FakeAllocator()).run())
    first = await queue(store, 'al"ice')
    await queue(store, "bob")
    await until(lambda: state_is(store, first, "assigned"))
    director.cancel()
    await asyncio.wait([director])
    await store.cancel(await queue(store, "carol"))  # type: ignore[arg-type]


async def state_is(store: TicketStore, ticket: str, state: str) -> bool:
    record = await store.fetch(ticket)  # type: ignore[arg-type]
    return record is not None and record.state == state


async def test_tickets_are_told_of_with_their_decisions(valkey: StoreClient) -> None:
    """Valid CloudEvents, in order, each id once; nothing is written while nobody keeps it."""
    store = TicketStore(valkey)
    await play(store)
    assert await told(valkey) == []
    await Relay(valkey, P, None).hold()
    await play(store)
    events = await told(valkey)
    validator = jsonschema.Draft202012Validator(schema())
    for event in events:
        validator.validate(event)
        check(json.dumps(event).encode())
    kinds = [event["type"].split(".")[3] for event in events]
    assert kinds.count("created") == 3
    assert kinds.count("assigned") == 1
    assert kinds[-1] == "cancelled"
    assert len({event["id"] for event in events}) == len(events)
    match = next(event["subject"] for event in events if "assigned" in event["type"])
    assert [e["type"].split(".")[3] for e in events if e["subject"] == match] == ["placing", "assigned"]
    assert events[0]["data"]["players"] == ['al"ice']
    assert abs(datetime.fromisoformat(events[-1]["time"]).timestamp() - await store.now_s(DUEL.name)) < 60
    assert events[0]["source"] == "/queues/duel"


async def test_sessions_and_servers_are_told_of(valkey: StoreClient) -> None:
    """Claimed, live, ended; registered, lost; with their epochs."""
    fleet, p = FleetName("arena"), fleet_prefix("arena")
    await Relay(valkey, p, None).hold()
    shelf = Shelf(valkey)
    assert await shelf.hold(fleet, lease_s=30)
    name, session = ServerName("arena-1"), session_id(fleet, MatchId("m1"))
    server = GameServer(
        name=name, fleet=fleet, state=ServerState.ALLOCATED, host="h", ports={"websocket": 1}, version="v"
    )
    await shelf.register(server, rooms=1)
    seats = (Seat(index=0, player=PlayerId("ann"), team="red"),)
    await shelf.claim(fleet, session, seats=seats, options={}, temperature=Temperature.SHELF)
    sessions = ValkeySessions(valkey, fleet)
    await sessions.open(session, server=name, epoch=1)
    await sessions.open(session, server=name, epoch=1)
    await sessions.end(session, epoch=1, results=b'{"winner":"red"}')
    await shelf.drop(fleet, name)
    validator = jsonschema.Draft202012Validator(schema())
    for event in await told(valkey, p):
        validator.validate(event)
        check(json.dumps(event).encode())
    kinds = [event["type"] for event in await told(valkey, p)]
    wanted = ["server.registered", "session.claimed", "session.live", "session.ended", "server.lost"]
    assert kinds == [f"dev.warmfleet.{kind}.v1" for kind in wanted]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "_PAUSE_S", (0.01, 0.02))
    monkeypatch.setattr(relay_module, "_TRIES", 4)


@asynccontextmanager
async def relaying(valkey: StoreClient, *sinks: Any) -> Any:
    tasks = [asyncio.create_task(Relay(valkey, P, sink, first_pause_s=0.01).run()) for sink in sinks]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def got(sink: Taken, count: int) -> bool:
    return len({event.entry for event in sink.events}) >= count


@pytest.mark.usefixtures("hasty")
async def test_a_sink_that_is_away_gets_everything_in_order_later(valkey: StoreClient) -> None:
    """At least once, in the stream's order, by one relay of several."""
    sink = Taken()
    sink.fail = [SinkUnavailable("away"), SinkUnavailable("away")]
    await Relay(valkey, P, None).hold()
    await play(TicketStore(valkey))
    count = len(await told(valkey))
    async with relaying(valkey, sink, sink):
        await until(lambda: got(sink, count))
    assert [event.entry for event in sink.events] == sorted(event.entry for event in sink.events)
    assert len(sink.events) == count
    pending: Any = await valkey.xpending(f"{P}events", "taken")
    assert pending["pending"] == 0


@pytest.mark.usefixtures("hasty")
async def test_what_was_read_and_not_taken_is_taken_by_the_next(valkey: StoreClient) -> None:
    """A relay that dies with events in hand loses none."""
    await Relay(valkey, P, None).hold()
    await play(TicketStore(valkey))
    count = len(await told(valkey))

    class Dies(Taken):
        async def send(self, events: Sequence[Event]) -> None:
            self.calls += 1
            await asyncio.sleep(3600)

    dying, sink = Dies(), Taken()
    async with relaying(valkey, dying):
        await until(lambda: called(dying))
    async with relaying(valkey, sink):
        await until(lambda: got(sink, count))


async def called(sink: Taken) -> bool:
    return sink.calls > 0


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("failures", [[SinkRefused("HTTP 400")], [SinkUnavailable("away")] * 4])
async def test_what_is_never_taken_is_a_dead_letter(valkey: StoreClient, failures: list[Exception]) -> None:
    """It is kept apart with its reason, and what comes later is sent."""
    sink = Taken()
    sink.fail = list(failures)
    await Relay(valkey, P, None).hold()
    store = TicketStore(valkey)
    await play(store)
    count = len(await told(valkey))
    async with relaying(valkey, sink):
        await until(lambda: dead(valkey, count))
        await queue(store, "dave")
        await until(lambda: got(sink, 1))
    rows: Any = await valkey.xrange(f"{P}events:dead:taken")
    assert b"HTTP 400" in rows[0][1][b"reason"] or b"not taken in 4 tries" in rows[0][1][b"reason"]


async def dead(valkey: StoreClient, count: int) -> bool:
    return int(await valkey.xlen(f"{P}events:dead:taken")) == count


async def test_a_webhook_gets_signed_batches(valkey: StoreClient) -> None:
    """Retried after 503, signed so that the receiver can tell; other bytes do not verify."""
    seen: list[tuple[httpx.Headers, bytes]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        seen.append((httpx.Headers(scope["headers"]), body))
        await send({"type": "http.response.start", "status": 503 if len(seen) == 1 else 204, "headers": []})
        await send({"type": "http.response.body"})

    await Relay(valkey, P, None).hold()
    await play(TicketStore(valkey))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    async with Webhook(url, SECRET) as webhook, relaying(valkey, webhook):
        await until(lambda: received(seen, 2))
    server.should_exit = True
    await serving
    headers, body = seen[1]
    assert headers["content-type"] == "application/cloudevents-batch+json"
    assert [event["specversion"] for event in json.loads(body)]
    assert headers["webhook-id"] == seen[0][0]["webhook-id"]
    assert verify(SECRET, headers, body, time.time())
    assert not verify(SECRET, headers, body + b" ", time.time())
    assert not verify(b"x" * 32, headers, body, time.time())
    assert not verify(SECRET, headers, body, time.time() + 3600)


async def received(seen: list[Any], count: int) -> bool:
    return len(seen) >= count


async def test_kafka_gets_them_keyed_by_subject(valkey: StoreClient) -> None:
    """On librdkafka's own mock brokers: all are there, and a subject's are in one partition, in order."""
    confluent = pytest.importorskip("confluent_kafka")
    await Relay(valkey, P, None).hold()
    await play(TicketStore(valkey))
    count = len(await told(valkey))
    kafka = Kafka("events", {"test.mock.num.brokers": 3, "bootstrap.servers": "mock"})
    async with relaying(valkey, kafka):
        await until(lambda: acknowledged(valkey, count))
    brokers = ",".join(f"{b.host}:{b.port}" for b in kafka.producer.list_topics(timeout=10).brokers.values())
    consumer = confluent.Consumer({"bootstrap.servers": brokers, "group.id": "t", "auto.offset.reset": "earliest"})
    consumer.subscribe(["events"])
    messages = []
    give_up_s = time.monotonic() + 30
    while len(messages) < count and time.monotonic() < give_up_s:
        message = await asyncio.to_thread(consumer.poll, 0.5)
        if message is not None and message.error() is None:
            messages.append(message)
    consumer.close()
    assert len(messages) == count
    by_key: dict[bytes, set[int]] = {}
    for message in messages:
        by_key.setdefault(message.key(), set()).add(message.partition())
        assert json.loads(message.value())["subject"].encode() == message.key()
    assert all(len(partitions) == 1 for partitions in by_key.values())


async def acknowledged(valkey: StoreClient, count: int) -> bool:
    groups: Any = await valkey.xinfo_groups(f"{P}events")
    return any(g["name"] == b"kafka" and g["pending"] == 0 and g["entries-read"] == count for g in groups)


@pytest.mark.one_server
async def test_the_example_counts_once_whatever_happens(valkey: StoreClient, valkey_url: str, tmp_path: Path) -> None:
    """Killed between any two events and read again from its file, it counts what one pass counts."""
    await Relay(valkey, P, None).hold()
    await play(TicketStore(valkey))
    rows: Any = await valkey.xrange(f"{P}events")
    stream = f"{P}events"
    whole = Health()
    for entry, fields in rows:
        whole.apply(stream, entry.decode(), json.loads(fields[b"event"]))
    for stop in range(len(rows)):
        path = tmp_path / f"{stop}.json"
        first = Health()
        for entry, fields in rows[:stop]:
            first.apply(stream, entry.decode(), json.loads(fields[b"event"]))
        first.save(path)
        again = Health(json.loads(path.read_text()))
        rest = [(e.decode(), f) for e, f in rows if e.decode() > again.cursors.get(stream, "0")]
        for entry, fields in rest:
            again.apply(stream, entry, json.loads(fields[b"event"]))
        assert vars(again) == vars(whole)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fleets.examples.live_health", "--valkey-url", valkey_url, "--queue", "duel"),
        *("--state", str(tmp_path / "state.json"), "--once"),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    report = json.loads(out.splitlines()[-1])
    assert report == whole.report()
    assert report["ended"] == {"assigned": 2, "cancelled": 1}


async def test_the_example_is_killed_again_and_again(valkey: StoreClient, valkey_url: str, tmp_path: Path) -> None:
    """By SIGKILL while tickets come and go: in the end it has counted each of them once."""
    await Relay(valkey, P, None).hold()
    store, state, rng = TicketStore(valkey), tmp_path / "state.json", random.Random(7)
    command = (sys.executable, "-m", "fleets.examples.live_health", "--valkey-url", valkey_url, "--queue", "duel")
    made = 0

    async def load() -> None:
        nonlocal made
        while True:
            ticket = await queue(store, f"player-{made % 40}")
            made += 1
            await store.cancel(ticket)  # type: ignore[arg-type]

    async def follow(*more: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *command, "--state", str(state), *more, stdout=asyncio.subprocess.PIPE
        )

    loading = asyncio.create_task(load())
    for _ in range(6):
        follower = await follow()
        assert follower.stdout is not None
        for _ in range(rng.randrange(1, 4)):  # it counts something, and goes on
            assert await follower.stdout.readline()
        await asyncio.sleep(rng.random() / 50)
        follower.kill()
        await follower.wait()
    loading.cancel()
    await asyncio.wait([loading])
    out, _ = await (await follow("--once")).communicate()
    report = json.loads(out.splitlines()[-1])
    rows = await told(valkey)
    kinds = Counter(row["type"].split(".")[3] for row in rows)
    assert kinds["cancelled"] > 100
    assert report["ended"] == {"cancelled": kinds["cancelled"]}
    assert report["waiting"] == kinds["created"] - kinds["cancelled"]
    (seen,) = json.loads(state.read_text())["days"].values()
    assert sum(seen.values()) == kinds["created"]


async def test_events_are_served_alone(valkey: StoreClient, valkey_url: str, tmp_path: Path) -> None:
    """`warmfleet serve events` keeps the events of every queue and fleet of the files, and sends them to the webhook."""
    seen: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        if verify(SECRET, httpx.Headers(scope["headers"]), body, time.time()):
            seen.extend(json.loads(body))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    yaml = tmp_path / "queues.yaml"
    yaml.write_text(
        "apiVersion: warmfleet.dev/v1\nkind: Fleet\nmetadata: {name: arena}\nspec: {server: {command: [x]}}\n---\n"
        "apiVersion: warmfleet.dev/v1\nkind: Queue\nmetadata: {name: duel}\n"
        "spec: {fleets: [arena], teams: [{name: all, players: 2}]}\n"
    )
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    env = {
        **os.environ,
        "WARMFLEET_VALKEY_URL": valkey_url,
        "WARMFLEET_EVENTS_WEBHOOK": f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}",
        "WARMFLEET_EVENTS_WEBHOOK_SECRET": SECRET.decode(),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fleets.cli", "serve", "events", str(yaml), "--port", "0"), env=env
    )
    await until(lambda: is_kept(valkey))
    await play(TicketStore(valkey))
    await until(lambda: is_said(seen, "dev.warmfleet.ticket.cancelled.v1"))
    process.terminate()
    assert await process.wait() == 0
    server.should_exit = True
    await serving
    assert await valkey.exists(f"{fleet_prefix('arena')}events:keep")


async def is_kept(valkey: StoreClient) -> bool:
    return bool(await valkey.exists(f"{P}events:keep"))


async def is_said(seen: list[dict[str, Any]], kind: str) -> bool:
    return any(event["type"] == kind for event in seen)


async def test_a_killed_store_loses_no_event(tmp_path: Path) -> None:
    """Valkey is killed and started again under load: whatever its streams have afterwards the sink has got, in order."""
    sink = Taken()
    with Valkey(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        client = connect(server.url)
        await Relay(client, P, None).hold()
        relay = asyncio.create_task(Relay(client, P, sink, first_pause_s=0.01).run())
        store, made = TicketStore(client), 0

        async def load() -> None:
            nonlocal made
            while True:
                try:
                    await store.create(DUEL.name, solo(f"player-{made}"), idempotency="", max_tickets=100_000)
                    await asyncio.sleep(0.005)
                except StoreUnavailable:
                    await asyncio.sleep(0.05)
                made += 1

        loading = asyncio.create_task(load())
        for _ in range(2):
            before = len(sink.events)
            await until(lambda: got(sink, before + 20))  # noqa: B023
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        before = len(sink.events)
        await until(lambda: got(sink, before + 20))
        loading.cancel()
        await asyncio.wait([loading])
        rows: Any = await client.xrange(f"{P}events")
        there = [entry.decode() for entry, _ in rows]
        await until(lambda: has(sink, there))
        relay.cancel()
        await asyncio.wait([relay])
        await client.aclose()
    first = list(dict.fromkeys(event.entry for event in sink.events))
    assert [entry for entry in first if entry in set(there)] == there


async def has(sink: Taken, entries: list[str]) -> bool:
    return set(entries) <= {event.entry for event in sink.events}
