"""
Who follows which ticket. The channel says what changed, so a change costs no read.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import orjson

from gameserver.sessions.client import StoreClient
from gameserver.sessions.model import MatchId
from matchmaker.api.watch import Watch
from matchmaker.model import QueueName, TicketId, TicketState
from matchmaker.records import TicketRecord
from matchmaker.store import changed_channel

_PASSING = (TicketState.SEARCHING, TicketState.PLACING)
_PASSING_S = 0.02


class TicketWatch(Watch[TicketId, TicketRecord]):
    """Tells the followers of tickets."""

    def __init__(self, client: StoreClient, queues: Iterable[QueueName]) -> None:
        super().__init__(client, [changed_channel(queue) for queue in queues])
        self.listeners: list[Callable[[Mapping[str, Any]], None]] = []
        """Told every change of any ticket: {state, tickets: {id: event}, …} as `store.changed_channel` says."""

    def heard(self, message: bytes) -> None:
        """What has changed in a queue (`queue.lua`, `tell`)."""
        for change in orjson.loads(message):
            for listener in self.listeners:
                listener(change)
            passing_s = _PASSING_S if change["state"] in _PASSING else 0.0
            for ticket, event in change["tickets"].items():
                for follower in self.followers(ticket):
                    follower.changed(partial(_apply, change=change, event=event), event, passing_s=passing_s)


def _apply(record: TicketRecord, *, change: dict[str, Any], event: int) -> TicketRecord:
    """The ticket after a change."""
    state = TicketState(change["state"])
    waits = state in (TicketState.QUEUED, TicketState.SEARCHING)
    match = change.get("match", None if waits else record.match)
    proposed = state is TicketState.PROPOSED
    return dataclasses.replace(
        record,
        state=state,
        event=event,
        match=None if match is None else MatchId(match),
        assignment=change.get("assignment"),
        reason=change.get("reason", ""),
        accepted=change.get("accepted") if proposed else None,
        asked=change.get("asked", record.asked) if proposed else None,
        deadline_ms=change.get("deadline", record.deadline_ms) if proposed else None,
    )
