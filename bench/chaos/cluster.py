"""The store under chaos as a Valkey Cluster: three primaries with a replica each, which fail over by themselves."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis
from redis.crc import key_slot

from bench.chaos.clocks import Clocks
from bench.chaos.network import Place
from bench.chaos.store import DATA, PASSWORD, Store, ValkeyServer, until

SHARDS = 3
NODES = 2 * SHARDS
_SLOTS = 16384
_CLUSTERED = (
    "cluster-enabled yes", "cluster-node-timeout 2000", "cluster-require-full-coverage no", "cluster-allow-replica-migration no",
    "repl-diskless-sync-delay 0", "repl-timeout 5", "repl-ping-replica-period 1", "min-replicas-to-write 1", "min-replicas-max-lag 2",
)  # fmt: skip


class Cluster(Store):
    """Six nodes; a shard's two run on different hosts, where there are two."""

    replicas = 1

    def __init__(
        self,
        folder: Path,
        ports: list[int],
        *,
        tags: Sequence[str],
        disks: Sequence[Path] = (),
        places: Sequence[Place] = (Place(),),
        clocks: Clocks | None = None,
    ) -> None:
        """
        Prepare.

        Args:
            ports: of six nodes, and of their six buses.
            tags: hash tags of the system's keys: `primary` is that of each in turn.
            disks: small file systems for the data of each node; none: it is in `folder`, and no disk gets full.
        """
        super().__init__(disks=disks, clocks=clocks)
        folder.mkdir(parents=True, exist_ok=True)
        self._buses = ports[NODES:]
        self._tags = itertools.cycle(tags)
        for number, (port, bus) in enumerate(zip(ports[:NODES], self._buses, strict=True)):
            name = f"valkey-{number}"
            lines = [*DATA, f"requirepass {PASSWORD}", f"masterauth {PASSWORD}", *_CLUSTERED, f"cluster-port {bus}"]
            place = places[(number + number // SHARDS) % len(places)]
            data = (disks[number] if disks else folder) / name
            env = clocks.env if clocks else {}
            self.valkeys.append(ValkeyServer(data, port, lines, log=folder / f"{name}.log", place=place, env=env))
        some = ",".join(f"{server.place.address}:{server.port}" for server in self.valkeys[:SHARDS])
        self.url = f"redis+cluster://:{PASSWORD}@{some}/0"

    async def begin(self) -> None:
        """Start and join them, and wait until they are in step."""
        for server in self.valkeys:
            server.start()
            await until(server.answers)
        first = self.valkeys[0]
        for server in self.valkeys[1:]:
            server.ask("CLUSTER", "MEET", first.place.address, first.port, self._buses[0])
        for number, server in enumerate(self.valkeys[:SHARDS]):
            low, high = _SLOTS * number // SHARDS, _SLOTS * (number + 1) // SHARDS - 1
            server.ask("CLUSTER", "ADDSLOTSRANGE", low, high)
        for server in self.valkeys:
            await until(lambda server=server: _connected(server) == NODES)
        for primary, replica in zip(self.valkeys[:SHARDS], self.valkeys[SHARDS:], strict=True):
            name = primary.ask("CLUSTER", "MYID")
            await until(lambda replica=replica, name=name: _said(replica, "CLUSTER", "REPLICATE", name))
        await until(self.in_step)

    def primary(self) -> ValkeyServer | None:
        """That of one of the tags, another each time."""
        slot = key_slot(next(self._tags).encode())
        holders = [server for server, (low, high) in self._ranges() if low <= slot <= high and server.is_primary()]
        return holders[0] if holders else None

    def in_step(self) -> bool:
        """Whether each range of slots has a primary that a replica follows, and all nodes say so."""
        ranges = self._ranges()
        if sum(high - low + 1 for _, (low, high) in ranges) != _SLOTS:
            return False
        if not all(_is_ok(server) for server in self.valkeys):
            return False
        return all(server.is_primary() and len(_following(server)) == 1 for server, _ in ranges)

    def replaced(self, server: ValkeyServer) -> bool:
        """By the slots that it has not."""
        ranges = self._ranges()
        return bool(ranges) and server not in [holder for holder, _ in ranges]

    def replicas_of(self, primary: ValkeyServer) -> list[ValkeyServer]:
        """The other of its shard."""
        ports = _following(primary)
        return [server for server in self.valkeys if server.port in ports]

    def command_failover(self, primary: ValkeyServer, *, gently: bool) -> None:
        """Asked of its replica."""
        for replica in self.replicas_of(primary):
            replica.ask("CLUSTER", "FAILOVER", *([] if gently else ["FORCE"]))

    def _ranges(self) -> list[tuple[ValkeyServer, tuple[int, int]]]:
        """Who has which slots, as the first that answers sees it."""
        for asked in self.valkeys:
            try:
                slots = asked.ask("CLUSTER", "SLOTS")
            except redis.RedisError:
                continue
            by_port = {server.port: server for server in self.valkeys}
            return [(by_port[port], (low, high)) for low, high, port in map(_slots_of, slots)]
        return []


def _slots_of(entry: Any) -> tuple[int, int, int]:
    low, high, primary = entry[0], entry[1], entry[2]
    return int(low), int(high), int(primary[1])


def _connected(server: ValkeyServer) -> int:
    try:
        return str(server.ask("CLUSTER", "NODES")).count(" connected")
    except redis.RedisError:
        return 0


def _is_ok(server: ValkeyServer) -> bool:
    try:
        return "cluster_state:ok" in str(server.ask("CLUSTER", "INFO"))
    except redis.RedisError:
        return False


def _following(server: ValkeyServer) -> set[int]:
    """Ports of those that follow a primary and have caught up."""
    try:
        info = server.ask("INFO", "replication")
    except redis.RedisError:
        return set()
    states = [value for key, value in info.items() if key.startswith("slave") and isinstance(value, dict)]
    return {int(state["port"]) for state in states if state["state"] == "online"}


def _said(server: ValkeyServer, *words: str) -> bool:
    try:
        return bool(server.ask(*words))
    except redis.RedisError:
        return False
