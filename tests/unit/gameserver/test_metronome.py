"""The metronome: sleeps end in order and never early; garbage is collected in pauses that have room for it."""

import asyncio
import gc
import time
import weakref

import pytest

from gameserver.metronome import Metronome


@pytest.fixture(autouse=True)
def thawed() -> object:
    """Leave the interpreter as it was."""
    yield
    gc.unfreeze()
    gc.enable()


async def test_sleeps_end_in_order_and_never_early() -> None:
    """Whatever order they begin in; one that is cancelled holds up nobody."""
    ended: list[float] = []

    async def sleeper(delay_s: float) -> None:
        due_s = time.monotonic() + delay_s
        await metronome.sleep(delay_s)
        assert time.monotonic() >= due_s
        ended.append(delay_s)

    with Metronome(collect=False) as metronome:
        tasks = [asyncio.create_task(sleeper(delay_s)) for delay_s in (0.05, 0.01, 0.03, 0.0, 0.02)]
        await asyncio.sleep(0)
        tasks[4].cancel()
        async with asyncio.timeout(20):
            await asyncio.wait(tasks)
    assert ended == [0.0, 0.01, 0.03, 0.05]


async def test_garbage_waits_for_a_pause() -> None:
    """Not while there is no time, but as soon as there is; and turned on again in the end."""

    class Cycle:
        def __init__(self) -> None:
            self.me = self

    with Metronome() as metronome:
        assert not gc.isenabled()
        gone = weakref.ref(Cycle())
        kept = [Cycle() for _ in range(5000)]
        await metronome.sleep(0.0001)
        assert gone() is not None
        await metronome.sleep(0.2)
        assert gone() is None
        assert kept
    assert gc.isenabled()


async def test_a_process_without_pauses_collects_all_the_same() -> None:
    """Memory comes before punctuality."""
    with Metronome() as metronome:
        metronome._took_s = {1: 1e6, 2: 1e6}
        made = [[] for _ in range(210_000)]  # type: ignore[var-annotated]
        await metronome.sleep(0.001)
        assert gc.get_count()[0] < 100_000
        assert made


async def test_without_timerfd_the_loops_timers_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sleeps work before the metronome is entered, as they do where the system has no timerfd."""
    async with asyncio.timeout(20):
        await Metronome(collect=False).sleep(0.01)
