"""Queues, how they do, and what their players are worth."""

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import APIRouter

from allocator.api.problems import Problem
from gameserver.sessions.model import PlayerId
from matchmaker.api.schemas import QueueBody, QueueWaitBody, RatingBody
from matchmaker.api.services import SIGNED, Authorization, Services
from matchmaker.model import QueueName
from matchmaker.ratings.skill import Rating


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

    @api.get("/queues/{queue}/ratings/{player}", tags=["queues"], dependencies=SIGNED)
    async def get_rating(queue: str, player: str, authorization: Authorization = "") -> RatingBody:
        """What a player is worth in a queue with ratings; players ask for their own, API keys for anybody's."""
        caller = await services.callers.caller(authorization)
        config = services.queues.get(QueueName(queue))
        if config is None or config.ratings is None:
            raise Problem(HTTPStatus.NOT_FOUND, f"no queue {queue!r} with ratings", kind="not-found")
        if not caller.is_in([player]):
            raise Problem(HTTPStatus.FORBIDDEN, "a player's rating is shown to that player", kind="forbidden")
        found = (await services.ratings.fetch(config.name, [PlayerId(player)])).get(PlayerId(player))
        new = found or Rating(mean=config.ratings.initial, spread=config.ratings.spread)
        return RatingBody(player=player, rating=new.mean, spread=new.spread, matches=new.matches)

    return api


def _wait(told: Mapping[str, float] | None) -> QueueWaitBody | None:
    return None if told is None else QueueWaitBody(**told)
