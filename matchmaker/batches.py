"""
Calls that gather while an earlier one is under way, and then go together.

A function of the store costs its round trip and its client once for a hundred tickets as for one. Nothing waits when nothing is under way, so a
quiet matchmaker is as quick as without.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Batch(Generic[_In, _Out]):
    """
    Calls `flush` with what has gathered, one call at a time; as long as its callers are bounded, so is it.

    A caller that is cancelled does not cancel the others' call, and its item may still take effect, as with any lost reply.
    """

    def __init__(self, flush: Callable[[Sequence[_In]], Awaitable[Sequence[_Out]]], *, largest: int = 128) -> None:
        """`flush`: returns a result for each item, in order; what it raises, every caller of that batch gets."""
        self._flush = flush
        self._largest = largest
        self._waiting: deque[tuple[_In, asyncio.Future[_Out]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, item: _In) -> _Out:
        """Send one item with whatever else there is, and return its result."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[_Out] = loop.create_future()
        self._waiting.append((item, result))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run(), name="batch")
        return await result

    async def _run(self) -> None:
        while self._waiting:
            some = [self._waiting.popleft() for _ in range(min(self._largest, len(self._waiting)))]
            try:
                results = await self._flush([item for item, _ in some])
            except Exception as error:
                for _, future in some:
                    if not future.done():
                        future.set_exception(error)
            except BaseException:
                for _, future in (*some, *self._waiting):
                    future.cancel()
                self._waiting.clear()
                raise
            else:
                for (_, future), result in zip(some, results, strict=True):
                    if not future.done():
                        future.set_result(result)
