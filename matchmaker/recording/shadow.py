"""
A shadow queue: other rules on a live queue's tickets, beside it, that only report.

It follows the live queue's log and never writes to it: no ticket is ever matched, marked or assigned by a shadow. Its matching runs in a process of its own
whatever the pool's size, looked at once a second and at most a quarter of the time, so that the live directors keep their pace. A ticket stays with the
shadow until the shadow matches it, however soon the live queue did; the waits of both can so be compared. Of several replicas one runs it, by a lease under its
own name.
"""

import asyncio
import math
import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import structlog

from gameserver.sessions.port import StoreUnavailable
from matchmaker import metrics
from matchmaker.matching.worker import MatchWorker
from matchmaker.model import Proposal, QueueConfig, QueueName, Ticket, TicketId
from matchmaker.ports import Matcher
from matchmaker.records import Change
from matchmaker.store import TicketStore

log = structlog.get_logger(__name__)

_LOOK_S = 1.0
_SHARE = 0.25
"""Of the time may be spent in cycles."""
_LEASE_S = 15.0
_REPORT_S = 60.0
_MOST_KNOWN = 500_000
"""Tickets that were matched are known for so long, should they come back to the live queue."""


class Shadow:
    """Runs one queue's rules on another's tickets; `run` until cancelled."""

    def __init__(
        self, queue: QueueConfig, of: QueueName, store: TicketStore, *, new_matcher: Callable[[], Matcher] | None = None
    ) -> None:
        """`of`: the live queue. `new_matcher`: makes an empty one; by default the core, in a process of its own."""
        self.queue = queue
        self.of = of
        self._store = store
        self._new_matcher = new_matcher or (lambda: MatchWorker(queue, inline_below=0))
        self._token = secrets.token_hex(8)
        self._counts: Counter[str] = Counter()
        self._waits_s = 0.0
        self._quality = 0.0
        self._leading = False
        self._forget()

    def _forget(self) -> None:
        self._matcher = self._new_matcher()
        self._cursor = ""
        self._waiting: dict[TicketId, Ticket] = {}
        self._added: list[Ticket] = []
        self._removed: list[TicketId] = []
        self._known: OrderedDict[TicketId, None] = OrderedDict()

    def status(self) -> dict[str, Any]:
        """What it has found since it began."""
        matched = self._counts["matched"]
        return {
            "name": self.queue.name,
            "of": self.of,
            "leading": self._leading,
            "waiting": len(self._waiting),
            "matches": self._counts["matches"],
            "tickets": {name: self._counts[name] for name in ("matched", "timed_out", "left", "refused")},
            "meanWaitS": round(self._waits_s / matched, 3) if matched else None,
            "meanQuality": round(self._quality / self._counts["matches"], 4) if matched else None,
        }

    async def run(self) -> None:
        """Shadow the queue until cancelled, through outages of the store."""
        loop = asyncio.get_running_loop()
        report_at_s = loop.time() + _REPORT_S
        try:
            while True:
                begun_s = loop.time()
                try:
                    await self._look()
                except StoreUnavailable as error:
                    log.warning("shadow_waits", queue=self.queue.name, error=str(error))
                took_s = loop.time() - begun_s
                if self._leading and loop.time() >= report_at_s:
                    report_at_s = loop.time() + _REPORT_S
                    log.info("shadow_report", **self.status())
                await asyncio.sleep(max(_LOOK_S - took_s, took_s * (1 / _SHARE - 1)))
        finally:
            await self._matcher.close()
            try:
                await self._store.release_lease(self.queue.name, self._token)
            except StoreUnavailable:
                pass  # it expires by itself

    async def _look(self) -> None:
        leading = await self._store.hold_lease(self.queue.name, self._token, lease_s=_LEASE_S)
        if leading != self._leading:
            await self._matcher.close()
            self._forget()
            if leading:
                self._cursor = (await self._store.follow(self.of, "")).cursor
            self._leading = leading
        if not leading:
            return
        more = True
        while more:
            seen = await self._store.follow(self.of, self._cursor)
            if not seen.complete:
                log.warning("shadow_missed_tickets", queue=self.queue.name, of=self.of)
            for change in seen.changes:
                self._note(change)
            self._cursor, more = seen.cursor, bool(seen.changes)
        await self._cycle(await self._store.now_s(self.of))

    def _note(self, change: Change) -> None:
        if change.entered is None:
            if self._waiting.pop(change.ticket, None) is not None:
                self._end("left", change.ticket)
        elif change.ticket not in self._waiting and change.ticket not in self._known:
            if len(self._waiting) >= self.queue.max_tickets:
                self._count("refused")
                return
            self._waiting[change.ticket] = change.entered
            self._added.append(change.entered)

    async def _cycle(self, now_s: float) -> None:
        timeout_s = self.queue.ticket_timeout_s or math.inf
        for ticket in [t for t in self._waiting.values() if now_s - t.created_at_s >= timeout_s]:
            del self._waiting[ticket.id]
            self._end("timed_out", ticket.id)
        added = [ticket for ticket in self._added if ticket.id in self._waiting]
        removed, self._added, self._removed = tuple(self._removed), [], []
        for proposal in await self._matcher.cycle(added, removed, now_s, None):
            self._match(proposal, now_s)

    def _match(self, proposal: Proposal, now_s: float) -> None:
        self._counts["matches"] += 1
        self._quality += proposal.quality
        for ticket in proposal.tickets:
            wait_s = max(0.0, now_s - ticket.created_at_s)
            self._waits_s += wait_s
            metrics.SHADOW_WAIT.labels(self.queue.name).observe(wait_s)
            self._waiting.pop(ticket.id, None)
            self._end("matched", ticket.id)

    def _end(self, outcome: str, ticket: TicketId) -> None:
        self._count(outcome)
        self._removed.append(ticket)
        self._known[ticket] = None
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)

    def _count(self, outcome: str) -> None:
        self._counts[outcome] += 1
        metrics.SHADOW_TICKETS.labels(self.queue.name, outcome).inc()
