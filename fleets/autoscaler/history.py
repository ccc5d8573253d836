"""
What a fleet's autoscaler remembers, in Valkey, so that a restart or another replica forgets nothing.

| key | type | written by | goes |
|---|---|---|---|
| `wf:{<fleet>}:claims` | integer: sessions ever claimed | the allocator's claim | stays |
| `wf:{<fleet>}:arrivals` | hash: bucket of five minutes → `claims` at its begin | here, the first replica to come | when the forecast looks no further |
| `wf:{<fleet>}:lead-times` | hash: hour → seconds that its starts took | here, the last to measure | older ones at a start |
| `wf:{<fleet>}:decision` | string: the newest decision (JSON), for `status --why` | here | after a day |

Arrivals are kept as a running count, not as numbers per bucket: several replicas may note the same bucket without counting twice.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from redis.exceptions import RedisError

from fleets.autoscaler.forecast import BUCKET_S, KEEP
from fleets.autoscaler.policy import Decision
from gameserver.sessions.client import StoreClient
from gameserver.sessions.model import FleetName
from gameserver.sessions.port import StoreUnavailable

_DECISION_TTL_S = 86_400


class DemandHistory:
    """One fleet's. Every method may raise StoreUnavailable and be called again."""

    def __init__(self, client: StoreClient, fleet: FleetName) -> None:
        self._client = client
        self._prefix = f"wf:{{{fleet}}}:"

    async def claims(self) -> tuple[float, int]:
        """The store's clock (Unix seconds), and the sessions ever claimed; notes them for the bucket when it is the first to."""
        now_s: float = await self._answer(self._client.clock_s(self._prefix))
        count = int(await self._answer(self._client.get(self._prefix + "claims")) or 0)
        await self._answer(self._client.hsetnx(self._prefix + "arrivals", str(int(now_s // BUCKET_S)), str(count)))
        return now_s, count

    async def arrivals(self) -> dict[int, int]:
        """Matches by bucket, of those that are over; old fields are deleted on the way."""
        raw: Any = await self._answer(self._client.hgetall(self._prefix + "arrivals"))
        counts = {int(bucket): int(count) for bucket, count in raw.items()}
        if counts and (old := [str(bucket) for bucket in counts if bucket < max(counts) - KEEP]):
            await self._answer(self._client.hdel(self._prefix + "arrivals", *old))
        return arrivals_between(counts)

    async def note_lead_time(self, hour: int, seconds: float) -> None:
        """Keep what is reckoned for an hour's starts."""
        await self._answer(self._client.hset(self._prefix + "lead-times", str(hour), str(round(seconds, 3))))

    async def lead_times(self) -> dict[int, float]:
        """What was reckoned for the hours of the last day, in seconds; older ones are deleted on the way."""
        raw: Any = await self._answer(self._client.hgetall(self._prefix + "lead-times"))
        hours = {int(hour): float(seconds) for hour, seconds in raw.items()}
        if hours and (old := [str(hour) for hour in hours if hour <= max(hours) - 24]):
            await self._answer(self._client.hdel(self._prefix + "lead-times", *old))
        return {hour: seconds for hour, seconds in hours.items() if hour > max(hours) - 24}

    async def publish(self, decision: Decision) -> None:
        """Keep a decision, for whoever asks why."""
        await self._answer(
            self._client.set(self._prefix + "decision", json.dumps(asdict(decision)), ex=_DECISION_TTL_S)
        )

    async def decision(self) -> Decision | None:
        """The newest decision."""
        raw = await self._answer(self._client.get(self._prefix + "decision"))
        if raw is None:
            return None
        value = json.loads(raw)
        return Decision(**{**value, "reasons": tuple(value["reasons"])})

    async def _answer(self, call: Any) -> Any:
        try:
            return await call
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"demand history: {error}") from error


def arrivals_between(counts: Mapping[int, int]) -> dict[int, int]:
    """
    Turn running counts at buckets' begins into matches per bucket.

    Buckets that nobody noted share evenly what came in them; a count that fell (the store was emptied) counts as none.
    """
    arrivals: dict[int, int] = {}
    buckets = sorted(counts)
    for bucket, following in pairwise(buckets):
        came, span = max(0, counts[following] - counts[bucket]), following - bucket
        for index in range(min(span, KEEP)):
            arrivals[bucket + index] = came * (index + 1) // span - came * index // span
    return arrivals
