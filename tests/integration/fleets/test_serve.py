"""The parts as separate processes over a real Valkey and the fake Agones, whose pods are real game servers."""

import asyncio
import base64
import json
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
from fleets.serve.parts import make
from fleets.serve.settings import PartName, ServeSettings, SettingsError
from fleets.spec.loader import load
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
OPERATOR, VIEWER = "the-operators-own-token", "a-viewers-own-token"
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
            "WARMFLEET_OPERATOR_TOKEN": OPERATOR,
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


async def cli(url: str, token: str, *arguments: str) -> tuple[int, str, str]:
    """A command of whoever has a token of the console."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fleets.cli", *arguments, "--url", url),
        env={**os.environ, "WARMFLEET_CONSOLE_TOKEN": token},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    return process.returncode or 0, out.decode(), errors.decode()


async def test_operators_see_a_cluster_and_act_on_it(folder: Path, valkey_url: str, valkey: Any) -> None:
    """By a console in a process of its own: servers, waits, a ticket's way, a recovery; who may pauses a queue and drains a server, nobody else sees it."""
    async with playing(folder, valkey_url) as (fake, kubelet, parts):
        matchmaker = parts["matchmaker"].url
        env = {
            "WARMFLEET_VALKEY_URL": valkey_url, "WARMFLEET_KUBECONFIG": str(fake.kubeconfig),
            "WARMFLEET_OPERATOR_TOKEN": OPERATOR, "WARMFLEET_VIEWER_TOKEN": VIEWER, "WARMFLEET_MATCHMAKER_URL": matchmaker,
        }  # fmt: skip
        async with served("console", folder, **env) as console, httpx.AsyncClient(trust_env=False) as http:
            await console.until_ready()

            async def asked(method: str, path: str, token: str, body: Any = None) -> httpx.Response:
                headers = {"Authorization": f"Bearer {token}"}
                return await http.request(method, f"{console.url}/v1/console/{path}", json=body, headers=headers)

            async def seen() -> Any:
                code, out, errors = await cli(console.url, VIEWER, "top", "--json")
                assert code == 0, errors
                return json.loads(out)

            players = await asyncio.gather(*(assigned(matchmaker, name) for name in ("ann", "bob")))
            await asyncio.gather(*(sits_down(assignment) for assignment in players))
            server, session = players[0]["server"], players[0]["session"]
            state = (await until(seen, lambda view: view["state"]["queues"]["duel"]["p95"] is not None))["state"]
            assert state["servers"][server]["state"] == "Allocated"
            assert state["servers"][server]["rooms"] == 1
            assert state["sessions"][session]["server"] == server
            assert state["fleets"]["arena"] | {"sessions": 1, "wanted": 2, "reason": ""} == state["fleets"]["arena"]
            assert 0 <= state["queues"]["duel"]["p50"] < 60
            assert state["queues"]["duel"]["perMinute"] == 1
            (ticket, *_) = state["tickets"]
            told = (await asked("GET", f"tickets/{ticket}", VIEWER)).json()
            assert (told["steps"][0]["state"], told["steps"][-1]["state"]) == ("queued", "assigned")
            assert "assignments" not in told

            assert (await asked("PUT", "queues/duel", VIEWER, {"closed": "paused"})).status_code == 403
            assert (await asked("PUT", "queues/duel", "nobody", {"closed": "paused"})).status_code == 401
            assert (await cli(console.url, "nobody", "top", "--json"))[0] == 1
            assert (await asked("PUT", "queues/duel", OPERATOR, {"closed": "paused"})).status_code == 204
            assert (await cli(console.url, VIEWER, "drain", server))[0] == 1
            assert (await cli(console.url, OPERATOR, "drain", "arena-none"))[0] == 1
            assert await cli(console.url, OPERATOR, "drain", server) == (0, f"{server} drains\n", "")
            view = await until(seen, lambda view: view["state"]["servers"][server]["draining"])
            assert view["state"]["queues"]["duel"]["closed"] == "paused"
            os.kill(kubelet.pid(server), signal.SIGKILL)
            view = await until(seen, lambda view: view["state"]["fleets"]["arena"]["moved"])
            assert view["state"]["sessions"][session]["server"] != server
            kinds = {event["kind"] for event in view["events"]}
            assert {"queue", "drain", "recovery"} <= kinds
            assert any("by the operator's token" in event["text"] for event in view["events"])

            await parts["matchmaker"].stop()
            away = await asked("PUT", "queues/duel", OPERATOR, {"closed": ""})
            assert (away.status_code, "the matchmaker does not answer" in away.json()["detail"]) == (503, True)
            async with fake.api_away():
                view = await until(seen, lambda view: view["state"]["fleets"]["arena"]["free"] > 0)
                assert view["state"]["servers"]
            assert await console.stop() == 0, console.log.read_text()
        logged = console.log.read_text()
        assert OPERATOR not in logged
        assert VIEWER not in logged
        assert "console_act" in logged


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"WARMFLEET_OPERATOR_TOKEN": ""}, "WARMFLEET_OPERATOR_TOKEN"),
        ({"WARMFLEET_OPERATOR_TOKEN": "short"}, "can be guessed"),
        ({"WARMFLEET_VIEWER_TOKEN": OPERATOR}, "could act with it"),
        ({"WARMFLEET_MATCHMAKER_URL": ""}, "WARMFLEET_MATCHMAKER_URL"),
        ({"WARMFLEET_CONSOLE_JWKS": "https://id.example"}, "WARMFLEET_CONSOLE_AUDIENCE"),
    ],
)
async def test_a_console_that_could_not_guard_itself_does_not_start(
    folder: Path, valkey: Any, changed: dict[str, str], says: str
) -> None:
    """With the setting and the mend."""
    right = {"WARMFLEET_OPERATOR_TOKEN": OPERATOR, "WARMFLEET_MATCHMAKER_URL": "http://m", "WARMFLEET_BACKEND": "none"}
    settings = ServeSettings.read({**right, **changed})
    async with AsyncExitStack() as stack:
        with pytest.raises(SettingsError, match=says):
            await make(PartName.CONSOLE, settings, load([folder / "specs" / "arena.yaml"]), valkey, stack)


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
