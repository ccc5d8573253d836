"""Faults of the store: Valkeys and Sentinels killed and frozen, failovers, a store that is full, read-only, slow, or whose disk is."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import redis

from bench.chaos.clocks import STORE_MOST_S, Clocks, jump_s
from bench.chaos.faults import Fault, Maker, freeze, set_clock
from bench.chaos.network import Wire
from bench.chaos.store import Store, ValkeyServer
from bench.chaos.system import System

FULL_BYTES = 64 * 1024
"""What is left on a disk that is full."""


def _primary(system: System) -> ValkeyServer | None:
    """The primary, while nothing else of the store is broken."""
    return system.store.primary() if system.store.in_step() else None


def _replica(system: System, rng: random.Random) -> ValkeyServer | None:
    primary = _primary(system)
    others = system.store.replicas_of(primary) if primary is not None else []
    return rng.choice(others) if others else None


def _fault(name: str, server: ValkeyServer, store: Store, run: Callable[[], Awaitable[None]]) -> Fault:
    return Fault(target=f"{name} :{server.port}", run=run, healed=lambda: store.in_step())


def restart_primary(system: System, rng: random.Random) -> Fault | None:
    """Killed and started again at once, before anybody takes over: its file has all."""
    server = _primary(system)
    if server is None:
        return None

    async def run() -> None:
        await asyncio.to_thread(server.kill)
        server.start()

    return _fault("primary", server, system.store, run)


def lose_primary(system: System, rng: random.Random) -> Fault | None:
    """Killed; its replica takes over; it comes back as a replica."""
    server = _primary(system)
    if server is None:
        return None
    away_s = rng.uniform(4.0, 7.0)  # longer than the others take to agree that it is gone

    async def run() -> None:
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(away_s)
        await asyncio.to_thread(system.store.restart, server)

    return _fault("primary", server, system.store, run)


def freeze_primary(system: System, rng: random.Random) -> Fault | None:
    """It stands still, is taken for dead or not, and wakes up."""
    server = _primary(system)
    return (
        None if server is None else _fault("primary", server, system.store, freeze(server.pid, rng.uniform(0.5, 5.0)))
    )


def lose_replica(system: System, rng: random.Random) -> Fault | None:
    """Claims wait for it: they count once it has them."""
    server = _replica(system, rng)
    if server is None:
        return None
    away_s = rng.uniform(0.5, 3.0)

    async def run() -> None:
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(away_s)
        server.start()

    return _fault("replica", server, system.store, run)


def lose_sentinel(system: System, rng: random.Random) -> Fault | None:
    """One of three."""
    server = rng.choice(system.store.sentinels)
    away_s = rng.uniform(0.5, 3.0)

    async def run() -> None:
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(away_s)
        server.start()

    return _fault("sentinel", server, system.store, run)


def _commanded(*, gently: bool) -> Maker:
    """As an operator does: before maintenance, or since nothing else helps."""

    def make(system: System, rng: random.Random) -> Fault | None:
        server = _primary(system)
        if server is None:
            return None

        async def run() -> None:
            try:
                await asyncio.to_thread(lambda: system.store.command_failover(server, gently=gently))
            except redis.RedisError:
                return  # it is in the middle of one
            await asyncio.sleep(1.0)

        return _fault("primary", server, system.store, run)

    return make


def _configured(setting: str, broken: Callable[[ValkeyServer], str], well: str) -> Maker:
    """A Valkey setting that makes it refuse, for a while."""

    def make(system: System, rng: random.Random) -> Fault | None:
        server = _primary(system)
        if server is None:
            return None
        for_s = rng.uniform(0.5, 4.0)

        async def run() -> None:
            try:
                await asyncio.to_thread(lambda: server.ask("CONFIG", "SET", setting, broken(server)))
                await asyncio.sleep(for_s)
            finally:
                await _insist(server, "CONFIG", "SET", setting, well)

        return _fault("primary", server, system.store, run)

    return make


def pause_writes(system: System, rng: random.Random) -> Fault | None:
    """As slow as a disk that does not answer: writes wait."""
    server = _primary(system)
    if server is None:
        return None
    for_s = rng.uniform(0.5, 4.0)

    async def run() -> None:
        await _insist(server, "CLIENT", "PAUSE", round(for_s * 1000), "WRITE")
        await asyncio.sleep(for_s)

    return _fault("primary", server, system.store, run)


def fill_disk(system: System, rng: random.Random) -> Fault | None:
    """No byte more can be written: Valkey refuses writes until there is room again."""
    store, server = system.store, _primary(system)
    if server is None:
        return None
    disk = store.disks[store.valkeys.index(server)]
    for_s = rng.uniform(1.0, 4.0)

    async def run() -> None:
        ballast = disk / "ballast"
        try:
            await asyncio.to_thread(_fill, ballast)
            await asyncio.sleep(for_s)
        finally:
            ballast.unlink(missing_ok=True)

    return _fault("disk of primary", server, system.store, run)


def _clock(clocks: Clocks, servers: Callable[[Store], Sequence[ValkeyServer]]) -> Maker:
    """The wall clock of its host is set wrong, and right again."""

    def make(system: System, rng: random.Random) -> Fault | None:
        if _primary(system) is None:
            return None
        server = rng.choice(servers(system.store))
        run = set_clock(clocks, server.pid, jump_s(rng, STORE_MOST_S), rng.uniform(0.5, 4.0))
        return _fault("clock of Valkey", server, system.store, run)

    return make


def _over(wire: Wire, loss: tuple[float, float], delay_s: tuple[float, float]) -> Maker:
    """What the wire to the second host does for a while: there is a Valkey, primary or not, and a Sentinel."""

    def make(system: System, rng: random.Random) -> Fault | None:
        if _primary(system) is None:
            return None
        for_s, lost, late_s = rng.uniform(1.0, 5.0), rng.uniform(*loss), rng.uniform(*delay_s)

        async def run() -> None:
            wire.loss, wire.delay_s = lost, late_s
            try:
                await asyncio.sleep(for_s)
            finally:
                wire.loss = wire.delay_s = 0.0

        return Fault(target="wire", run=run, healed=lambda: system.store.in_step())

    return make


def _fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        size = 1 << 20
        while size >= 512:
            try:
                file.write(bytes(size))
            except OSError:  # ENOSPC: what is left is smaller
                size //= 2


async def _insist(server: ValkeyServer, *words: str | int) -> None:
    """Say it until it is heard: a fault must end."""
    for _ in range(50):
        try:
            await asyncio.to_thread(server.ask, *words)
            return
        except redis.RedisError:
            await asyncio.sleep(0.2)


def _half_of_used(server: ValkeyServer) -> str:
    return str(int(server.ask("INFO", "memory")["used_memory"]) // 2)


def kinds(store: Store, wire: Wire | None) -> dict[str, Maker]:
    """Those that this store can have, and the wire to its second host."""
    found: dict[str, Maker] = {
        "kill -9 Valkey, restart": restart_primary,
        "Valkey full (noeviction)": _configured("maxmemory", _half_of_used, "0"),
        "Valkey refuses writes": _configured("min-replicas-to-write", lambda _: "5", "1" if store.replicas else "0"),
        "Valkey's writes stall": pause_writes,
    }
    if store.replicas:
        found |= {
            "kill -9 Valkey, failover": lose_primary,
            "freeze Valkey": freeze_primary,
            "kill -9 Valkey's replica": lose_replica,
            "commanded failover": _commanded(gently=True),
            "forced failover": _commanded(gently=False),
        }
    if store.sentinels:
        found["kill -9 Sentinel"] = lose_sentinel
    if store.clocks is not None:
        found["clock of Valkey jumps"] = _clock(
            store.clocks, lambda store: [s for s in store.valkeys if s.is_primary()]
        )
        if store.replicas:
            others = _clock(
                store.clocks, lambda store: [*(s for s in store.valkeys if not s.is_primary()), *store.sentinels]
            )
            found["clock of replica or Sentinel jumps"] = others
    if wire is not None:
        found |= {
            "network: 5 to 30 % lost": _over(wire, (0.05, 0.3), (0.0, 0.0)),
            "network: 20 to 200 ms late": _over(wire, (0.0, 0.0), (0.02, 0.2)),
            "network: cut": _over(wire, (1.0, 1.0), (0.0, 0.0)),
        }
    if store.disks:
        found["disk full"] = fill_disk
    return found
