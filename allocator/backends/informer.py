"""
A local copy of one kind of object in a cluster, kept by a watch.

`Copy` is the pure part: what a list, an event or our own write makes of it, in whatever order they arrive. `Informer` feeds it: list, watch from the
list's version on, resume where a watch ended, list anew when that version is gone (410), and now and then anyway.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import structlog

from allocator.backends import metrics
from allocator.backends.cluster import OPENED, Gone, Object
from allocator.ports import BackendUnavailable

log = structlog.get_logger(__name__)

_T = TypeVar("_T")

WATCH_S = 10
"""A watch is asked to end after so long and resumed: a connection that died without a word is found out by then."""
RESYNC_S = 300.0
"""Everything is listed anew so often, should a watch have lost something."""
STALE_S = 2.0
"""A copy whose watch has been broken for longer is not given out; not above the planner's SETTLE_S, so that what is judged has been seen."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_TOMBSTONES = 1000


@dataclass(frozen=True, slots=True)
class Held(Generic[_T]):
    """An object as it was at a version."""

    value: _T
    version: int


class Copy(Generic[_T]):
    """Objects by name; older news never undo newer ones."""

    def __init__(self) -> None:
        self._held: dict[str, Held[_T]] = {}
        self._gone: dict[str, int] = {}
        self.version = 0
        """Everything up to here is in it."""

    def values(self) -> tuple[_T, ...]:
        """All objects."""
        return tuple(held.value for held in self._held.values())

    def get(self, name: str) -> _T | None:
        """One object, None when it is not there."""
        held = self._held.get(name)
        return None if held is None else held.value

    def replace(self, listed: Mapping[str, Held[_T]], version: int) -> tuple[dict[str, _T], dict[str, _T]]:
        """Take up a list that is complete at `version`. Returns: what changed or came, what went."""
        gone = {n: held.value for n, held in self._held.items() if n not in listed and held.version <= version}
        for name in gone:
            del self._held[name]
        changed = {n: held.value for n, held in listed.items() if self.put(n, held, seen_at=version)}
        self.version = max(self.version, version)
        return changed, gone

    def put(self, name: str, new: Held[_T], *, seen_at: int | None = None) -> bool:
        """
        Take up one object; False when what is known is newer.

        Args:
            seen_at: the version of the list it is from; None: an event, or the answer to our own write.
        """
        held = self._held.get(name)
        if self._gone.get(name, -1) >= new.version:
            return False
        if held is None and seen_at is None and new.version <= self.version:
            return False  # a list that is newer did not have it
        if held is not None and (held.version > new.version or held == new):
            return False
        self._held[name] = new
        return True

    def remove(self, name: str, version: int) -> _T | None:
        """Take up a deletion; the object that went, None when it was not there or has come anew."""
        held = self._held.get(name)
        if held is not None and held.version > version:
            return None
        self._gone[name] = version
        while len(self._gone) > _TOMBSTONES:
            del self._gone[next(iter(self._gone))]
        self._held.pop(name, None)
        return None if held is None else held.value

    def amend(self, name: str, value: _T) -> None:
        """What we know of an object before the watch says it: holds until anything newer comes."""
        held = self._held.get(name)
        self._held[name] = Held(value, held.version if held is not None else self.version)


class Source(Protocol):
    """A cluster's API, as far as it is read here."""

    async def list(self, resource: str, selector: str) -> tuple[list[Object], int]:
        """Everything, and the version of that view. Raises BackendUnavailable."""

    def watch(self, resource: str, selector: str, *, version: int, for_s: int) -> AsyncIterator[tuple[str, Object]]:
        """Changes after a version. Raises Gone, BackendUnavailable."""


class Informer(Generic[_T]):
    """The copy of one resource; `run` until cancelled."""

    def __init__(
        self,
        source: Source,
        resource: str,
        selector: str,
        *,
        decode: Callable[[Object], _T],
        ended: Callable[[_T], _T],
        watch_s: int = WATCH_S,
        resync_s: float = RESYNC_S,
        stale_s: float = STALE_S,
    ) -> None:
        """`ended`: how an object that is gone is shown a last time."""
        self._source = source
        self._resource, self._selector = resource, selector
        self._decode, self._ended = decode, ended
        self._watch_s, self._resync_s, self._stale_s = watch_s, resync_s, stale_s
        self._copy: Copy[_T] = Copy()
        self._followers: list[Callable[[str, _T], None]] = []
        self._listed_s = float("-inf")
        self._broken_s: float | None = float("-inf")
        self._error = "not listed yet"
        self._news = asyncio.Event()
        self._rng = random.Random()  # noqa: S311 (jitter)

    async def run(self) -> None:
        """Keep the copy until cancelled."""
        pause_s, why = _FIRST_PAUSE_S, "start"
        while True:
            try:
                if why or time.monotonic() - self._listed_s > self._resync_s:
                    await self.list_now(why or "resync")
                    why = ""
                await self._watch()
                pause_s = _FIRST_PAUSE_S
            except Gone:
                why = "gone"
            except BackendUnavailable as error:
                self._broke(error)
                await asyncio.sleep(pause_s * self._rng.uniform(0.5, 1.0))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                # Resumed, the copy would count as new before it has caught up.
                why = why or ("" if self._age_s() <= self._stale_s else "start")

    async def list_now(self, why: str = "fresh") -> None:
        """Take up everything as it is now. Raises BackendUnavailable."""
        items, version = await self._source.list(self._resource, self._selector)
        metrics.RELISTS.labels(self._resource, why).inc()
        self._listed_s = time.monotonic()
        changed, gone = self._copy.replace(dict(self._read(item) for item in items), version)
        self._fed()
        for name, value in changed.items():
            self._tell(name, value)
        for name, value in gone.items():
            self._tell(name, self._ended(value))

    async def values(self, *, wait_s: float) -> tuple[_T, ...]:
        """The copy. Raises BackendUnavailable when there is none yet after `wait_s`, or it is too old."""
        deadline_s = time.monotonic() + wait_s
        while self._age_s() > self._stale_s:
            left_s = deadline_s - time.monotonic()
            if self._copy.version or left_s <= 0:
                raise BackendUnavailable(f"{self._resource} are not known: {self._error}")
            await self._wait(left_s)
        return self._copy.values()

    async def until(self, name: str, check: Callable[[_T | None], bool], *, wait_s: float) -> _T | None:
        """The object once it passes `check`, or as it is after `wait_s`."""
        deadline_s = time.monotonic() + wait_s
        while not check(value := self._copy.get(name)):
            if (left_s := deadline_s - time.monotonic()) <= 0:
                return value
            await self._wait(left_s)
        return value

    def wrote(self, item: Object) -> None:
        """Take up the API's answer to our own write."""
        name, held = self._read(item)
        if self._copy.put(name, held):
            self._tell(name, held.value)

    def amend(self, name: str, value: _T) -> None:
        """Take up what another way has told us of an object."""
        self._copy.amend(name, value)
        self._tell(name, value)

    async def follow(self) -> AsyncIterator[_T]:
        """Yield every object, then each as it changes; a slow reader misses steps in between, never the last one."""
        await self.values(wait_s=_LONGEST_PAUSE_S)
        changed: dict[str, _T] = {}
        wake = asyncio.Event()

        def note(name: str, value: _T) -> None:
            changed[name] = value
            wake.set()

        self._followers.append(note)
        try:
            for value in self._copy.values():
                yield value
            while True:
                await wake.wait()
                wake.clear()
                while changed:
                    yield changed.pop(next(iter(changed)))
        finally:
            self._followers.remove(note)

    async def _watch(self) -> None:
        """One watch, from what is known on, until it ends."""
        events = self._source.watch(self._resource, self._selector, version=self._copy.version, for_s=self._watch_s)
        async with aclosing(events):  # type: ignore[type-var]
            async for kind, item in events:
                self._fed()
                if kind != OPENED:
                    if kind != "BOOKMARK":
                        self._apply(kind, item)
                    self._copy.version = max(self._copy.version, int(item["metadata"]["resourceVersion"]))

    def _apply(self, kind: str, item: Object) -> None:
        name, held = self._read(item)
        if kind == "DELETED":
            if self._copy.remove(name, held.version) is not None:
                self._tell(name, self._ended(held.value))
        elif self._copy.put(name, held):
            self._tell(name, held.value)

    def _read(self, item: Object) -> tuple[str, Held[_T]]:
        meta: Mapping[str, Any] = item["metadata"]
        return meta["name"], Held(self._decode(item), int(meta["resourceVersion"]))

    def _age_s(self) -> float:
        """For how long the copy has not been fed; 0 while a watch feeds it."""
        return 0.0 if self._broken_s is None else time.monotonic() - self._broken_s

    def _fed(self) -> None:
        if self._broken_s is not None:
            self._broken_s = None
            log.info("informer_follows", resource=self._resource, selector=self._selector)
            self._wake()

    def _broke(self, error: BackendUnavailable) -> None:
        self._error = str(error)
        if self._broken_s is None:
            self._broken_s = time.monotonic()
            log.warning("informer_broke", resource=self._resource, selector=self._selector, error=str(error))

    def _tell(self, name: str, value: _T) -> None:
        for follower in tuple(self._followers):
            follower(name, value)
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _wait(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            pass
