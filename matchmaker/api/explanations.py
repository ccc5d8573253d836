"""Why a ticket still waits, over HTTP: its rules and the others who wait (`matchmaker.explanation`), and whether servers are the matter."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from matchmaker.api.described import TicketPath
from matchmaker.api.schemas import WaitBody
from matchmaker.api.services import SIGNED, Authorization, Services
from matchmaker.api.tickets import Tickets
from matchmaker.explanation import Explanation, explain
from matchmaker.model import QueueConfig, QueueName, Ticket, TicketState
from matchmaker.records import Closed, TicketRecord

_KEPT_S = 2.0
"""For so long the others are not read again: what many ask at once costs one read."""
_MOST_READ = 2000
"""Of a queue's tickets: at random, if there are more."""


class RuleBody(BaseModel):
    """How one of the queue's rules stands between the ticket and the others."""

    rule: str = Field(description="Its type and attribute.")
    limit: float | None = Field(default=None, description="At the ticket's age.")
    nextLimit: float | None = None  # noqa: N815
    relaxesIn: float | None = Field(  # noqa: N815
        default=None, description="s until it does; 0: evenly, all the time; absent: never."
    )
    fits: int = Field(description="Others that it lets meet the ticket now.")
    fitsNext: int = Field(description="The same once it has relaxed.")  # noqa: N815
    alone: int = Field(description="Others whom this rule keeps away, and no other one.")
    nearest: float | None = Field(default=None, description="The smallest difference to another ticket.")


class WaitingBody(BaseModel):
    """Others who wait in the queue."""

    tickets: int
    lookedAt: int = Field(description="Of these; the other figures are of them.")  # noqa: N815


class CandidatesBody(BaseModel):
    """Others that fit by every rule that can be asked of two tickets."""

    tickets: int
    players: int
    wanted: int = Field(description="Players that a match takes at least besides the ticket's own.")


class SupplyBody(BaseModel):
    """Servers."""

    free: int | None = Field(default=None, description="Rooms that a match could have this moment; absent: not known.")
    waits: bool = Field(description="The match is made, and there is no server for it yet.")


class ExplanationBody(BaseModel):
    """Why a ticket waits."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "ticket": "duel.Vq4JH0fCkGkT8mbS",
                    "state": "searching",
                    "verdict": "rule",
                    "detail": "difference rating lets 0 of 3 others meet it; it relaxes in 4.2 s, then 2 do",
                    "blocking": 0,
                    "waiting": {"tickets": 3, "lookedAt": 3},
                    "candidates": {"tickets": 0, "players": 0, "wanted": 1},
                    "rules": [
                        {
                            "rule": "difference rating",
                            "limit": 100,
                            "nextLimit": 200,
                            "relaxesIn": 4.2,
                            "fits": 0,
                            "fitsNext": 2,
                            "alone": 3,
                            "nearest": 130,
                        }
                    ],
                    "supply": {"free": 4, "waits": False},
                }
            ]
        }
    )

    ticket: str
    state: str
    verdict: str = Field(
        description="`few-players`, `rule`, `teams`; `paused` by an operator; `acceptance` and `server` once it has a match; `over`."
    )
    detail: str = Field(description="The same in a sentence.")
    blocking: int | None = Field(default=None, description="Which of `rules` keeps most away.")
    waiting: WaitingBody | None = None
    candidates: CandidatesBody | None = None
    rules: list[RuleBody] = []
    supply: SupplyBody
    estimatedWait: WaitBody | None = None  # noqa: N815


@dataclass(frozen=True, slots=True)
class _Look:
    at_s: float
    tickets: Sequence[Ticket]
    waiting: int


class Explanations:
    """What the endpoint does."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._looks: dict[QueueName, asyncio.Task[_Look]] = {}

    async def of(self, record: TicketRecord) -> dict[str, Any]:
        """An explanation as JSON values. Raises StoreUnavailable."""
        queue = self._services.queues[record.queue]
        supply = self._services.supply
        free = None if supply is None else sum((await supply.free_rooms(queue.fleets)).values())
        placing = record.state is TicketState.PLACING
        body = {
            "ticket": record.ticket.id,
            "state": record.state.value,
            "supply": {"free": free, "waits": placing and not free},
            "estimatedWait": self._services.estimates.of(record),
        }
        if record.state in (TicketState.QUEUED, TicketState.SEARCHING):
            return {**body, **await self._waiting(queue, record)}
        if placing:
            said = ("server", "its match is made" + ("" if free else ", and waits for a server"))
        elif record.state is TicketState.PROPOSED:
            said = ("acceptance", f"{record.accepted} of {record.asked} players have accepted its match")
        else:
            said = ("over", f"the ticket is {record.state.value}{f': {record.reason}' if record.reason else ''}")
        return {**body, "verdict": said[0], "detail": said[1]}

    async def _waiting(self, queue: QueueConfig, record: TicketRecord) -> dict[str, Any]:
        look = await self._look(queue.name)
        others = [ticket for ticket in look.tickets if ticket.id != record.ticket.id]
        waiting = max(len(others), look.waiting - 1)
        now_s = await self._services.store.now_s(queue.name)
        found = await asyncio.to_thread(explain, queue, record.ticket, others, now_s, waiting=waiting)
        body = _body(found)
        if await self._services.store.closed(queue.name) is Closed.PAUSED:
            body |= {"verdict": "paused", "detail": "an operator has paused the queue: no matches are made"}
        return body

    async def _look(self, queue: QueueName) -> _Look:
        """The queue's tickets as they were a moment ago; everybody who asks meanwhile waits for one read."""
        task = self._looks.get(queue)
        if task is None or (task.done() and (task.exception() or time.monotonic() - task.result().at_s > _KEPT_S)):
            task = self._looks[queue] = asyncio.create_task(self._read(queue), name=f"look-{queue}")
        return await asyncio.shield(task)

    async def _read(self, queue: QueueName) -> _Look:
        store = self._services.store
        some = await store.sample(queue, _MOST_READ)
        return _Look(time.monotonic(), await store.tickets(queue, some), await store.depth(queue))


def _body(found: Explanation) -> dict[str, Any]:
    places = [rule.index for rule in found.rules]
    return {
        "verdict": found.verdict.value,
        "detail": found.detail,
        "blocking": None if found.blocking is None else places.index(found.blocking),
        "waiting": {"tickets": found.waiting, "lookedAt": found.looked_at},
        "candidates": {
            "tickets": found.candidates,
            "players": found.candidate_players,
            "wanted": found.wanted_players,
        },
        "rules": [
            {
                "rule": rule.title,
                "limit": rule.limit,
                "nextLimit": rule.next_limit,
                "relaxesIn": rule.relaxes_in_s,
                "fits": rule.fits,
                "fitsNext": rule.fits_next,
                "alone": rule.alone,
                "nearest": rule.nearest,
            }
            for rule in found.rules
        ],
    }


def router(services: Services, tickets: Tickets) -> APIRouter:
    """The endpoint."""
    api = APIRouter(prefix="/v1", tags=["tickets"], dependencies=SIGNED)
    explanations = Explanations(services)

    @api.get("/tickets/{ticket}/explanation", response_model=ExplanationBody, response_model_exclude_none=True)
    async def explain_ticket(ticket: TicketPath, authorization: Authorization = "") -> dict[str, Any]:
        """
        Why a ticket waits: which rule keeps others away and when it relaxes, how many fit, and whether servers are the matter.

        Limits that go by the newest or oldest ticket's age are shown at this ticket's own. Names no other player.
        """
        caller = await services.callers.caller(authorization)
        return await explanations.of(await tickets.fetch(ticket, caller))

    return api
