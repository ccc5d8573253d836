"""Queues and how they do, and seats of running sessions."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter

from gameserver.sessions.model import PlayerId
from matchmaker.api.schemas import AssignmentBody, QueueBody, QueueWaitBody
from matchmaker.api.services import SIGNED, Authorization, Services


def router(services: Services) -> APIRouter:
    """The endpoints."""
    api = APIRouter(prefix="/v1")

    @api.get("/queues", tags=["queues"], response_model_exclude_none=True)
    async def get_queues() -> list[QueueBody]:
        """Every queue and how many tickets wait in it."""
        return [
            QueueBody(
                name=queue.name,
                depth=await services.store.depth(queue.name),
                playersPerMatch=queue.players,
                teams={team.name: team.players for team in queue.teams},
                partyMax=queue.party_max,
                closed=(await services.store.closed(queue.name)).value or None,
                estimatedWait=_wait(services.estimates.usual(queue.name)),
            )
            for queue in services.queues.values()
        ]

    @api.get(
        "/sessions/{session}/seat",
        response_model=AssignmentBody,
        response_model_exclude_none=True,
        tags=["sessions"],
        dependencies=SIGNED,
    )
    async def get_seat(session: str, authorization: Authorization = "", player: str = "") -> dict[str, Any]:
        """Where the player's match is now, with a fresh seat token: for whoever lost its server. An API key names the `player`."""
        caller = await services.callers.caller(authorization)
        return await services.assignments.seat(session, caller.player or PlayerId(player))

    return api


def _wait(told: Mapping[str, float] | None) -> QueueWaitBody | None:
    return None if told is None else QueueWaitBody(**told)
