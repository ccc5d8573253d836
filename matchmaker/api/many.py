"""
Many records followed over one WebSocket, by a studio's service that queues for its players: a connection and its buffers are paid for once.

The client says `{"follow": [id, …]}` and `{"unfollow": [id, …]}`; it is told each record now and at each change, one JSON text each, until it is over,
and `{"id", "error"}` for what there is not (any more). Bounded by `MOST` records, and by `MOST_AT_ONCE` a message.
"""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import orjson

from allocator.api.problems import Problem
from matchmaker.api.lean import Request
from matchmaker.api.streams import Followed
from matchmaker.api.watch import Follower, R

MOST = 25_000
MOST_AT_ONCE = 1000
_POLICY = 1008


class ManyFollowed:
    """One connection, and what it follows."""

    def __init__(self, request: Request, followed: Callable[[str], Followed[Any]]) -> None:
        """`followed`: what an id stands for."""
        self._request = request
        self._followed = followed
        self._following: dict[str, ExitStack] = {}

    async def run(self, *, subprotocol: str | None) -> None:
        """Serve until the client goes, says what cannot be understood, or does not read."""
        task, cut_off = asyncio.current_task(), False
        assert task is not None

        def cut() -> None:
            nonlocal cut_off
            if not cut_off:
                cut_off = True
                task.cancel()

        await self._request.send({"type": "websocket.accept", "subprotocol": subprotocol})
        try:
            while (message := await self._request.receive())["type"] == "websocket.receive":
                wrong = self._heed(message.get("text") or message.get("bytes") or "", cut)
                if wrong:
                    await self._request.send({"type": "websocket.close", "code": _POLICY, "reason": wrong})
                    return
        except asyncio.CancelledError:
            if not cut_off or task.uncancel():
                raise
        finally:
            for key in [*self._following]:
                self._forget(key)

    def _heed(self, said: str | bytes, cut: Callable[[], None]) -> str:
        """Do what the client says; returns what is wrong with it, '' for nothing."""
        try:
            asked = orjson.loads(said)
            lists = {name: asked.pop(name, []) for name in ("follow", "unfollow")}
        except (ValueError, TypeError, AttributeError):
            return 'JSON is wanted: {"follow": [id, ...], "unfollow": [id, ...]}'
        if asked or not all(isinstance(ids, list) and all(isinstance(i, str) for i in ids) for ids in lists.values()):
            return "follow and unfollow, each a list of ids, and nothing else are wanted"
        if max(map(len, lists.values())) > MOST_AT_ONCE:
            return f"{MOST_AT_ONCE} ids a message at most"
        for key in lists["unfollow"]:
            self._forget(key)
        for key in lists["follow"]:
            if key not in self._following:
                if len(self._following) >= MOST:
                    return f"{MOST} may be followed at once"
                try:
                    self._follow(key, self._followed(key), cut)
                except Problem as problem:
                    return problem.detail
        return ""

    def _follow(self, key: str, followed: Followed[R], cut: Callable[[], None]) -> None:
        async def fetch() -> R:
            try:
                return await followed.fetch()
            except Problem as problem:
                await self._tell({"id": key, "error": problem.detail})
                raise

        async def push(record: R, fresh: bool) -> None:
            await self._tell(await followed.body(record, fresh))

        follower = Follower(fetch, push, None, after=0)
        follower.done = lambda broke: cut() if broke else self._forget(key)
        stack = ExitStack()
        stack.enter_context(followed.following(follower))
        self._following[key] = stack
        follower.refresh()

    def _forget(self, key: str) -> None:
        if stack := self._following.pop(key, None):
            stack.close()

    async def _tell(self, body: Any) -> None:
        await self._request.send({"type": "websocket.send", "text": orjson.dumps(body).decode()})
