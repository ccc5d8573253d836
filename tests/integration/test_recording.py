"""Recording and shadowing a live queue on a real Valkey, and the commands around them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from matchmaking import DUEL, FakeAllocator, until

from gameserver.sessions.client import StoreClient
from matchmaker.director import Director
from matchmaker.matching.worker import MatchWorker
from matchmaker.model import QueueName, TicketId, TicketPlayer
from matchmaker.recording import recorder as recorder_module
from matchmaker.recording.recorder import Recorder
from matchmaker.recording.shadow import Shadow
from matchmaker.recording.trace import Disguise, TraceWriter, read_trace
from matchmaker.records import TicketRecord
from matchmaker.store import TicketStore

SHADOW = replace(DUEL, name=QueueName("trial"))


@pytest.fixture
def store(valkey: StoreClient) -> TicketStore:
    return TicketStore(valkey)


async def queue(store: TicketStore, name: str) -> TicketId:
    made = await store.create(DUEL.name, (TicketPlayer(id=name),), idempotency="", max_tickets=100)  # type: ignore[arg-type]
    assert isinstance(made, TicketRecord)
    return made.ticket.id


async def test_a_recording_has_every_ticket_and_its_end(
    store: TicketStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Assigned, cancelled and open tickets of a live queue, under other names."""
    monkeypatch.setattr(recorder_module, "_ASK_S", 0.2)
    path, stop = tmp_path / "trace.parquet", asyncio.Event()
    writer = TraceWriter(path, DUEL.name, begun_at_s=await store.now_s(DUEL.name))
    recorder = Recorder(store, DUEL.name, writer, Disguise(b"s"), begun_at_s=await store.now_s(DUEL.name))
    recording = asyncio.create_task(recorder.run(stop))
    await asyncio.sleep(0.5)
    director = asyncio.create_task(Director(DUEL, store, FakeAllocator()).run())
    alice = await queue(store, "alice")
    await queue(store, "bob")
    await until(lambda: state_is(store, alice, "assigned"))
    carol = await queue(store, "carol")
    await store.cancel(carol)
    await queue(store, "dave")
    await until(lambda: counted(recorder, 4))
    stop.set()
    await recording
    writer.close()
    director.cancel()
    await asyncio.wait([director])
    trace = read_trace(path)
    assert sorted(arrival.outcome for arrival in trace.arrivals) == ["", "assigned", "assigned", "cancelled"]
    assert all(arrival.waited_s >= 0 for arrival in trace.arrivals if arrival.outcome == "assigned")
    assert next(arrival.left_after_s for arrival in trace.arrivals if arrival.outcome == "cancelled") < 60
    assert "alice" not in path.read_bytes().decode("latin-1")


async def state_is(store: TicketStore, ticket: TicketId, state: str) -> bool:
    record = await store.fetch(ticket)
    return record is not None and record.state == state


async def counted(recorder: Recorder, count: int) -> bool:
    return recorder.count == count


@pytest.mark.parametrize("inline", [True, False])
async def test_a_shadow_matches_what_the_live_queue_has(store: TicketStore, inline: bool) -> None:
    """It sees the live queue's tickets, would match them, and neither matches nor changes any."""
    below = 256 if inline else 0
    shadow = Shadow(SHADOW, DUEL.name, store, new_matcher=lambda: MatchWorker(SHADOW, inline_below=below))
    running = asyncio.create_task(shadow.run())
    await until(lambda: leads(shadow))
    first = await queue(store, "alice")
    await queue(store, "bob")
    await until(lambda: matched(shadow, 2))
    third = await queue(store, "carol")
    await until(lambda: waits(shadow, 1))
    await store.cancel(third)
    await until(lambda: left(shadow, 1))
    status = shadow.status()
    assert status["matches"] == 1
    assert status["waiting"] == 0
    assert await state_is(store, first, "queued")
    assert await store.depth(DUEL.name) == 2
    running.cancel()
    await asyncio.wait([running])


async def leads(shadow: Shadow) -> bool:
    return bool(shadow.status()["leading"])


async def waits(shadow: Shadow, count: int) -> bool:
    return bool(shadow.status()["waiting"] == count)


async def matched(shadow: Shadow, count: int) -> bool:
    return bool(shadow.status()["tickets"]["matched"] == count)


async def left(shadow: Shadow, count: int) -> bool:
    return bool(shadow.status()["tickets"]["left"] == count)


async def test_one_of_several_replicas_runs_a_shadow(store: TicketStore) -> None:
    """The lease is the shadow's own; when its holder ends, another goes on."""
    shadows = [Shadow(SHADOW, DUEL.name, store) for _ in range(2)]
    tasks = [asyncio.create_task(shadow.run()) for shadow in shadows]
    await until(lambda: leads(shadows[0]))
    assert not await leads(shadows[1])
    tasks[0].cancel()
    await until(lambda: leads(shadows[1]))
    tasks[1].cancel()
    await asyncio.wait(tasks)


async def test_the_command_records_until_it_is_told_to_stop(
    store: TicketStore, valkey_url: str, tmp_path: Path
) -> None:
    """From any Valkey, until SIGINT or the time is up; the file is whole."""
    path = tmp_path / "trace.parquet"
    command = ("record", "--queue", DUEL.name, "--out", path, "--valkey-url", valkey_url, "--json")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fleets.cli", *map(str, command)), stdout=asyncio.subprocess.PIPE
    )
    await until(lambda: is_there(path))
    number = 0

    async def seen() -> bool:
        """The recording begins some time after its file is there."""
        nonlocal number
        number += 1
        await queue(store, f"player-{number}")
        return number >= 40

    await until(seen)
    await asyncio.sleep(1.0)
    process.send_signal(signal.SIGINT)
    out, _ = await process.communicate()
    assert process.returncode == 0
    told = json.loads(out)
    assert told["gaps"] == 0
    assert 0 < told["tickets"] == len(read_trace(path).arrivals)


async def is_there(path: Path) -> bool:
    return path.exists()


QUEUES = """
apiVersion: warmfleet.dev/v1
kind: Fleet
metadata: {name: eu, labels: {region: eu-west}}
spec: {server: {game: "gameserver.games.arena:Arena", seats: 10}}
---
apiVersion: warmfleet.dev/v1
kind: Queue
metadata: {name: ranked}
spec:
  fleets: [eu]
  teams: [{name: red, players: 2}, {name: blue, players: 2}]
  party: {max: 2}
  rules: [{type: difference, attribute: rating, max: 50, expand: [{after: 10s, max: 300}]}]
---
apiVersion: warmfleet.dev/v1
kind: Queue
metadata: {name: lax}
spec:
  fleets: [eu]
  teams: [{name: red, players: 2}, {name: blue, players: 2}]
  party: {max: 2}
  rules: [{type: difference, attribute: rating, max: 2000}]
  shadow: {of: ranked}
"""


def warmfleet(*args: str | Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "fleets.cli", *map(str, args)], capture_output=True, text=True, check=False, env=env
    )


def test_a_generated_trace_goes_through_two_queues(tmp_path: Path) -> None:
    """The same seed gives the same trace; looser rules match sooner, and worse."""
    files = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for file in files:
        options = ("--hours", "0.05", "--tickets-per-s", "2", "--parties", "3,1", "--mode", "x", "--seed", "7")
        done = warmfleet("generate", "--out", file, *options)
        assert done.returncode == 0, done.stderr
    assert files[0].read_bytes() == files[1].read_bytes()
    yaml = tmp_path / "queues.yaml"
    yaml.write_text(QUEUES)
    done = warmfleet("replay", files[0], "--queue", yaml, "--queue", f"{yaml}:lax", "--json")
    assert done.returncode == 0, done.stderr
    strict, lax = json.loads(done.stdout)["queues"]
    assert strict["waitS"]["mean"] > lax["waitS"]["mean"]
    assert strict["spread"]["rating"]["mean"] < lax["spread"]["rating"]["mean"]
    assert set(strict["parties"]) == {"1", "2"}
    assert strict["refused"] == lax["refused"] == {}
    far = tmp_path / "far.yaml"
    far.write_text(
        QUEUES.replace("eu-west", "mars").replace("max: 300}]}]", "max: 300}]}, {type: latency, max: 60ms}]")
    )
    table = warmfleet("replay", files[0], "--queue", f"{far}:ranked")
    assert "wait p95" in table.stdout
    assert "latencies: the queue wants the round trip to one of its regions, in ms: mars" in table.stdout


def test_what_cannot_be_replayed_is_said(tmp_path: Path) -> None:
    """No such queue, no trace, nobody to record: exit codes and reasons."""
    yaml, trace = tmp_path / "queues.yaml", tmp_path / "t.parquet"
    yaml.write_text(QUEUES)
    assert warmfleet("generate", "--out", trace, "--hours", "0.01").returncode == 0
    done = warmfleet("replay", trace, "--queue", f"{yaml}:none")
    assert (done.returncode, "there are: ranked, lax" in done.stderr) == (2, True)
    done = warmfleet("replay", yaml, "--queue", yaml)
    assert (done.returncode, "is no Parquet file" in done.stderr) == (1, True)
    done = warmfleet("record", "--queue", "q", "--out", tmp_path / "r.parquet", "--data-dir", tmp_path)
    assert (done.returncode, "nothing runs on" in done.stderr) == (1, True)
