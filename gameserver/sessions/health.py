"""How the session store is: its answer's time, its memory, its clients; for the services that run all the time."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import structlog
from redis.exceptions import RedisError

from gameserver.sessions import store_metrics as metrics
from gameserver.sessions.client import StoreClient

log = structlog.get_logger(__name__)

_PERIOD_S = 2.0
_READ: Mapping[str, Callable[[float], None]] = {
    "used_memory": metrics.STORE_MEMORY_BYTES.set,
    "maxmemory": metrics.STORE_MEMORY_MAX_BYTES.set,
    "connected_clients": metrics.STORE_CLIENTS.set,
    "connected_slaves": metrics.STORE_REPLICAS.set,
    "evicted_keys": metrics.STORE_EVICTED_KEYS.set,
    "instantaneous_ops_per_sec": metrics.STORE_COMMANDS_PER_SECOND.set,
}
"""Field of INFO to what is done with it."""


async def watch_store(client: StoreClient) -> NoReturn:
    """Measure until cancelled; a store that is away is counted."""
    away = False
    while True:
        begun_s = time.perf_counter()
        try:
            await client.ping()
            metrics.STORE_PING_SECONDS.observe(time.perf_counter() - begun_s)
            _note(await client.info())
            metrics.STORE_UP.set(1)
            away = False
        except (RedisError, OSError) as error:
            metrics.STORE_UP.set(0)
            metrics.STORE_ERRORS.labels(type(error).__name__).inc()
            if not away:
                log.warning("store_away", error=str(error))
            away = True
        await asyncio.sleep(_PERIOD_S)


def _note(info: Mapping[str, Any]) -> None:
    for field, note in _READ.items():
        value = info.get(field)
        if isinstance(value, int | float):
            note(float(value))
