"""What a game may raise, made into what a room survives. Called around every call of a game."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def contained() -> Iterator[None]:
    """A game that calls `exit()`, or raises what would end a task or the process, ends its match as any other that raises."""
    try:
        yield
    except (SystemExit, GeneratorExit, asyncio.CancelledError) as error:
        raise RuntimeError(f"the game raised {type(error).__name__}") from error
