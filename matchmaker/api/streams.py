"""Following something over server-sent events or a WebSocket, whatever it is."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic

import orjson

from matchmaker.api.lean import Request
from matchmaker.api.watch import Follower, R

_EVENT_STREAM = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)
_KEEP_ALIVE = {"type": "http.response.body", "body": b": keep-alive\n\n", "more_body": True}


@dataclass(frozen=True, slots=True)
class Followed(Generic[R]):
    """What one caller follows."""

    following: Callable[[Follower[R]], AbstractContextManager[None]]
    """Lets a follower hear of it. Raises Problem 503 when there are too many."""
    fetch: Callable[[], Awaitable[R]]
    """Reads it. Raises Problem, StoreUnavailable."""
    body: Callable[[R, bool], Awaitable[Any]]
    """It as JSON values; the flag: straight from a change. Raises StoreUnavailable."""


async def events(request: Request, followed: Followed[R], *, name: bytes) -> None:
    """Answer with server-sent events of this name: the record now, unless Last-Event-ID says that it is known, and at each change, until it is over."""
    last = request.header(b"last-event-id", longest=20)
    send, ended = request.send, False

    async def push(record: R, fresh: bool) -> None:
        nonlocal ended
        body = orjson.dumps(await followed.body(record, fresh))
        event = b"id: %d\nevent: %b\ndata: %b\n\n" % (record.event, name, body)
        ended = record.over
        await send({"type": "http.response.body", "body": event, "more_body": not ended})

    async def alive() -> None:
        await send(_KEEP_ALIVE)

    async def begin() -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _EVENT_STREAM})

    follower = Follower(followed.fetch, push, alive, after=int(last) if last.isdecimal() else 0)
    if not await _follow(request, followed, follower, begin) and not ended:
        await send({"type": "http.response.body", "body": b""})


async def websocket(request: Request, followed: Followed[R], *, subprotocol: str | None) -> None:
    """Answer a handshake with the record now and at each change, one JSON text each, until it is over."""

    async def begin() -> None:
        await request.send({"type": "websocket.accept", "subprotocol": subprotocol})

    async def push(record: R, fresh: bool) -> None:
        text = orjson.dumps(await followed.body(record, fresh)).decode()
        await request.send({"type": "websocket.send", "text": text})

    follower = Follower(followed.fetch, push, None, after=0)
    if not await _follow(request, followed, follower, begin):
        await request.send({"type": "websocket.close", "code": 1000})


async def next_change(followed: Followed[R], record: R, wait_s: float) -> R:
    """The record once it has changed, or as it is when the time is up."""
    changed: asyncio.Future[R] = asyncio.get_running_loop().create_future()

    def settle(record: R) -> None:
        if not changed.done():
            changed.set_result(record)

    async def push(record: R, fresh: bool) -> None:
        settle(record)

    follower = Follower(followed.fetch, push, None, after=record.event)
    follower.done = lambda cut: settle(record)
    with followed.following(follower):
        follower.refresh()  # it may have changed before
        try:
            async with asyncio.timeout(wait_s):
                return await changed
        except TimeoutError:
            return record


async def _follow(
    request: Request, followed: Followed[R], follower: Follower[R], begin: Callable[[], Awaitable[None]]
) -> bool:
    """
    Read the record, `begin` the answer, and tell the follower until there is no more to tell.

    Returns whether it has gone, or was cut off, before. Raises Problem and StoreUnavailable instead of beginning.
    """
    task = asyncio.current_task()
    assert task is not None
    done = False
    cut_off = False

    def finish(cut: bool) -> None:
        nonlocal done, cut_off
        if not done:
            done, cut_off = True, cut
            task.cancel()

    follower.done = finish
    with followed.following(follower):
        record = await followed.fetch()
        await begin()
        try:
            await follower.begin(record)
            # Nothing else waits: a follower to whom nothing happens is this one task, and nothing in any timer.
            while (await request.receive())["type"] not in ("http.disconnect", "websocket.disconnect"):
                pass
        except asyncio.CancelledError:
            if not done or task.uncancel():
                raise
            return cut_off
    return True
