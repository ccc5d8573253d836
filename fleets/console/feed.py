"""
One state, any number of viewers: the whole of it at first, then what changed, once a second.

What changed is encoded once for all. A viewer that does not read is sent the whole state when it reads again, never a queue of old changes.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import orjson

from fleets.console.state import State, difference, happenings

HISTORY = 600
"""Points of the charts that are kept: ten minutes."""
_EVENTS = 200
_BEHIND = 5
"""Changes that may wait for a viewer."""
MOST_VIEWERS = 64


class TooManyViewers(Exception):
    """Others are watching already."""


class Feed:
    """What is told to viewers."""

    def __init__(self) -> None:
        self.state: State = {}
        self._events: deque[dict[str, Any]] = deque(maxlen=_EVENTS)
        self._points: deque[list[float | None]] = deque(maxlen=HISTORY)
        self._series: tuple[str, ...] = ()
        self._viewers: set[asyncio.Queue[bytes | None]] = set()

    @property
    def viewers(self) -> int:
        """How many watch."""
        return len(self._viewers)

    def publish(self, state: State, point: dict[str, float | None], at_s: float) -> None:
        """Tell a new state, and one more point of each chart."""
        changed = difference(self.state, state)
        events = [{"at": round(at_s, 1), **event} for event in happenings(self.state, state)]
        self.state, self._series = state, tuple(point)
        self._events.extend(events)
        values = [round(at_s, 1), *(None if value is None else round(value, 5) for value in point.values())]
        self._points.append(values)
        if self._viewers:
            self._send(_event("delta", {"changed": changed, "events": events, "point": values}))

    def note(self, at_s: float, kind: str, what: str, text: str) -> None:
        """Tell something that no state shows, such as what an operator did."""
        event = {"at": round(at_s, 1), "kind": kind, "what": what, "text": text}
        self._events.append(event)
        self._send(_event("delta", {"changed": {}, "events": [event], "point": None}))

    async def watch(self) -> AsyncIterator[bytes]:
        """Server-sent events, until the viewer goes. Raises TooManyViewers before the first one."""
        if len(self._viewers) >= MOST_VIEWERS:
            raise TooManyViewers(f"{MOST_VIEWERS} viewers are as many as there may be")
        mine: asyncio.Queue[bytes | None] = asyncio.Queue(_BEHIND)
        self._viewers.add(mine)
        try:
            yield self._whole()
            while True:
                told = await mine.get()
                yield self._whole() if told is None else told
        finally:
            self._viewers.discard(mine)

    def _send(self, told: bytes) -> None:
        for viewer in self._viewers:
            if viewer.full():
                while not viewer.empty():
                    viewer.get_nowait()
                viewer.put_nowait(None)  # too late for changes: all of it, once it reads
            else:
                viewer.put_nowait(told)

    def _whole(self) -> bytes:
        whole = {
            "state": self.state,
            "events": list(self._events),
            "series": self._series,
            "points": list(self._points),
        }
        return _event("state", whole)


def _event(name: str, value: Any) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS) + b"\n\n"
