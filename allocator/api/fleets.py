"""The allocator's REST resource of fleets: how they stand, and how many rooms are kept."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter
from pydantic import StringConstraints

from allocator.api.answers import known
from allocator.api.schemas import FleetBody, TargetBody
from allocator.service import Allocator
from allocator.shelf import Shelf
from gameserver.sessions.model import FleetName


def router(allocator: Allocator, shelf: Shelf) -> APIRouter:
    """Make the routes."""
    api = APIRouter()

    @api.get("/fleets", tags=["fleets"])
    async def fleets() -> list[FleetBody]:
        """The fleets that can be asked for, and how they stand."""
        found = []
        for policy in allocator.fleets.values():
            kept, claimable = await shelf.standing(policy.name)
            figures = {"rooms": policy.rooms, "shelf": policy.shelf, "min": policy.min, "max": policy.max}
            found.append(FleetBody(name=policy.name, region=policy.region, kept=kept, claimable=claimable, **figures))
        return found

    @api.put("/fleets/{fleet}/target", status_code=HTTPStatus.NO_CONTENT, tags=["fleets"])
    async def target(fleet: Annotated[str, StringConstraints(max_length=63)], body: TargetBody) -> None:
        """Keep so many rooms claimable, in place of the fleet's own figure; within the fleet's max of servers."""
        known(allocator, fleet)
        await shelf.set_target(FleetName(fleet), body.rooms, ttl_s=body.ttl_s)

    return api
