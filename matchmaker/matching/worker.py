"""
Matching beside the event loop: the director sends what changed, and gets proposals.

A small pool is matched here, at once; a large one, and any with a match function of the studio's own, in a process (`matching.process`) that keeps
its tickets between cycles. Both run the same code. The process may die, hang or be killed at any moment: the cycle then has no proposals, and the next one
starts another process with the whole pool, which is kept here. Owns no ticket: the store does.
"""

import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import structlog

from gameserver.sessions.model import FleetName, PlayerId
from matchmaker.matching.pool import Pool
from matchmaker.matching.supply import place
from matchmaker.matching.wire import MAX_FRAME_BYTES, PREFIX, encode_queue, encode_tickets, frame
from matchmaker.metrics import (
    MATCHING_FAILURES,
    MATCHING_POOL,
    MATCHING_PROPOSALS,
    MATCHING_QUALITY,
    MATCHING_SECONDS,
)
from matchmaker.model import Proposal, QueueConfig, Ticket, TicketId

log = structlog.get_logger(__name__)

INLINE_BELOW = 256
"""A pool of fewer tickets is matched in this process: a cycle of it takes a few milliseconds, and no round trip."""
LIMIT_S = 10.0
"""Longest that the process may take for a cycle of the built-in core, its start included."""
_PAUSE_S = (0.5, 8.0)
"""After a failure the process is not started again for so long; doubled with every further one, up to the second."""


class MatchWorker:
    """One queue's matching. One cycle at a time."""

    def __init__(self, queue: QueueConfig, *, inline_below: int = INLINE_BELOW, limit_s: float = LIMIT_S) -> None:
        """`inline_below`: pools of fewer tickets are matched in this process; 0: none."""
        self.queue = queue
        self.tickets: dict[TicketId, Ticket] = {}
        """The pool, as the director told it."""
        self.failures = 0
        """Cycles without a result since the last one with a result."""
        self._inline_below = 0 if queue.match_function else inline_below
        self._limit_s = limit_s + (queue.match_function_limit_s if queue.match_function else 0.0)
        self._pool: Pool | None = None
        self._process: Process | None = None
        self._resume_at_s = 0.0
        # Looking a metric's child up by its labels costs more than observing.
        self._took_s = MATCHING_SECONDS.labels(queue.name)
        self._waiting = MATCHING_POOL.labels(queue.name)
        self._proposed = MATCHING_PROPOSALS.labels(queue.name)
        self._quality = MATCHING_QUALITY.labels(queue.name)

    async def cycle(
        self,
        added: Sequence[Ticket],
        removed: Iterable[TicketId],
        now_s: float,
        supply: Mapping[FleetName, int] | None = None,
    ) -> list[Proposal]:
        """
        Tell what changed since the last cycle, and get the matches that can be made.

        Args:
            added: tickets that wait now; known ids are replaced.
            removed: tickets that wait no more: committed, cancelled, expired. Unknown ids do no harm.
            now_s: Unix seconds, the clock of `Ticket.created_at_s`.
            supply: see `supply.place`; None: warm places are not looked at.
        Returns: proposals without overlap, in the order in which to commit them; empty after a failure of the process, which is logged and counted. Their
            tickets stay in the pool until they are `removed`.
        """
        begun_s, removed = time.perf_counter(), list(removed)
        for ticket in removed:
            self.tickets.pop(ticket, None)
        self.tickets.update((ticket.id, ticket) for ticket in added)
        if not self.tickets:
            proposals: list[Proposal] = []
            await self._tell(added, removed)
        elif self._inline(len(self.tickets)):
            proposals = await self._here(added, removed, now_s)
        else:
            proposals = await self._beside(added, removed, now_s)
        self._took_s.observe(time.perf_counter() - begun_s)
        self._waiting.set(len(self.tickets))
        self._proposed.inc(len(proposals))
        for proposal in proposals:
            self._quality.observe(proposal.quality)
        return proposals if supply is None else place(proposals, supply)

    async def close(self) -> None:
        """End the process."""
        if self._process is not None:
            process, self._process = self._process, None
            if process.returncode is None:
                process.kill()
            await process.wait()

    def _inline(self, size: int) -> bool:
        """Where the cycle runs; a pool must halve before it comes back here, so that it does not go to and fro."""
        return size < (self._inline_below if self._process is None else self._inline_below // 2)

    async def _tell(self, added: Sequence[Ticket], removed: list[TicketId]) -> None:
        """An empty pool has nothing to match: whoever kept it starts anew."""
        self._pool = None
        if self._process is not None and self._process.returncode is None and (added or removed):
            await self._exchange({"now_s": 0.0, "added": [], "removed": removed})

    async def _here(self, added: Sequence[Ticket], removed: list[TicketId], now_s: float) -> list[Proposal]:
        if self._pool is None:
            await self.close()
            self._pool = Pool(self.queue)
            added = list(self.tickets.values())
        self._pool.change(added, removed)
        self.failures = 0
        return self._pool.cycle(now_s)

    async def _beside(self, added: Sequence[Ticket], removed: list[TicketId], now_s: float) -> list[Proposal]:
        self._pool = None
        loop = asyncio.get_running_loop()
        if self._process is None:
            if loop.time() < self._resume_at_s:
                return []
            added, removed = list(self.tickets.values()), []
        request = {"now_s": now_s, "added": encode_tickets(added), "removed": removed}
        reply = await self._exchange(request)
        if reply is None:
            return []
        if "error" in reply:
            self.failures += 1
            MATCHING_FAILURES.labels(queue=self.queue.name).inc()
            log.error("match_function_failed", queue=self.queue.name, why=reply["error"])
            return []
        self.failures = 0
        for reason in reply["refused"]:
            log.warning("match_refused", queue=self.queue.name, why=reason)
        return [self._proposal(row) for row in reply["proposals"]]

    def _proposal(self, row: Any) -> Proposal:
        teams, fleets, quality, roles = row
        return Proposal(
            teams=tuple(tuple(self.tickets[TicketId(ticket)] for ticket in team) for team in teams),
            fleets=tuple(map(FleetName, fleets)),
            quality=quality,
            roles={PlayerId(player): role for player, role in roles.items()},
        )

    async def _exchange(self, request: Any) -> Any:
        """One request and its reply; None when the process fails, which ends it. So does cancelling: the next one would read this one's reply."""
        try:
            async with asyncio.timeout(self._limit_s):
                if self._process is None:
                    self._process = await self._start()
                return await _ask(self._process, request)
        except (OSError, EOFError, TimeoutError) as error:
            self.failures += 1
            MATCHING_FAILURES.labels(queue=self.queue.name).inc()
            why = f"no answer in {self._limit_s:g} s" if isinstance(error, TimeoutError) else "the process ended"
            log.error("matching_failed", queue=self.queue.name, why=why, failures=self.failures)
            pause_s = min(_PAUSE_S[0] * 2.0 ** (self.failures - 1), _PAUSE_S[1])
            self._resume_at_s = asyncio.get_running_loop().time() + pause_s
            await self.close()
            return None
        except asyncio.CancelledError:
            await self.close()
            raise

    async def _start(self) -> Process:
        command = [sys.executable, "-m", "matchmaker.matching.process"]
        process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, limit=1 << 20)
        self._process = process
        assert process.stdin is not None
        process.stdin.write(frame({"queue": encode_queue(self.queue)}))
        return process


async def _ask(process: Process, request: Any) -> Any:
    """Raises OSError, EOFError (asyncio.IncompleteReadError is one) when the process is gone."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(frame(request))
    await process.stdin.drain()
    size = PREFIX.unpack(await process.stdout.readexactly(PREFIX.size))[0]
    if size > MAX_FRAME_BYTES:
        raise EOFError("no frame is so large")
    return json.loads(await process.stdout.readexactly(size))
