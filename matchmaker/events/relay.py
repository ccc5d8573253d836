"""
Sends a stream's events to a sink: in order, at least once.

One relay for each stream and sink works at a time, by a lease; what was read and not acknowledged is read again by whoever works next. A sink that is away is
tried again with growing pauses; what it refuses for good, or does not take in so many tries, goes to a stream of dead letters, and the next events follow.

| key (`p`: the prefix of a queue or fleet) | type | owner, and how it goes |
|---|---|---|
| `p events` | stream of CloudEvents, `{event}` | the functions whose decisions they tell; trimmed by age, and gone some days after its last relay |
| `p events:keep` | string: for how long events are kept, in ms | the relays; without it none are written, after a day without relays |
| `p events:lease:<sink>` | string: token | hold; expires |
| `p events:dead:<sink>` | stream of `{event, reason}` | bury; 100,000 entries, 30 days |
"""

import asyncio
import random
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import structlog
from redis.exceptions import RedisError

from gameserver.sessions.client import StoreClient
from gameserver.sessions.library import FunctionLibrary
from gameserver.sessions.port import StoreUnavailable
from matchmaker import metrics
from matchmaker.events.model import Event

log = structlog.get_logger(__name__)

KEEP_S = 86_400.0
"""A day of events."""
_KNOWN_S = 86_400.0
_LEASE_S = 30.0
_BATCH = 200
_BLOCK_S = 1.0
_PAUSE_S = (0.5, 30.0)
"""Between two tries: the first, and the longest."""
_TRIES = 12
"""About three minutes, then the events are dead letters: one that a sink chokes on must not hold up all others."""
_CONSUMER = "relay"
"""One name for all relays of a sink, so that what one has read another finds."""


class SinkUnavailable(Exception):
    """The sink did not take the events, and may the next time."""


class SinkRefused(Exception):
    """The sink will never take these events."""


class Sink(Protocol):
    """Where events go."""

    name: str
    """One word, kept: under it the streams know what it has had."""

    async def send(self, events: Sequence[Event]) -> None:
        """Take all events, in order, or some of them; called again with all after SinkUnavailable. Raises SinkUnavailable, SinkRefused."""


def queue_prefix(queue: str) -> str:
    """Of a queue's keys."""
    return f"wf:q:{{{queue}}}:"


def fleet_prefix(fleet: str) -> str:
    """Of a fleet's keys."""
    return f"wf:{{{fleet}}}:"


class Relay:
    """One stream to one sink; without one, it only sees to it that events are kept. `run` until cancelled."""

    def __init__(
        self,
        client: StoreClient,
        prefix: str,
        sink: Sink | None,
        *,
        keep_s: float = KEEP_S,
        first_pause_s: float = _PAUSE_S[0],
    ) -> None:
        self._client = client
        self._functions = FunctionLibrary(client, Path(__file__).with_name("relay.lua"))
        self._prefix = prefix
        self._sink = sink
        self._name = sink.name if sink is not None else ""
        self._keep_ms = round(keep_s * 1000)
        self._first_pause_s = first_pause_s
        self._token = secrets.token_hex(8)

    async def run(self) -> None:
        """Relay until cancelled, through outages of the store and of the sink."""
        try:
            while True:
                try:
                    if await self.hold() and self._sink is not None:
                        await self._pass(self._sink, await self._next())
                    else:
                        await asyncio.sleep(_LEASE_S / 3 if self._sink is None else _BLOCK_S)
                except (StoreUnavailable, RedisError, OSError) as error:
                    log.warning("relay_waits", stream=self._prefix, sink=self._name, error=str(error))
                    await asyncio.sleep(_BLOCK_S)
        finally:
            try:
                await self._functions.call("relay_yield", [self._prefix], self._name, self._token)
            except StoreUnavailable:
                pass  # it expires by itself

    async def hold(self) -> bool:
        """Keep the events and the lease; whether it is held. Raises StoreUnavailable."""
        limits = (round(_LEASE_S * 1000), self._keep_ms, max(self._keep_ms, round(_KNOWN_S * 1000)))
        return bool(await self._functions.call("relay_hold", [self._prefix], self._name, self._token, *limits) == 1)

    async def _next(self) -> list[Event]:
        """What was read before and not acknowledged, else what is new."""
        for place in ("0", ">"):
            rows: Any = await self._client.xreadgroup(
                self._name,
                _CONSUMER,
                {f"{self._prefix}events": place},
                count=_BATCH,
                block=round(_BLOCK_S * 1000) if place == ">" else None,
            )
            found = _events(rows)
            gone = [event.entry for event in found if not event.raw]  # trimmed before it was acknowledged
            if gone:
                await self._client.xack(f"{self._prefix}events", self._name, *gone)
                metrics.EVENTS.labels(self._name, "expired").inc(len(gone))
            if events := [event for event in found if event.raw]:
                return events
        return []

    async def _pass(self, sink: Sink, events: list[Event]) -> None:
        pause_s = self._first_pause_s
        for left in range(_TRIES - 1, -1, -1):
            if not events:
                return
            try:
                await sink.send(events)
            except SinkUnavailable as error:
                metrics.EVENTS.labels(sink.name, "retried").inc(len(events))
                if not left:
                    await self._bury(events, f"not taken in {_TRIES} tries: {error}")
                    return
                log.warning("sink_waits", sink=sink.name, error=str(error), tries_left=left)
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 (so that relays do not march in step)
                pause_s = min(2 * pause_s, _PAUSE_S[1])
                if not await self.hold():
                    return  # another goes on with them
            except SinkRefused as error:
                await self._bury(events, str(error))
                return
            else:
                await self._client.xack(f"{self._prefix}events", sink.name, *(event.entry for event in events))
                metrics.EVENTS.labels(sink.name, "sent").inc(len(events))
                return

    async def _bury(self, events: list[Event], reason: str) -> None:
        log.error("events_dead", sink=self._name, stream=self._prefix, events=len(events), why=reason)
        args = [part for event in events for part in (event.entry, event.raw)]
        buried = await self._functions.call("relay_bury", [self._prefix], self._name, self._token, reason[:500], *args)
        metrics.EVENTS.labels(self._name, "dead").inc(max(0, buried))


def _events(rows: Any) -> list[Event]:
    """Of a reply to XREADGROUP, {stream: [[(entry, fields), …]]}; an entry that is trimmed has no fields."""
    return [
        Event(entry=entry.decode(), raw=(fields or {}).get(b"event", b""))
        for parts in (rows or {}).values()
        for part in parts
        for entry, fields in part
    ]
