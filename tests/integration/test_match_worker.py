"""Matching beside the event loop: the same matches here and in a process, which may die at any moment."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from matchmaking import DUEL, FLEET, solo

from matchmaker.matching.worker import MatchWorker
from matchmaker.model import DifferenceRule, Limit, QueueConfig, Step, Ticket, TicketId

NEAR = DifferenceRule(attribute="rating", limit=Limit(value=100, expand=(Step(after_s=30, limit=500),)))
QUEUE = replace(DUEL, rules=(NEAR,))
NOW_S = 1000.0


def ticket(name: str, rating: float, age_s: float = 0.0) -> Ticket:
    return Ticket(id=TicketId(f"duel.{name}"), players=solo(name, rating=rating), created_at_s=NOW_S - age_s)


@pytest.fixture
async def worker() -> AsyncIterator[Callable[..., MatchWorker]]:
    made: list[MatchWorker] = []

    def make(queue: QueueConfig = QUEUE, inline_below: int = 0, **options: float) -> MatchWorker:
        made.append(MatchWorker(queue, inline_below=inline_below, **options))
        return made[-1]

    yield make
    for each in made:
        await each.close()


def names(proposals: list) -> list[set[str]]:
    return [{each.id for each in proposal.tickets} for proposal in proposals]


async def test_the_process_keeps_the_pool_and_is_told_only_what_changed(worker: Callable[..., MatchWorker]) -> None:
    matching = worker()
    assert await matching.cycle([ticket("a", 1500), ticket("b", 1700)], [], NOW_S) == []
    (match,) = await matching.cycle([ticket("c", 1550)], [], NOW_S)
    assert {each.id for each in match.tickets} == {"duel.a", "duel.c"}
    assert match.fleets == (FLEET,)
    assert match.tickets[0].players == matching.tickets[match.tickets[0].id].players
    again = await matching.cycle([], [], NOW_S)
    assert names(again) == names([match]), "what is proposed stays until it is removed"
    assert await matching.cycle([], ["duel.a", "duel.c", "duel.unknown"], NOW_S) == []
    assert names(await matching.cycle([], [], NOW_S + 40)) == []
    assert names(await matching.cycle([ticket("d", 1300, age_s=40)], [], NOW_S + 40)) == [{"duel.b", "duel.d"}]


async def test_here_and_beside_make_the_same_matches_and_a_pool_moves_between_them(
    worker: Callable[..., MatchWorker],
) -> None:
    beside, here, moving = worker(), worker(inline_below=1000), worker(inline_below=20)
    tickets = [ticket(f"t{i:02}", 1000 + 37 * (i * i % 29), age_s=i) for i in range(40)]
    for start in range(0, 40, 8):
        added = tickets[start : start + 8]
        results = [await each.cycle(added, [], NOW_S) for each in (beside, here, moving)]
        assert results[0] == results[1] == results[2] != []
    removed = [each.id for each in tickets[5:]]
    results = [await each.cycle([], removed, NOW_S) for each in (beside, here, moving)]
    assert results[0] == results[1] == results[2]
    assert moving._process is None


async def test_a_killed_process_costs_one_cycle_and_no_ticket(worker: Callable[..., MatchWorker]) -> None:
    matching = worker()
    assert await matching.cycle([ticket("a", 1500)], [], NOW_S) == []
    assert matching._process is not None
    os.kill(matching._process.pid, signal.SIGKILL)
    assert await matching.cycle([ticket("b", 1500)], [], NOW_S) == []
    assert matching.failures == 1
    async with asyncio.timeout(30):
        while not (proposals := await matching.cycle([], [], NOW_S)):
            await asyncio.sleep(0.05)
    assert names(proposals) == [{"duel.a", "duel.b"}]
    assert matching.failures == 0


async def test_a_process_that_hangs_is_killed_and_replaced(worker: Callable[..., MatchWorker]) -> None:
    matching = worker(limit_s=1.0)
    matching._limit_s = 30.0
    await matching.cycle([ticket("a", 1500)], [], NOW_S)
    matching._limit_s = 1.0
    process = matching._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    assert await matching.cycle([ticket("b", 1500)], [], NOW_S) == []
    assert process.returncode == -signal.SIGKILL
    matching._limit_s = 30.0
    async with asyncio.timeout(30):
        while not (proposals := await matching.cycle([], [], NOW_S)):
            await asyncio.sleep(0.05)
    assert names(proposals) == [{"duel.a", "duel.b"}]


async def test_a_cancelled_cycle_leaves_no_reply_for_the_next(worker: Callable[..., MatchWorker]) -> None:
    matching = worker()
    await matching.cycle([ticket("a", 1500)], [], NOW_S)
    task = asyncio.create_task(matching.cycle([ticket("b", 1500)], [], NOW_S))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names(await matching.cycle([], ["duel.b"], NOW_S)) == []
    assert names(await matching.cycle([ticket("c", 1500)], [], NOW_S)) == [{"duel.a", "duel.c"}]


async def test_closing_ends_the_process(worker: Callable[..., MatchWorker]) -> None:
    matching = worker()
    await matching.cycle([ticket("a", 1500)], [], NOW_S)
    process = matching._process
    assert process is not None
    await matching.close()
    assert not Path(f"/proc/{process.pid}").exists()


def clan(name: str, of: str, rating: float = 1500) -> Ticket:
    return Ticket(id=TicketId(f"duel.{name}"), players=solo(name, clan=of, rating=rating), created_at_s=NOW_S)


def with_function(name: str, **options: float | bool) -> QueueConfig:
    return replace(QUEUE, match_function=f"match_functions:{name}", **options)


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))


@pytest.mark.usefixtures("importable")
async def test_a_studios_function_makes_the_matches_and_may_print(worker: Callable[..., MatchWorker]) -> None:
    matching = worker(with_function("by_clan"), inline_below=1000)
    pool = [clan("a", "x"), clan("b", "x"), clan("c", "y"), clan("d", "y", rating=9000)]
    (match,) = await matching.cycle(pool, [], NOW_S)
    assert {each.id for each in match.tickets} == {"duel.a", "duel.c"}, "b and d obey no difference rule"
    unchecked = worker(with_function("by_clan", match_function_checked=False))
    assert names(await unchecked.cycle(pool, [], NOW_S)) == [{"duel.a", "duel.c"}, {"duel.b", "duel.d"}]


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize("name", ["raises", "hangs", "endless", "spoils", "is_not_there"])
async def test_a_function_that_fails_makes_no_match_and_the_queue_lives_on(
    worker: Callable[..., MatchWorker], name: str
) -> None:
    matching = worker(with_function(name, match_function_limit_s=0.2))
    for failures in (1, 2):
        assert await matching.cycle([clan("a", "x"), clan("b", "y")], [], NOW_S) == []
        assert matching.failures == failures
    assert matching._process is not None
    assert matching._process.returncode is None, "raising is no reason to start anew"


@pytest.mark.usefixtures("importable")
async def test_a_function_that_eats_memory_is_stopped_at_its_share(worker: Callable[..., MatchWorker]) -> None:
    """It fails as one that raises; its process goes on, without what was eaten, and is the first to be killed where memory runs out."""
    matching = worker(with_function("eats", match_function_memory_bytes=512 << 20, match_function_limit_s=20.0))
    assert await matching.cycle([clan("a", "x")], [], NOW_S) == []
    assert matching._process is not None
    process = matching._process.pid
    assert Path(f"/proc/{process}/oom_score_adj").read_text() == "1000\n"
    for failures in (1, 2):
        assert await matching.cycle([clan("b", "y")], [], NOW_S) == []
        assert (matching.failures, matching._process and matching._process.pid) == (failures, process)
    assert await matching.cycle([], [TicketId("duel.b")], NOW_S) == []
    assert matching.failures == 0


@pytest.mark.usefixtures("importable")
async def test_no_ticket_is_in_two_matches_whatever_a_function_returns(worker: Callable[..., MatchWorker]) -> None:
    matching = worker(with_function("twice"))
    pool = [
        replace(clan(name, "x", rating), created_at_s=NOW_S - 9 + i)
        for i, (name, rating) in enumerate(zip("abcdefghij", (0, 90, 10, 0, 0, 0, 0, 0, 0, 0), strict=True))
    ]
    matches = names(await matching.cycle(pool, [], NOW_S))
    assert matches == [{"duel.a", "duel.c"}, {"duel.e", "duel.f"}], "of two that share a ticket the better one"


@pytest.mark.usefixtures("importable")
async def test_a_function_that_hangs_beyond_signals_is_killed_with_its_process(
    worker: Callable[..., MatchWorker],
) -> None:
    matching = worker(with_function("hangs_in_c", match_function_limit_s=0.2))
    matching._limit_s = 30.0
    assert await matching.cycle([clan("a", "x")], [], NOW_S) == []
    process = matching._process
    assert process is not None
    matching._limit_s = 1.0
    assert await matching.cycle([clan("b", "y")], [], NOW_S) == []
    assert (process.returncode, matching.failures) == (-signal.SIGKILL, 1)
    matching._limit_s = 30.0
    async with asyncio.timeout(30):
        while matching.failures:
            assert await matching.cycle([], [TicketId("duel.b")], NOW_S) == []
            await asyncio.sleep(0.05)
    assert set(matching.tickets) == {"duel.a"}
