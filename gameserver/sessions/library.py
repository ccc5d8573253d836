"""
A library of Valkey functions: loaded once, called by name, loaded again after a restart that lost it.

Shared by every adapter that decides inside Valkey (sessions, shelf, queue). Translates the client's errors, so that none leaves an adapter.
"""

from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from gameserver.sessions.client import StoreClient
from gameserver.sessions.port import StoreUnavailable

_EVENTS = Path(__file__).with_name("events.lua")
"""What every library can tell of its decisions."""


class FunctionLibrary:
    """The functions of one Lua file, whose first line is `#!lua name=<library>`, or of several: each knows what those before it define."""

    def __init__(self, client: StoreClient, source: Path, *more: Path) -> None:
        self._client = client
        shebang, code = source.read_text(encoding="utf-8").split("\n", 1)
        rest = [part.read_text(encoding="utf-8") for part in (_EVENTS, *more)]
        self._code = "\n".join((shebang, rest[0], code, *rest[1:]))
        self._loaded = False

    async def call(self, function: str, keys: list[str], *args: str | int | float | bytes, replicas: int = 0) -> Any:
        """
        Call a function: `keys` of one hash tag, then its arguments; with `replicas` wait until so many have what it wrote.

        Returns: what the function returns. Raises: StoreUnavailable when the store does not answer or refuses (then nothing is
        known about the effect: functions are written to be called again).
        """
        try:
            if not self._loaded:
                try:
                    await self._load()
                except (OutOfMemoryError, ReadOnlyError):
                    pass  # another process may have loaded it, and what frees and looks goes on there
            try:
                return await self._send(function, keys, *args, replicas=replicas)
            except ResponseError as error:
                if "Function not found" not in str(error):
                    raise
                await self._load()  # the store was restarted without it
                return await self._send(function, keys, *args, replicas=replicas)
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"{function}: {error}", why=_why(error)) from error

    def _send(self, function: str, keys: list[str], *args: str | int | float | bytes, replicas: int) -> Awaitable[Any]:
        if replicas:
            return self._client.call_durably(function, keys, *args, replicas=replicas)
        return self._client.call_function(function, keys, *args)

    async def prepare(self) -> None:
        """Load the library ahead of its first call; a store that is away is met again then."""
        try:
            await self._load()
        except (RedisError, OSError):
            pass  # `call` loads it

    async def _load(self) -> None:
        await self._client.function_load(self._code, replace=True)
        self._loaded = True


def _why(error: Exception) -> str:
    match error:
        case ReadOnlyError():
            return "the session store is read-only (a replica that has not taken over)"
        case OutOfMemoryError():
            return "the session store is full (maxmemory)"
        case ResponseError() if str(error).startswith("NOREPLICAS"):
            return "the session store has too few replicas"
        case BusyLoadingError():
            return "the session store loads its data"
        case ClusterDownError():
            return "a part of the session store's Cluster is down"
        case AskError():  # and MovedError
            return "the session store is a Cluster whose slots move, or is not named as one (redis+cluster://)"
        case _:
            return "the session store does not answer"
