"""Fakes that tests share: a backend in memory with faults."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

from allocator.model import GameServer, ServerState
from allocator.ports import RECYCLE_LABEL, BackendUnavailable
from gameserver.sessions.model import FleetName, ServerName


class FakeBackend:
    """A backend whose servers are made at once; `lose_replies` makes calls take effect and still fail."""

    def __init__(self, fleet: FleetName, ready: int = 0) -> None:
        self.fleet = fleet
        self.all: dict[ServerName, GameServer] = {}
        self.given: list[ServerName] = []
        self.lose_replies = 0.0
        self.down = False
        self.rng = random.Random(0)
        self._watchers: list[asyncio.Queue[GameServer]] = []
        self._count = 0
        self.add(ready)

    def add(self, count: int = 1) -> None:
        for _ in range(count):
            self._count += 1
            name = ServerName(f"{self.fleet}-{self._count}")
            ports = {"websocket": 7000 + self._count}
            self._set(GameServer(name=name, fleet=self.fleet, state=ServerState.READY, host="h", ports=ports))

    def begin(self) -> ServerName:
        """A server that is not Ready yet."""
        self._count += 1
        name = ServerName(f"{self.fleet}-{self._count}")
        self._set(GameServer(name=name, fleet=self.fleet, state=ServerState.STARTING, host="h"))
        return name

    def finish(self, name: ServerName) -> None:
        """It is Ready."""
        self._set(replace(self.all[name], state=ServerState.READY, ports={"websocket": 7000}))

    def kill(self, name: ServerName) -> None:
        if (server := self.all.pop(name, None)) is not None:
            self._tell(replace(server, state=ServerState.SHUTDOWN))

    async def allocate(
        self, fleet: FleetName, *, labels: Mapping[str, str], annotations: Mapping[str, str]
    ) -> GameServer | None:
        self._check()
        for server in self._of(fleet):
            if server.state is ServerState.READY:
                taken = replace(
                    server,
                    state=ServerState.ALLOCATED,
                    labels={**server.labels, **labels},
                    annotations={**server.annotations, **annotations},
                )
                self._set(taken)
                self.given.append(server.name)
                self._maybe_lose()
                return taken
        return None

    async def servers(self, fleet: FleetName, *, fresh: bool = False) -> tuple[GameServer, ...]:
        self._check()
        return self._of(fleet)

    async def watch(self, fleet: FleetName) -> AsyncIterator[GameServer]:
        changes: asyncio.Queue[GameServer] = asyncio.Queue()
        self._watchers.append(changes)
        try:
            self._check()
            for server in self._of(fleet):
                yield server
            while True:
                server = await changes.get()
                self._check()
                if server.fleet == fleet:
                    yield server
        finally:
            self._watchers.remove(changes)

    async def label(self, server: ServerName, labels: Mapping[str, str]) -> None:
        self._check()
        if (held := self.all.get(server)) is not None:
            state = ServerState.READY if labels.get(RECYCLE_LABEL) == "ready" else held.state
            self._set(replace(held, labels={**held.labels, **labels}, state=state))
            self._maybe_lose()

    async def delete(self, server: ServerName) -> None:
        self._check()
        self.kill(server)
        self._maybe_lose()

    def _of(self, fleet: FleetName) -> tuple[GameServer, ...]:
        return tuple(server for server in self.all.values() if server.fleet == fleet)

    def _set(self, server: GameServer) -> None:
        self.all[server.name] = server
        self._tell(server)

    def _tell(self, server: GameServer) -> None:
        for changes in self._watchers:
            changes.put_nowait(server)

    def _check(self) -> None:
        if self.down:
            raise BackendUnavailable("down")

    def _maybe_lose(self) -> None:
        if self.rng.random() < self.lose_replies:
            raise BackendUnavailable("the reply was lost")
