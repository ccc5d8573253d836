"""Cancelling a coroutine at a chosen one of its waits, before its answer or with it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any


class _Steps:
    """Awaits a coroutine and has the task cancelled at its wait number `at`, from 0."""

    def __init__(self, work: Coroutine[Any, Any, Any], at: int, late: bool) -> None:
        self._work, self._at, self._late = work, at, late
        self.cut = False

    def __await__(self) -> Generator[Any, Any, Any]:
        waits = 0
        inner = self._work.__await__()
        task = asyncio.current_task()
        assert task is not None
        send: Callable[[], Any] = lambda: next(inner)  # noqa: E731 (the first step differs from none of the later ones)
        while True:
            try:
                waited_for = send()
            except StopIteration as done:
                return done.value
            if waits == self._at:
                self.cut = True
                if self._late and waited_for is not None:
                    waited_for.add_done_callback(
                        lambda _: task.cancel()
                    )  # what it waits for has happened: the answer is lost
                else:
                    asyncio.get_running_loop().call_soon(task.cancel)
            waits += 1
            try:
                yield waited_for
            except BaseException as error:
                send = lambda error=error: inner.throw(error)  # type: ignore[misc]  # noqa: E731
            else:
                send = lambda: next(inner)  # noqa: E731


async def cut_short(work: Coroutine[Any, Any, Any], at: int, *, late: bool = False) -> bool:
    """
    Run `work`, and cancel it at its wait number `at`; with `late` once what it waits for has come, so that only the answer is lost.

    Returns: whether it came to that wait. Raises what `work` raises, other than its cancellation.
    """
    steps = _Steps(work, at, late)

    async def walk() -> None:
        await steps

    task = asyncio.create_task(walk(), name="cut-short")
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error
    return steps.cut


async def at_every_wait(make: Callable[[], Coroutine[Any, Any, Any]], check: Callable[[], Awaitable[None]]) -> int:
    """Run what `make` makes, cut short at its first wait, its second, and so on, before and with the answer, `check`ing after each; how many waits it has."""
    at = 0
    while True:
        came = False
        for late in (False, True):
            came |= await cut_short(make(), at, late=late)
            await check()
        if not came:
            return at
        at += 1
