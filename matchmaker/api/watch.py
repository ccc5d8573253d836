"""
Who follows what: one subscription per process, any number of followers, nothing running for those to whom nothing happens.

After an outage everyone reads afresh, since something may have been missed. A follower that reads too slowly gets the newest state when it is ready
again, never a queue of old ones, and is cut off in the end. What is followed: tickets (`ticket_watch`) and parties (`party_watch`).
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Generic, Protocol, TypeVar

import structlog

from allocator.api.problems import Problem
from gameserver.sessions.client import StoreClient, listen
from gameserver.sessions.port import StoreUnavailable
from matchmaker import metrics

log = structlog.get_logger(__name__)

KEEP_ALIVE_S = 15.0
STALLED_S = 30.0
"""A follower that has not read for so long is cut off."""
_SWEEP_S = 5.0
_STORE_RETRY_S = 0.5
MOST_FOLLOWERS = 50_000
"""Per process; more are asked to come back."""


class Record(Protocol):
    """What is followed, as it stands."""

    @property
    def event(self) -> int:
        """Grows with every change."""

    @property
    def over(self) -> bool:
        """Nothing more will happen to it."""


K = TypeVar("K")
R = TypeVar("R", bound=Record)
Fetch = Callable[[], Awaitable[R]]
"""Reads the record. Raises Problem when it is gone, StoreUnavailable."""
Push = Callable[[R, bool], Awaitable[None]]
"""Sends the record to the follower; the flag: it comes straight from a change. Raises StoreUnavailable, then it is called again."""
Change = Callable[[R], R]
"""Makes the record as it is after a change of what it was before."""


class Follower(Generic[R]):
    """One who is told of a record, now and at each change after event `after`, until it is over; `done` says when that is."""

    __slots__ = (
        "_after",
        "_alive",
        "_early",
        "_fresh",
        "_loop",
        "_push",
        "_record",
        "_stale",
        "_task",
        "_timer",
        "_wrote_at_s",
        "done",
        "fetch",
    )

    def __init__(
        self, fetch: Fetch[R], push: Push[R], alive: Callable[[], Awaitable[None]] | None, *, after: int
    ) -> None:
        """`alive`: sends a sign of life; None: the follower needs none."""
        self.fetch = fetch
        self._push = push
        self._alive = alive
        self._after = after
        self._record: R | None = None
        self._early: tuple[Change[R], int] | None = None
        """Heard before the record was read."""
        self._stale = False
        self._fresh = False
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._wrote_at_s = self._loop.time()
        self._task: asyncio.Task[Any] | None = None
        self.done: Callable[[bool], None] = lambda cut: None
        """Called once there is nothing more to tell (False), or the follower is cut off (True)."""

    async def begin(self, record: R) -> None:
        """Start with the record as it was read after `Watch.following` had begun, told at once: with the answer's head, if nothing holds it up."""
        self._record = record
        if self._early is not None and self._early[1] > record.event:
            self._record, self._fresh = self._early[0](record), True
        self._task = asyncio.current_task()
        try:
            await self._push_all()
        except Exception as error:
            self._broke(error)
        finally:
            self._task = None

    def changed(self, change: Change[R], event: int, *, passing_s: float = 0.0) -> None:
        """The channel says so. `passing_s`: for so long it is not worth telling, since another change mostly follows at once."""
        if self._record is None:
            self._early = (change, event)
        elif event > self._record.event:
            self._record, self._fresh = change(self._record), True
            if not passing_s:
                self._tell()
            elif self._timer is None:
                self._timer = self._loop.call_later(passing_s, self._tell)

    def refresh(self) -> None:
        """Something may have been missed: read the record."""
        self._stale = True
        self._tell()

    def sweep(self, now_s: float) -> None:
        """Send a sign of life where it is time, and cut off who does not read."""
        if self._task is not None:
            if now_s - self._wrote_at_s > STALLED_S:
                metrics.WATCHERS_DROPPED.inc()
                self.done(True)
        elif self._alive is not None and now_s - self._wrote_at_s >= KEEP_ALIVE_S:
            self._run(self._keep_alive(self._alive))

    def stop(self) -> None:
        """Tell it nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _tell(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is None:
            self._run(self._push_all())

    def _run(self, work: Any) -> None:
        self._wrote_at_s = self._loop.time()
        self._task = self._loop.create_task(work, name="follower")
        self._task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broke(error)
        elif not task.cancelled() and self._behind:
            self._tell()

    def _broke(self, error: BaseException) -> None:
        log.error("follower_failed", exc_info=error)
        self.done(True)

    @property
    def _behind(self) -> bool:
        return self._stale or (self._record is not None and self._record.event > self._after)

    async def _keep_alive(self, alive: Callable[[], Awaitable[None]]) -> None:
        await alive()
        self._wrote_at_s = self._loop.time()

    async def _push_all(self) -> None:
        """Catch up with the record; an outage of the store is waited out, and swallows no event."""
        while self._behind:
            try:
                if self._stale:
                    self._stale, self._fresh = False, False
                    found = await self.fetch()
                    if self._record is None or found.event > self._record.event:
                        self._record = found
                record = self._record
                assert record is not None
                if record.event > self._after:
                    await self._push(record, self._fresh)
                    self._after, self._wrote_at_s = record.event, self._loop.time()
            except StoreUnavailable:
                self._stale = True
                await asyncio.sleep(_STORE_RETRY_S)
                self._wrote_at_s = self._loop.time()
            except Problem:
                self.done(False)  # it has expired
                return
        if self._record is not None and self._record.over:
            self.done(False)


class Watch(Generic[K, R]):
    """Tells followers; `run` until cancelled. A subclass hears the channels."""

    def __init__(self, client: StoreClient, channels: Sequence[str]) -> None:
        self._client = client
        self._channels = channels
        self._followers: defaultdict[K, set[Follower[R]]] = defaultdict(set)
        self._count = 0

    def heard(self, message: bytes) -> None:
        """What a channel says."""
        raise NotImplementedError

    @contextmanager
    def following(self, key: K, follower: Follower[R]) -> Iterator[None]:
        """Tell a follower. Raises Problem 503 when there are too many."""
        if self._count >= MOST_FOLLOWERS:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{MOST_FOLLOWERS} followers are as many as this process takes",
                kind="too-many-watchers",
                headers={"Retry-After": "5"},
            )
        self._count += 1
        metrics.WATCHERS.inc()
        self._followers[key].add(follower)
        try:
            yield
        finally:
            follower.stop()
            self._count -= 1
            metrics.WATCHERS.dec()
            self._followers[key].discard(follower)
            if not self._followers[key]:
                del self._followers[key]

    def followers(self, key: K) -> tuple[Follower[R], ...]:
        """Those of one record."""
        return tuple(self._followers.get(key, ()))

    async def run(self) -> None:
        """Listen until cancelled; after an outage everyone reads afresh."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sweep(), name="sweep-followers")
            await listen(self._client, self._channels, self.heard, subscribed=self._refresh_all)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            now_s = asyncio.get_running_loop().time()
            for follower in self._all():
                follower.sweep(now_s)

    def _refresh_all(self) -> None:
        for follower in self._all():
            follower.refresh()

    def _all(self) -> list[Follower[R]]:
        return [follower for followers in self._followers.values() for follower in followers]
