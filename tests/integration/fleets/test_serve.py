"""The parts as separate processes over a real Valkey and the fake Agones, whose pods are real game servers."""

import asyncio
import base64
import os
import re
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from agones_fake import FakeAgones
from agones_fake.kubelet import Kubelet

from allocator.model import Allocation, AllocationRequest, FleetPolicy
from allocator.ports import SHELF_LABEL
from allocator.service import Allocator
from allocator.shelf import Shelf
from fleets.serve.backends import Unlisted
from gameserver.client.matchmaking import Matchmaking
from gameserver.client.session import Seated
from gameserver.client.websocket import GameClient
from gameserver.seats import SeatIssuer
from gameserver.sessions.model import FleetName, MatchId, PlayerId, Seat
from matchmaker.api.auth import PlayerTokens

SPECS = """
apiVersion: warmfleet.dev/v1
kind: Fleet
metadata: {name: arena}
spec:
  server: {game: "gameserver.games.arena:Arena", image: "registry.example/arena:1", rooms: 2, seats: 4, transports: [websocket]}
  warm: {shelf: 2, buffer: 1, min: 1, max: 4}
---
apiVersion: warmfleet.dev/v1
kind: Queue
metadata: {name: duel}
spec:
  fleets: [arena]
  teams: [{name: red, players: 1}, {name: blue, players: 1}]
"""
PLAYERS = "players-secret-of-thirty-two-bytes-or-more"
FLEET = FleetName("arena")
SEAT_KEY = secrets.token_bytes(32)


@dataclass
class Program:
    """A part that runs."""

    process: asyncio.subprocess.Process
    url: str
    log: Path

    async def get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False) as http:
            return await http.get(self.url + path)

    async def until_ready(self) -> "Program":
        async with asyncio.timeout(40):
            while (await self.get("/readyz")).status_code != 200:
                assert self.process.returncode is None, self.log.read_text()
                await asyncio.sleep(0.1)
        return self

    async def stop(self) -> int:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await self.process.wait()


@asynccontextmanager
async def served(part: str, folder: Path, *options: str, **env: str) -> AsyncIterator[Program]:
    """`warmfleet serve PART`, until it has stopped by itself or is told to."""
    log = folder / f"{part}.log"
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "fleets.cli", "serve", part, str(folder / "specs"), "--port", "0", *options),
            env={**os.environ, **env},
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(40):
            line = (await process.stdout.readline()).decode()
        found = re.search(r"http://\S+", line)
        assert found, f"{line}{log.read_text()}"
        yield Program(process, found[0], log)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def request(match: str) -> AllocationRequest:
    seats = (Seat(index=0, player=PlayerId("ann"), team="red"),)
    return AllocationRequest(match=MatchId(match), fleets=(FLEET,), seats=seats)


async def until(look: Callable[[], Awaitable[Any]], good: Callable[[Any], bool]) -> Any:
    async with asyncio.timeout(40):
        while not good(seen := await look()):
            await asyncio.sleep(0.05)
    return seen


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "arena.yaml").write_text(SPECS)
    return tmp_path


@asynccontextmanager
async def playing(folder: Path, valkey_url: str) -> AsyncIterator[tuple[FakeAgones, Kubelet, dict[str, Program]]]:
    """The cluster with its game servers, and every part; allocation is by gRPC."""
    issuer = SeatIssuer(SEAT_KEY)
    game = {
        "WARMFLEET_GAME": "gameserver.games.arena:Arena", "WARMFLEET_FLEET": "arena", "WARMFLEET_ROOMS": "2",
        "WARMFLEET_SEATS": "4", "WARMFLEET_TRANSPORTS": "websocket", "WARMFLEET_VALKEY_URL": valkey_url,
        "WARMFLEET_SEAT_KEYS": issuer.public_key, "WARMFLEET_DRAIN_TIMEOUT_S": "1",
    }  # fmt: skip
    async with AsyncExitStack() as stack:
        fake = await stack.enter_async_context(FakeAgones(folder / "agones"))
        command = [sys.executable, "-m", "gameserver"]
        kubelet = await stack.enter_async_context(Kubelet(fake.cluster, command, game, folder / "pods"))
        await fake.add_fleet("arena", ready=2, ports=("websocket",))
        (folder / "valkey-url").write_text(valkey_url + "\n")
        common = {"WARMFLEET_VALKEY_URL_FILE": str(folder / "valkey-url")}
        seats = {
            "WARMFLEET_SEAT_SIGNING_KEY": base64.urlsafe_b64encode(SEAT_KEY).decode(),
            "WARMFLEET_PLAYER_KEYS": PLAYERS,
        }
        certificates = fake.certificates
        cluster = {
            "WARMFLEET_KUBECONFIG": str(fake.kubeconfig),
            "WARMFLEET_BACKEND": "agones",
            "WARMFLEET_ALLOCATION_ENDPOINTS": fake.grpc_address,
            "WARMFLEET_ALLOCATION_CERTIFICATE": str(certificates.client.certificate),
            "WARMFLEET_ALLOCATION_KEY": str(certificates.client.key),
            "WARMFLEET_ALLOCATION_CA": str(certificates.ca),
        }
        parts = {}
        for part, env in (("matchmaker", seats), ("director", {}), ("allocator", cluster)):
            parts[part] = await stack.enter_async_context(served(part, folder, **common, **env))
        for program in parts.values():
            await program.until_ready()
        yield fake, kubelet, parts


async def assigned(url: str, player: str) -> Any:
    """Queue up and wait for the seat."""
    token = PlayerTokens(PLAYERS.encode()).issue(PlayerId(player))
    async with Matchmaking(url, token) as matchmaking:
        ticket = await matchmaking.create_ticket("duel", [{"id": player}])
        async with asyncio.timeout(30):
            async for state in matchmaking.ticket_states(ticket["id"]):
                if state["state"] == "assigned":
                    return state["assignment"]
    raise AssertionError("no assignment")


async def seat_of(url: str, player: str, session: str, epoch: int) -> Any:
    """Where the player's seat is, once the session has moved beyond `epoch`."""
    headers = {"Authorization": f"Bearer {PlayerTokens(PLAYERS.encode()).issue(PlayerId(player))}"}
    async with asyncio.timeout(40), httpx.AsyncClient(trust_env=False, headers=headers) as http:
        while True:
            reply = await http.get(f"{url}/v1/sessions/{session}/seat")
            if reply.status_code == 200 and reply.json()["epoch"] > epoch:
                return reply.json()
            await asyncio.sleep(0.1)


async def sits_down(assignment: Any) -> None:
    """Take the seat on the game server and see the match."""
    url = f"ws://{assignment['host']}:{assignment['ports']['websocket']}"
    async with asyncio.timeout(30), GameClient(url, assignment["token"]) as client:
        async for event in client.events():
            if isinstance(event, Seated):
                return


async def test_a_match_is_played_through_the_parts(folder: Path, valkey_url: str, valkey: Any) -> None:
    """Every part is a process of its own; two players meet on a pod's server, meet again when it is killed, and all parts end with 0."""
    async with playing(folder, valkey_url) as (fake, kubelet, parts):
        url = parts["matchmaker"].url
        players = await asyncio.gather(*(assigned(url, name) for name in ("ann", "bob")))
        (session,) = {assignment["session"] for assignment in players}
        await asyncio.gather(*(sits_down(assignment) for assignment in players))
        (server,) = {assignment["server"] for assignment in players}
        assert fake.cluster.states("arena")[server] == "Allocated"
        os.kill(kubelet.pid(server), signal.SIGKILL)
        moved = await seat_of(url, "ann", session, epoch=1)
        assert moved["server"] != server
        await sits_down(moved)
        metrics = (await parts["allocator"].get("/metrics")).text
        assert re.search(r'warmfleet_backend_calls_total{backend="agones",call="allocate",outcome="ok"} [1-9]', metrics)
        assert 'warmfleet_fleet_servers{fleet="arena",state="Allocated"}' in metrics
        for program in parts.values():
            assert (await program.get("/healthz")).text == "ok\n"
            assert await program.stop() == 0, program.log.read_text()


async def test_an_outage_of_the_api_server_is_waited_out(folder: Path, valkey_url: str, valkey: Any) -> None:
    """Matches that wait for a server go on once it is back; meanwhile the allocator stays ready, and nothing leaks."""
    async with FakeAgones(folder / "agones") as fake:
        await fake.add_fleet("arena", ready=3, ports=("websocket",))
        env = {"WARMFLEET_KUBECONFIG": str(fake.kubeconfig), "WARMFLEET_VALKEY_URL": valkey_url}
        async with served("allocator", folder, **env) as program:
            await program.until_ready()
            shelf, policy = Shelf(valkey), FleetPolicy(name=FLEET, rooms=2, shelf=2)
            allocator = Allocator(shelf, valkey, [policy], Unlisted())
            await until(lambda: shelf.observe(FLEET), lambda state: state.free == 2)
            async with fake.api_away():
                asking = [asyncio.create_task(allocator.allocate(request(f"m{i}"), deadline_s=30)) for i in range(4)]
                await asyncio.wait(asking, timeout=4)
                assert sum(task.done() for task in asking) == 2  # what was on the shelf
                assert (await program.get("/readyz")).status_code == 200
            found = await asyncio.gather(*asking)
            assert len({allocation.session.id for allocation in found if isinstance(allocation, Allocation)}) == 4
            state = await until(lambda: shelf.observe(FLEET), lambda state: state.free >= 2)
            held = {entry.server for entry in state.entries}
            shelved = {
                s["metadata"]["name"] for s in fake.cluster.servers(FLEET) if s["metadata"]["labels"].get(SHELF_LABEL)
            }
            assert held == shelved
            assert await program.stop() == 0, program.log.read_text()


async def test_a_part_waits_for_its_store(folder: Path) -> None:
    """Alive and not ready, it says why."""
    env = {"WARMFLEET_VALKEY_URL": "redis://:secret@127.0.0.1:1/0"}
    async with served("director", folder, **env) as program:
        assert (await program.get("/healthz")).status_code == 200
        reply = await program.get("/readyz")
        assert (reply.status_code, "the store does not answer" in reply.text) == (503, True)
        assert await program.stop() == 0
        assert "secret" not in program.log.read_text() + reply.text
