"""The console's own work: a look a second, and now and then why each queue's oldest ticket waits."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn

import structlog

from fleets.console.feed import Feed
from fleets.console.look import Looker
from fleets.console.tempo import Tempo
from gameserver.sessions.port import StoreUnavailable

log = structlog.get_logger(__name__)

_PERIOD_S = 1.0
_WHY_EVERY_S = 5.0


class Console:
    """Keeps a feed fed; `run` until cancelled."""

    def __init__(self, feed: Feed, looker: Looker, tempo: Tempo, *, ask_why: Callable[[], Awaitable[None]]) -> None:
        """`ask_why`: finds out anew why tickets wait; only called while somebody watches."""
        self._feed = feed
        self._looker = looker
        self._tempo = tempo
        self._ask_why = ask_why

    async def run(self) -> None:
        """Look, ask and read until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look_on(), name="console-look")
            tasks.create_task(self._ask_on(), name="console-why")
            tasks.create_task(self._tempo.run(), name="console-tempo")

    async def _look_on(self) -> NoReturn:
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            try:
                self._feed.publish(*await self._looker.look(), time.time())
            except StoreUnavailable as error:
                log.info("console_waits", error=str(error))
            due_s = max(due_s + _PERIOD_S, loop.time())
            await asyncio.sleep(due_s - loop.time())

    async def _ask_on(self) -> NoReturn:
        while True:
            await asyncio.sleep(_WHY_EVERY_S)
            if self._feed.viewers:
                try:
                    await self._ask_why()
                except StoreUnavailable as error:
                    log.info("console_waits", error=str(error))
