"""
Rooms and players of this server as Agones sees them: Counters and Lists named `rooms` and `players`, where the GameServer declares them.

Only shows: nothing here decides anything, and a sidecar that refuses or does not answer is met again at the next change. Counts above a declared
capacity are shown as that capacity, since Agones refuses more.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from gameserver.agones.sdk import AgonesSDK, SDKGameServer, SDKRefused, SDKUnavailable

log = structlog.get_logger(__name__)

PERIOD_S = 1.0
"""Agones' sidecar itself writes twice a second at most."""


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Who is here."""

    rooms: tuple[str, ...] = ()
    """Session ids."""
    players: tuple[str, ...] = ()


class Mirror:
    """Keeps Agones told."""

    def __init__(self, sdk: AgonesSDK, me: SDKGameServer) -> None:
        """`me`: what the GameServer declares."""
        self._sdk = sdk
        self._me = me
        self._told: dict[str, int | tuple[str, ...]] = {}
        self._complained = False

    async def run(self, look: Callable[[], Occupancy]) -> None:
        """Show what `look` sees, until cancelled."""
        while True:
            await self.show(look())
            await asyncio.sleep(PERIOD_S)

    async def show(self, seen: Occupancy) -> None:
        """Tell what has changed."""
        for name, ids in (("rooms", seen.rooms), ("players", seen.players)):
            if (counter := self._me.counters.get(name)) is not None:
                count = min(len(ids), counter.capacity)
                await self._tell(f"counter {name}", count, lambda n=name, c=count: self._sdk.update_counter(n, count=c))  # type: ignore[misc]
            if (values := self._me.lists.get(name)) is not None:
                first = tuple(sorted(ids))[: values.capacity]
                await self._tell(f"list {name}", first, lambda n=name, v=first: self._sdk.update_list(n, values=v))  # type: ignore[misc]

    async def _tell(self, what: str, value: int | tuple[str, ...], call: Callable[[], Awaitable[object]]) -> None:
        if self._told.get(what) == value:
            return
        try:
            await call()
            self._told[what] = value
        except (SDKUnavailable, SDKRefused) as error:
            if not self._complained:
                self._complained = True
                log.warning("agones_not_told", what=what, error=str(error))
