"""The laptop's Agones with real processes, real gRPC and the REST gateway."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import httpx
import pytest

from allocator.model import GameServer, ServerState
from fleets.local.agones import LocalAgones
from fleets.local.planner import LocalFleet
from fleets.local.states import HealthSpec
from gameserver.agones.sdk import AgonesSDK, Counter, List, SDKRefused
from gameserver.sessions.model import FleetName

T = TypeVar("T")
FLEET = FleetName("f")
READY = textwrap.dedent(
    """
    import os, signal, sys, time, urllib.request
    def post(path):
        url = f"http://127.0.0.1:{os.environ['AGONES_SDK_HTTP_PORT']}/{path}"
        urllib.request.urlopen(urllib.request.Request(url, b"{}", {"Content-Type": "application/json"})).read()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print("up", os.environ["POD_NAME"], os.environ["PORT"], flush=True)
    post("ready")
    while True:
        post("health")
        time.sleep(0.2)
    """
)


def fleet(code: str = READY, **values: object) -> LocalFleet:
    return LocalFleet(name=FLEET, command=(sys.executable, "-c", code), **{"buffer": 1, **values})  # type: ignore[arg-type]


async def until(check: Callable[[], Awaitable[T]], timeout_s: float = 15.0) -> T:
    async with asyncio.timeout(timeout_s):
        while not (value := await check()):
            await asyncio.sleep(0.02)
        return value


async def ready(agones: LocalAgones, count: int = 1) -> list[GameServer]:
    async def check() -> list[GameServer]:
        servers = [s for s in await agones.servers(FLEET) if s.state is ServerState.READY]
        return servers if len(servers) == count else []

    return await until(check)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_the_buffer_is_kept_and_allocation_takes_from_it(tmp_path: Path) -> None:
    """An allocated server is replaced in the buffer; metadata is set in the same step; stopping leaves no process."""
    async with LocalAgones([fleet(buffer=2)], logs=tmp_path) as agones:
        await ready(agones, 2)
        taken = await agones.allocate(FLEET, labels={"match": "m1"}, annotations={"a": "b"})
        assert taken is not None
        assert taken.state is ServerState.ALLOCATED
        assert (taken.labels["match"], taken.annotations["a"]) == ("m1", "b")
        assert taken.name not in [server.name for server in await ready(agones, 2)]
        pids = [server.pid for status in agones.status() for server in status.servers]
        assert len(pids) == 3
        assert "up " + taken.name in (tmp_path / f"{taken.name}.log").read_text()
    assert not any(alive(pid) for pid in pids)


async def test_no_server_is_given_twice(tmp_path: Path) -> None:
    """Concurrent allocations get different servers, the surplus ones none."""
    async with LocalAgones([fleet(min=3, max=3, buffer=0)], logs=tmp_path) as agones:
        await ready(agones, 3)
        taken = await asyncio.gather(*(agones.allocate(FLEET, labels={}, annotations={}) for _ in range(5)))
        names = [server.name for server in taken if server]
        assert len(names) == len(set(names)) == 3


async def test_a_killed_server_is_replaced_and_told(tmp_path: Path) -> None:
    """After kill -9 a watcher hears of the end, and another server becomes Ready."""
    async with LocalAgones([fleet()], logs=tmp_path) as agones:
        (first,) = await ready(agones)
        seen: list[GameServer] = []

        async def watch() -> None:
            async for server in agones.watch(FLEET):
                seen.append(server)

        watching = asyncio.create_task(watch())
        os.kill(agones.status()[0].servers[0].pid, signal.SIGKILL)

        async def replaced() -> bool:
            now = [s for s in await agones.servers(FLEET) if s.state is ServerState.READY]
            return bool(now) and now[0].name != first.name

        await until(replaced)
        assert ServerState.UNHEALTHY in [server.state for server in seen if server.name == first.name]
        assert "signal 9" in agones.status()[0].reason
        watching.cancel()


async def test_a_command_that_ends_at_once_backs_off_and_says_why(tmp_path: Path) -> None:
    """The reason and the last log lines are kept for the operator, and starts become rarer."""
    code = "import sys; print('no map'); sys.exit(3)"
    async with LocalAgones([fleet(code)], logs=tmp_path) as agones:

        async def failed() -> bool:
            return agones.status()[0].failures >= 3

        await until(failed)
        status = agones.status()[0]
        assert "exit code 3" in status.reason
        assert status.last_lines == ("no map",)
        assert status.retry_in_s > 0


async def test_a_missing_command_is_named(tmp_path: Path) -> None:
    """A program that does not exist ends up in the reason."""
    broken = LocalFleet(name=FLEET, command=("/no/such/program",))
    async with LocalAgones([broken], logs=tmp_path) as agones:

        async def failed() -> bool:
            return agones.status()[0].failures >= 1

        await until(failed)
        status = agones.status()[0]
        assert "/no/such/program" in status.reason + "".join(status.last_lines)


async def test_a_silent_server_is_unhealthy_and_replaced(tmp_path: Path) -> None:
    """Without health pings a server is replaced once the threshold is passed."""
    silent = READY.replace('post("health")', "pass")
    health = HealthSpec(period_s=0.2, failure_threshold=2, initial_delay_s=0.2)
    async with LocalAgones([fleet(silent, health=health)], logs=tmp_path) as agones:
        (first,) = await ready(agones)

        async def gone() -> bool:
            return first.name not in [server.name for server in await agones.servers(FLEET)]

        await until(gone)
        await ready(agones)


async def test_the_rest_gateway(tmp_path: Path) -> None:
    """Paths and JSON are Agones': strings for 64-bit numbers, all fields present, errors with code and message."""
    spec = fleet(counters={"rooms": 4}, lists={"players": 2}, max=1)
    async with LocalAgones([spec], logs=tmp_path) as agones:
        (server,) = await ready(agones)
        port = await rest_port(agones)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            await http.put("/metadata/label", json={"key": "mode", "value": "ctf"})
            body = (await http.get("/gameserver")).json()
            assert body["objectMeta"]["name"] == server.name
            assert body["objectMeta"]["labels"]["agones.dev/sdk-mode"] == "ctf"
            assert body["status"]["state"] == "Ready"
            assert body["status"]["ports"][0]["port"] == server.ports["default"]
            assert (await http.put("/metadata/label", json={"key": "!", "value": "x"})).status_code == 400
            updated = await http.patch("/v1beta1/counters/rooms", json={"countDiff": "3"})
            assert updated.json() == {"name": "rooms", "count": "3", "capacity": "4"}
            assert (await http.patch("/v1beta1/counters/rooms", json={"countDiff": "3"})).status_code == 500
            added = await http.post("/v1beta1/lists/players:addValue", json={"value": "ann"})
            assert added.json()["values"] == ["ann"]
            assert (await http.post("/v1beta1/lists/players:addValue", json={"value": "ann"})).status_code == 500
            assert (await http.get("/v1beta1/lists/none")).json()["code"] == 2
            assert (await http.post("/reserve", content=b"no")).status_code == 400
            async with http.stream("GET", "/watch/gameserver") as stream:
                lines = stream.aiter_lines()
                assert '"Ready"' in await anext(lines)
                await http.post("/reserve", json={"seconds": "1"})
                assert '"Reserved"' in await anext(lines)
                assert '"Ready"' in await anext(lines)
            await http.post("/shutdown", json={})

        async def gone() -> bool:
            return server.name not in [s.name for s in await agones.servers(FLEET)]

        await until(gone)


async def test_the_python_sdk(tmp_path: Path) -> None:
    """Our SDK client against our endpoint: everything it offers."""
    spec = fleet(counters={"rooms": 4}, lists={"players": 2}, max=1)
    async with LocalAgones([spec], logs=tmp_path) as agones:
        (server,) = await ready(agones)
        async with AgonesSDK(await grpc_port(agones)) as sdk:
            me = await sdk.get_game_server()
            assert (me.name, me.state) == (server.name, "Ready")
            await sdk.set_label("mode", "ctf")
            with pytest.raises(SDKRefused, match="label"):
                await sdk.set_label("a b", "")
            assert await sdk.update_counter("rooms", count=2) == Counter(count=2, capacity=4)
            with pytest.raises(SDKRefused, match="range"):
                await sdk.update_counter("rooms", add=9)
            assert await sdk.add_list_value("players", "ann") == List(values=("ann",), capacity=2)
            await sdk.update_list("players", values=("bob", "eve", "zoe"), capacity=5)
            assert (await sdk.remove_list_value("players", "eve")).values == ("bob", "zoe")
            watch = sdk.watch()
            assert (await anext(watch)).state == "Ready"
            await sdk.allocate()
            assert (await anext(watch)).state == "Allocated"
            await sdk.ready()
            assert (await anext(watch)).labels["agones.dev/sdk-mode"] == "ctf"
            await watch.aclose()


async def test_a_killed_supervisor_leaves_nothing(tmp_path: Path) -> None:
    """After kill -9 of the whole system's process, its game servers are gone too."""
    code = f"""
import asyncio, pathlib
from fleets.local.agones import LocalAgones
from fleets.local.planner import LocalFleet
async def main():
    spec = LocalFleet(name="f", command=({sys.executable!r}, "-c", {READY!r}), buffer=2)
    async with LocalAgones([spec], logs=pathlib.Path({str(tmp_path)!r})) as agones:
        while sum(s.server.state == "Ready" for s in agones.status()[0].servers) < 2:
            await asyncio.sleep(0.05)
        print(*(s.pid for s in agones.status()[0].servers), flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        process.kill()

    async def gone() -> bool:
        return not any(alive(pid) for pid in pids)

    await until(gone)


async def grpc_port(agones: LocalAgones) -> int:
    return int(environ(agones)["AGONES_SDK_GRPC_PORT"])


async def rest_port(agones: LocalAgones) -> int:
    return int(environ(agones)["AGONES_SDK_HTTP_PORT"])


def environ(agones: LocalAgones) -> dict[str, str]:
    pid = agones.status()[0].servers[0].pid
    pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)
