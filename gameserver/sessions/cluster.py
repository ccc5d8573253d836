"""
The Valkey client for a Cluster: one client, with its pipe, for each primary; what is asked goes to the one that has the key.

Has the face of `StoreClient`, whose commands and functions name their keys anyway. Owns the map of slots: which primary has which, read by the first
call, and again whenever a node points elsewhere or does not answer. Does not follow ASK, by which slots are moved key by key: a function whose keys
are half here and half there would decide on half of what it must know (docs/decisions/0100). redis-py's own RedisCluster is passed by: its
connections have the same flaw as its client's (`client.py`), it loads the list of all commands, and functions would not share a connection.
"""

import asyncio
import bisect
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gameserver.sessions.client import StoreClient

Address = tuple[str, int]
_T = TypeVar("_T")

MAP_TIMEOUT_S = 1.0
"""For reading the map, from however many nodes."""
_NODE_TIMEOUT_S = 0.4
"""For one node to tell it: another may know."""
_AWAY = (RedisConnectionError, RedisTimeoutError, OSError, ReadOnlyError, OutOfMemoryError, ClusterDownError)
"""Of one node: what the others do is not in question."""
_REDIRECTS = 3
"""A slot that has moved is asked for where it is now; more often than so, nodes do not agree."""


class ClusterClient(StoreClient):
    """A client of all primaries of a Cluster."""

    def __init__(self, seeds: Sequence[Address], options: dict[str, Any]) -> None:
        """
        Prepare; nothing is connected yet.

        Args:
            seeds: some nodes, any of which tells of all others.
            options: of every connection. Raises: ValueError for a database other than 0.
        """
        if options.get("db"):
            raise ValueError(f"a Cluster has database 0 alone: leave /{options['db']} out of its URL")
        super().__init__(host=seeds[0][0], port=seeds[0][1], **options)
        self._seeds, self._options = tuple(seeds), options
        self._known = set(seeds)
        """Who may tell of the others: replicas too, of which one may be all that is left."""
        self._nodes: dict[Address, StoreClient] = {}
        self._map: tuple[tuple[int, int, Address], ...] = ()
        """The last and the first slot of each range, ascending, and who has it."""
        self._stale = True
        self._changes = 0
        self._reading = asyncio.Lock()

    @property
    def connections(self) -> int:
        """Changes too when slots have changed hands."""
        return self._changes + sum(node.connections for node in self._nodes.values())

    @property
    def primaries(self) -> tuple[StoreClient, ...]:
        """One client for each."""
        return tuple(map(self._node, self._holders()))

    async def call_function(self, function: str, keys: Sequence[str], *args: str | int | float | bytes) -> Any:
        """Call a function where its keys are; all have one hash tag."""
        return await self._at(keys[0], lambda node: node.call_function(function, keys, *args))

    async def call_durably(
        self, function: str, keys: Sequence[str], *args: str | int | float | bytes, replicas: int
    ) -> Any:
        """As for one server; the replicas are those of the keys' primary."""
        return await self._at(keys[0], lambda node: node.call_durably(function, keys, *args, replicas=replicas))

    async def function_load(self, code: str, replace: bool | None = False) -> Any:
        """Load a library on every primary; one that is away is passed over, unless all are."""
        await self._fresh()
        loads = (node.function_load(code, replace=replace) for node in self.primaries)
        done = await asyncio.gather(*loads, return_exceptions=True)
        failed = [one for one in done if isinstance(one, BaseException)]
        self._stale |= bool(failed)
        for error in failed:
            if len(failed) == len(done) or not isinstance(error, _AWAY):
                raise error
        return next(one for one in done if not isinstance(one, BaseException))

    async def clock_s(self, key: str) -> float:
        """The clock of the primary that has a key."""
        return await self._at(key, lambda node: node.clock_s(key))

    async def fetch_all(self, commands: Sequence[tuple[str | int, ...]]) -> list[Any]:
        """One round trip for each primary that has some of the keys."""
        await self._fresh()
        parts: defaultdict[Address, list[int]] = defaultdict(list)
        for at, words in enumerate(commands):
            parts[self._holder(_slot(words[1]))].append(at)

        async def fetch(places: list[int]) -> list[Any]:
            some = [commands[at] for at in places]
            return await self._at(some[0][1], lambda node: node.fetch_all(some))

        replies: list[Any] = [None] * len(commands)
        try:
            found = await asyncio.gather(*map(fetch, parts.values()))
        except MovedError:  # a part that is no longer one primary's
            return [await self.execute_command(*words) for words in commands]
        for places, rows in zip(parts.values(), found, strict=True):
            for at, row in zip(places, rows, strict=True):
                replies[at] = row
        return replies

    async def info(self, section: str | None = None, *args: str, **options: Any) -> dict[str, Any]:
        """Of all primaries together: what is a number everywhere is added up, of anything else one is taken."""
        await self._fresh()
        asked = (node.info(section, *args, **options) for node in self.primaries)
        return together(await asyncio.gather(*asked))

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run one command where its key is; one without a key, anywhere."""
        key = _key(args)
        if key is not None:
            return await self._at(key, lambda node: node.execute_command(*args, **options))
        await self._fresh()
        *others, last = random.sample(holders := self._holders(), len(holders))
        for address in others:
            try:
                return await self._on(address, lambda node: node.execute_command(*args, **options))
            except _AWAY:
                pass  # another answers
        return await self._on(last, lambda node: node.execute_command(*args, **options))

    async def by_server(self, channels: Sequence[str]) -> dict[StoreClient, list[str]]:
        """
        Channels by the primary whose functions publish on them: their tag is the keys'.

        Any other node hears of it too, by the Cluster's bus; but when this one dies, its listeners know that they may have missed something.
        """
        self._stale = True  # perhaps they ask because a primary was lost
        await self._fresh()
        found: defaultdict[StoreClient, list[str]] = defaultdict(list)
        for channel in channels:
            found[self._node(self._holder(_slot(channel)))].append(channel)
        return found

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close all connections."""
        for node in self._nodes.values():
            await node.aclose(close_connection_pool)
        await super().aclose(close_connection_pool)

    def _node(self, address: Address) -> StoreClient:
        if address not in self._nodes:
            node = self._nodes[address] = StoreClient(host=address[0], port=address[1], **self._options)
            node.slots = True
        return self._nodes[address]

    def _holder(self, slot: int) -> Address:
        at = bisect.bisect_left(self._map, (slot,))
        if at == len(self._map) or self._map[at][1] > slot:
            raise ClusterDownError(f"no primary has slot {slot}")
        return self._map[at][2]

    def _holders(self) -> list[Address]:
        return list(dict.fromkeys(address for _, _, address in self._map))

    async def _at(self, key: str | bytes | int, send: Callable[[StoreClient], Awaitable[_T]]) -> _T:
        """
        Ask the primary that has a key.

        Raises: what `send` raises; after a lost connection too, since that one's caller knows better whether to ask again.
        """
        slot = _slot(key)
        for left in reversed(range(_REDIRECTS)):
            if self._stale:
                await self._fresh()
            try:
                return await self._on(self._holder(slot), send)
            except MovedError as moved:
                if not left:
                    raise
                await self._fresh(told=(moved.host, moved.port))
        raise AssertionError("the last try returns or raises")

    async def _on(self, address: Address, send: Callable[[StoreClient], Awaitable[_T]]) -> _T:
        try:
            return await send(self._node(address))
        except (MovedError, *_AWAY):
            self._stale = True
            raise
        except AskError as error:
            raise ResponseError(
                f"slot {error.slot_id} is being moved key by key, and what needs several of its keys waits until it is through: "
                "move slots whole (CLUSTER MIGRATESLOTS)"
            ) from error

    async def _fresh(self, told: Address | None = None) -> None:
        """Read the map if it is stale; `told`: who should know. Raises ConnectionError when nobody tells it."""
        if not self._stale:
            return
        async with self._reading:
            if not self._stale:
                return  # another caller was faster
            await self._take(await self._ask_around(told))

    async def _ask_around(self, told: Address | None) -> tuple[tuple[int, int, Address], ...]:
        known = random.sample(list(self._known), len(self._known))
        if told is not None and told[0]:
            known.insert(0, told)
        said: Exception | None = None
        try:
            async with asyncio.timeout(MAP_TIMEOUT_S):
                for address in known:
                    try:
                        return await self._read(address)
                    except (RedisError, OSError) as error:
                        said = error
        except TimeoutError:
            pass
        raise RedisConnectionError(f"no node of the Cluster tells who has which slot: {said}") from said

    async def _read(self, address: Address) -> tuple[tuple[int, int, Address], ...]:
        async with asyncio.timeout(_NODE_TIMEOUT_S):
            ranges = await self._node(address).execute_command("CLUSTER SLOTS")
        if not ranges:
            raise ClusterDownError(f"{address[0]}:{address[1]} knows of no slots")
        found, known = [], set(self._seeds)
        for first, last, *nodes in ranges:
            # Without a host it is the one by which we reached who says so.
            primary, *replicas = ((host.decode() if host else address[0], port) for host, port, *_ in nodes)
            found.append((last, first, primary))
            known.update((primary, *replicas))
        self._known = known
        return tuple(sorted(found))

    async def _take(self, found: tuple[tuple[int, int, Address], ...]) -> None:
        self._stale = False
        if found == self._map:
            return
        self._map = found
        self._changes += 1
        self._move()
        for address in self._nodes.keys() - {*self._holders()}:
            gone = self._nodes.pop(address)
            self._changes += gone.connections
            await gone.aclose()


def together(infos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several servers' INFO as one; a field that reads as a number on one and as text on another (identifiers do) is no number."""
    values: defaultdict[str, list[Any]] = defaultdict(list)
    for info in infos:
        for field, value in info.items():
            values[field].append(value)
    numbers = {field for field, some in values.items() if all(isinstance(one, int | float) for one in some)}
    return {field: sum(some) if field in numbers else some[-1] for field, some in values.items()}


@lru_cache(maxsize=4096)  # prefixes of fleets and queues, most of all
def _slot(key: str | bytes | int) -> int:
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


def _key(words: Sequence[Any]) -> Any:
    """A command's key; None where any server will do. Raises: NotImplementedError for what is about one server."""
    command = str(words[0]).upper()
    if command in ("PING", "TIME", "ECHO"):
        return None
    if command in ("XREADGROUP", "XREAD"):
        return words[next(at for at, word in enumerate(words) if word in ("STREAMS", b"STREAMS")) + 1]
    if command in ("FCALL", "FCALL_RO", "EVAL", "EVALSHA"):
        return words[3]
    if len(words) < 2 or command.startswith(("CONFIG", "CLIENT", "CLUSTER", "FUNCTION", "SCRIPT", "SCAN", "WAIT")):
        raise NotImplementedError(f"{command} is about one server: ask each of `primaries`")
    return words[1]
