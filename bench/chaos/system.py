"""
The system under chaos: every part a process of its own, several of each, started again when it ends, as Kubernetes would.

Matchmakers, directors and allocators are `warmfleet serve` with the Kubernetes backend; the cluster is the tests' Agones (`tests/agones_fake`), whose
pods are real game servers; the store is a Valkey with replicas and Sentinels (`store.py`), or a Cluster (`cluster.py`).
"""

import asyncio
import base64
import os
import re
import secrets
import signal
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

import httpx

from bench.chaos.store import PASSWORD, Store
from gameserver.seats import SeatIssuer

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from agones_fake import FakeAgones
from agones_fake.kubelet import Kubelet
from conftest import free_port

ROOMS = 2
FLEET, QUEUES = "arena", {"duel": "8", "brief": "1"}
"""The queues' matches last so long, in s; in the brief one somebody always asks for a match."""
SPECS = f"""
apiVersion: warmfleet.dev/v1
kind: Fleet
metadata: {{name: {FLEET}}}
spec:
  server: {{game: "gameserver.games.arena:Arena", image: "registry.example/arena:1", rooms: {ROOMS}, seats: 4, transports: [websocket, udp]}}
  warm: {{shelf: 3, buffer: 1, min: 1, max: 20}}
"""
_QUEUE = """---
apiVersion: warmfleet.dev/v1
kind: Queue
metadata: {{name: {name}}}
spec:
  fleets: [arena]
  teams: [{{name: red, players: 1}}, {{name: blue, players: 1}}]
  ticketTimeout: 120s
  options: {{map: duel, duration_s: "{lasts_s}"}}
"""
PARTS = ("matchmaker", "director", "allocator")
_RESTART_S = 0.2


class Program:
    """One replica of a part: a process that is started again whenever it ends."""

    def __init__(self, name: str, part: str, folder: Path, env: dict[str, str]) -> None:
        self.name, self.part = name, part
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"{name}.log"
        self.starts = 0
        self._folder = folder
        self._env = env
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        assert self._process is not None
        return self._process.pid

    def begin(self) -> None:
        """Run it until `end`."""
        self._keeper = asyncio.create_task(self._keep(), name=self.name)

    async def end(self) -> None:
        """Stop it for good, as at a deployment's end."""
        assert self._keeper is not None
        self._keeper.cancel()
        await asyncio.wait([self._keeper])
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                async with asyncio.timeout(15):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    async def is_ready(self) -> bool:
        """Whether `/readyz` says so."""
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=1.0) as http:
                return (await http.get(f"{self.url}/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    async def until_ready(self) -> None:
        """Wait for that."""
        while not await self.is_ready():  # noqa: ASYNC110 (another process' state)
            await asyncio.sleep(0.1)

    async def _keep(self) -> None:
        command = ("serve", self.part, str(self._folder / "specs"), "--port", str(self.port))
        while True:
            with self.log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *("setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-m", "fleets.cli", *command),
                    env={**os.environ, **self._env},
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            self.starts += 1
            await self._process.wait()
            await asyncio.sleep(_RESTART_S)


class System:
    """Everything, while entered."""

    def __init__(self, folder: Path, store: Store, *, replicas: int, servers: int, seed: int) -> None:
        """`replicas`: of each part; `servers`: game servers of the fleet."""
        self.folder, self.store = folder, store
        self._servers = servers
        self.agones = FakeAgones(folder / "agones", seed=seed)
        self.player_secret = secrets.token_urlsafe(32)
        seat_key, netcode_key = secrets.token_bytes(32), secrets.token_bytes(32)
        netcode = base64.urlsafe_b64encode(netcode_key).decode()
        (folder / "specs").mkdir()
        (folder / "specs" / "specs.yaml").write_text(_specs(), encoding="utf-8")
        common = {
            "WARMFLEET_VALKEY_URL": store.url,
            "WARMFLEET_VALKEY_REPLICAS": str(store.replicas),
            **(store.clocks.env if store.clocks else {}),
        }
        env = {
            "matchmaker": {
                "WARMFLEET_SEAT_SIGNING_KEY": base64.urlsafe_b64encode(seat_key).decode(),
                "WARMFLEET_PLAYER_KEYS": self.player_secret,
                "WARMFLEET_NETCODE_KEY": netcode,
                "WARMFLEET_REQUESTS_PER_S": "100",
            },
            "director": {},
            "allocator": {"WARMFLEET_KUBECONFIG": str(self.agones.kubeconfig), "WARMFLEET_BACKEND": "kubernetes"},
        }
        self.programs = [
            Program(f"{part}-{number}", part, folder, {**common, **env[part]})
            for part in PARTS
            for number in range(replicas)
        ]
        game = {
            "WARMFLEET_GAME": "gameserver.games.arena:Arena", "WARMFLEET_FLEET": FLEET, "WARMFLEET_ROOMS": str(ROOMS),
            "WARMFLEET_SEATS": "4", "WARMFLEET_TRANSPORTS": "websocket,udp", "WARMFLEET_TICK_RATE": "20",
            "WARMFLEET_SEAT_KEYS": SeatIssuer(seat_key).public_key,
            "WARMFLEET_NETCODE_KEY": netcode, "WARMFLEET_DRAIN_TIMEOUT_S": "2", "OPENBLAS_NUM_THREADS": "1", **common,
        }  # fmt: skip
        self.secrets = (PASSWORD, self.player_secret, netcode, env["matchmaker"]["WARMFLEET_SEAT_SIGNING_KEY"])
        self.kubelet = Kubelet(self.agones.cluster, [sys.executable, "-m", "gameserver"], game, folder / "pods")
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start everything and wait until each part is ready. Raises TimeoutError."""
        try:
            await self._stack.enter_async_context(self.agones)
            await self._stack.enter_async_context(self.kubelet)
            self.agones.cluster.make_fleet(FLEET, self._servers, ports=("websocket", "udp"))
            for program in self.programs:
                program.begin()
                self._stack.push_async_callback(program.end)
            async with asyncio.timeout(120):
                await self.agones.until_ready(FLEET, 1)
                for program in self.programs:
                    await program.until_ready()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def replicas(self, part: str) -> list[Program]:
        """Those of one part."""
        return [program for program in self.programs if program.part == part]

    def game_servers(self) -> dict[str, int]:
        """Servers that are up, with their processes."""
        states = self.agones.cluster.states(FLEET)
        return {
            name: pid for name, state in states.items() if state in ("Ready", "Allocated") and (pid := self._pid(name))
        }

    def _pid(self, name: str) -> int:
        try:
            pid = self.kubelet.pid(name)
            os.kill(pid, 0)
        except (KeyError, ProcessLookupError):
            return 0
        return pid


class Players:
    """The players' process."""

    def __init__(self, system: System, journal: Path, *, players: int, finish_s: float) -> None:
        self.journal = journal
        self._system, self._players, self._finish_s = system, players, finish_s

    async def __aenter__(self) -> Self:
        urls = [word for program in self._system.replicas("matchmaker") for word in ("--url", program.url)]
        with (self._system.folder / "players.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *("setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-m", "bench.chaos.players", *urls),
                *("--players", str(self._players), "--journal", str(self.journal), "--udp"),
                *(word for queue in QUEUES for word in ("--queue", queue)),
                *("--finish", str(self._finish_s)),
                env={**os.environ, "CHAOS_PLAYER_SECRET": self._system.player_secret},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let them finish their matches."""
        if self._process.returncode is None:
            self._process.terminate()
        try:
            async with asyncio.timeout(self._finish_s + 10):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def check(self) -> None:
        """Raises RuntimeError when they have ended by themselves."""
        if self._process.returncode is not None:
            log = (self._system.folder / "players.log").read_text(encoding="utf-8")
            code = self._process.returncode
            raise RuntimeError(f"the players' process has ended with exit code {code}: {log[-2000:]}")


def told_secrets(folder: Path, secrets_: tuple[str, ...]) -> list[str]:
    """The logs below a folder in which a secret or a signed token of a player stands."""
    wanted = re.compile("|".join((*map(re.escape, secrets_), r"eyJ[\w-]{8,}\.[\w-]{8,}\.")))
    logs = sorted(folder.rglob("*.log"))
    return [str(log.relative_to(folder)) for log in logs if wanted.search(log.read_text("utf-8", "replace"))]


def _specs() -> str:
    return SPECS + "".join(_QUEUE.format(name=name, lasts_s=lasts_s) for name, lasts_s in QUEUES.items())


def now_s() -> float:
    """The clock of every journal: monotonic seconds of this machine."""
    return time.monotonic()
