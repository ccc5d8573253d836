"""Regions and their beacons, and what players' signed round trips are worth."""

import time
from collections.abc import Sequence
from dataclasses import replace

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from matchmaker.api.lean import invalid
from matchmaker.beacons.regions import Region, verifier
from matchmaker.beacons.tokens import LatencyRefused
from matchmaker.model import LatencyRule, QueueConfig, TicketPlayer


class RegionBody(BaseModel):
    """Where a region's round trip is measured."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"region": "eu-west", "udp": "203.0.113.9:7600", "http": "https://eu.beacons.example"}]
        }
    )

    region: str
    udp: str | None = None
    """host:port of the beacon's datagrams."""
    http: str | None = None
    """Base URL of `/v1/beacon`, for browsers."""


def router(regions: Sequence[Region]) -> APIRouter:
    """The endpoint."""
    api = APIRouter(prefix="/v1")

    @api.get("/regions", tags=["regions"], response_model_exclude_none=True)
    async def get_regions() -> list[RegionBody]:
        """The regions, and the beacons at which a player measures its round trips; measured tokens go into a ticket's `latencyTokens`."""
        return [RegionBody(region=r.region, udp=r.udp or None, http=r.http or None) for r in regions]

    return api


class Proofs:
    """Turns players' tokens into round trips, and holds queues to `latency: signed`."""

    def __init__(self, regions: Sequence[Region]) -> None:
        self._verifier = verifier(regions)

    def prove(self, players: Sequence[TicketPlayer], queue: QueueConfig) -> list[TicketPlayer]:
        """The players with what is proven; tokens come before claims. Raises Problem 422."""
        return [self._prove(index, player, queue) for index, player in enumerate(players)]

    def _prove(self, index: int, player: TicketPlayer, queue: QueueConfig) -> TicketPlayer:
        near = any(isinstance(rule, LatencyRule) for rule in queue.rules)
        if queue.signed_latency and near and not player.latency_tokens:
            raise invalid(
                f"players.{index}.latencyTokens: queue {queue.name} takes round trips only as its beacons signed them: "
                "measure at those of GET /v1/regions"
            )
        if not player.latency_tokens:
            return player
        try:
            proven = self._verifier.latencies_ms(player.latency_tokens, player.id, time.time())
        except LatencyRefused as why:
            raise invalid(f"players.{index}.{why}") from None
        claimed = {} if queue.signed_latency else player.latencies_ms
        return replace(player, latencies_ms={**claimed, **proven}, latency_tokens=())
