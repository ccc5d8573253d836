"""The console's own work: a look a second, and now and then why each queue's oldest ticket waits."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn

import structlog

from fleets.console.feed import Feed
from fleets.console.look import Looker
from fleets.console.web import CannotAct
from gameserver.sessions.port import StoreUnavailable

log = structlog.get_logger(__name__)

_PERIOD_S = 1.0
_WHY_EVERY_S = 5.0


class Console:
    """Keeps a feed fed; `run` until cancelled."""

    def __init__(
        self,
        feed: Feed,
        looker: Looker,
        *,
        measure: Callable[[], Awaitable[NoReturn]],
        ask_why: Callable[[], Awaitable[None]],
    ) -> None:
        """
        Make it.

        Args:
            measure: runs beside it, and keeps the figures of servers.
            ask_why: finds out anew why tickets wait; only called while somebody watches. May raise StoreUnavailable, CannotAct.
        """
        self._feed = feed
        self._looker = looker
        self._measure = measure
        self._ask_why = ask_why

    async def run(self) -> None:
        """Look, ask and read until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look_on(), name="console-look")
            tasks.create_task(self._ask_on(), name="console-why")
            tasks.create_task(self._measure_on(), name="console-measure")

    async def _measure_on(self) -> None:
        await self._measure()

    async def _look_on(self) -> NoReturn:
        loop = asyncio.get_running_loop()
        due_s, away = loop.time(), False
        while True:
            try:
                self._feed.publish(*await self._looker.look(), time.time())
                if away:
                    self._feed.note(time.time(), "store", "session store", "answers again")
                away = False
            except StoreUnavailable as error:
                if not away:
                    log.warning("console_waits", error=str(error))
                    told = f"does not answer, and what is shown is old: {error}"
                    self._feed.note(time.time(), "failure", "session store", told)
                away = True
            due_s = max(due_s + _PERIOD_S, loop.time())
            await asyncio.sleep(due_s - loop.time())

    async def _ask_on(self) -> NoReturn:
        while True:
            await asyncio.sleep(_WHY_EVERY_S)
            if self._feed.viewers:
                try:
                    await self._ask_why()
                except (StoreUnavailable, CannotAct) as error:
                    log.info("console_waits", error=str(error))
