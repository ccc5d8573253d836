"""The autoscaler on a real Valkey: what it sees of real claims, what it remembers, what it answers over HTTP."""

import asyncio
import time
from collections.abc import AsyncIterator

import httpx
import pytest
import redis.asyncio
from fakes import FakeBackend

from allocator.model import AllocationRequest, FleetPolicy
from allocator.service import Allocator
from allocator.shelf import Shelf
from fleets.autoscaler.app import make_app
from fleets.autoscaler.forecast import BUCKET_S
from fleets.autoscaler.history import DemandHistory, arrivals_between
from fleets.autoscaler.policy import FleetAim
from fleets.autoscaler.service import Autoscaler, Servers
from gameserver.sessions.model import FleetName, MatchId, PlayerId, Seat

FLEET = FleetName("arena")
SERVERS = Servers(replicas=2, ready=1, allocated=1)


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend(FLEET, ready=2)


@pytest.fixture
def autoscaler(valkey: redis.asyncio.Redis, backend: FakeBackend) -> Autoscaler:
    return Autoscaler({FLEET: FleetAim(rooms=8, shelf=2, max=50)}, valkey, backend, lead_s=20)  # type: ignore[arg-type]


async def claim(valkey: redis.asyncio.Redis, backend: FakeBackend, matches: int) -> None:
    shelf = Shelf(valkey)  # type: ignore[arg-type]
    server = await backend.allocate(FLEET, labels={}, annotations={})
    assert server is not None
    await shelf.register(server, rooms=8)
    allocator = Allocator(shelf, valkey, [FleetPolicy(name=FLEET, rooms=8)], backend)  # type: ignore[arg-type]
    for match in range(matches):
        seats = (Seat(index=0, player=PlayerId(f"p{match}")),)
        await allocator.allocate(
            AllocationRequest(match=MatchId(f"m{match}"), fleets=(FLEET,), seats=seats), deadline_s=5
        )


async def test_it_sees_what_is_claimed(
    valkey: redis.asyncio.Redis, backend: FakeBackend, autoscaler: Autoscaler
) -> None:
    """Claims, sessions and free rooms are what the decision is made of; its reasons can be asked for."""
    await autoscaler.sample(FLEET)
    await claim(valkey, backend, 5)
    await autoscaler.sample(FLEET)
    decision = await autoscaler.decide(FLEET, SERVERS, interval_s=5)
    assert not decision.blind
    assert "3 rooms are free" in " ".join(decision.reasons)
    assert await autoscaler.why(FLEET) == decision


async def test_it_is_blind_before_it_has_looked(autoscaler: Autoscaler) -> None:
    """Without a sample nothing is taken away, and the decision says so."""
    decision = await autoscaler.decide(FLEET, Servers(replicas=9, ready=5, allocated=4), interval_s=5)
    assert decision.blind
    assert decision.replicas == 9


async def test_an_idle_fleet_empties_its_shelf(valkey: redis.asyncio.Redis, backend: FakeBackend) -> None:
    """After the idle time the shelf's target is 0, until someone comes."""
    aim = FleetAim(shelf=2, idle_to_zero_s=0.001)
    autoscaler = Autoscaler({FLEET: aim}, valkey, backend, lead_s=20)  # type: ignore[arg-type]
    await autoscaler.sample(FLEET)
    await asyncio.sleep(0.01)
    await autoscaler.sample(FLEET)
    decision = await autoscaler.decide(FLEET, SERVERS, interval_s=5)
    assert decision.idle
    assert (await Shelf(valkey).observe(FLEET)).target == 0  # type: ignore[arg-type]


async def test_replicas_note_a_bucket_once(valkey: redis.asyncio.Redis) -> None:
    """Two autoscalers on one store count no match twice."""
    first, second = DemandHistory(valkey, FLEET), DemandHistory(valkey, FLEET)
    await valkey.set("wf:{arena}:claims", 10)
    await first.claims()
    await valkey.set("wf:{arena}:claims", 17)
    now_s, _ = await second.claims()
    bucket = int(now_s // BUCKET_S)
    await valkey.hset("wf:{arena}:arrivals", str(bucket + 1), "17")  # type: ignore[misc]
    assert await second.arrivals() in ({bucket: 7}, {bucket - 1: 7, bucket: 0})


def test_buckets_that_nobody_noted_share_what_came() -> None:
    """A gap is filled evenly and a store that was emptied counts as none."""
    assert arrivals_between({10: 0, 11: 5, 14: 11, 15: 2}) == {10: 5, 11: 2, 12: 2, 13: 2, 14: 0}


async def test_starts_are_timed(valkey: redis.asyncio.Redis, backend: FakeBackend, autoscaler: Autoscaler) -> None:
    """A server that appears and gets Ready leaves its lead time in the store."""
    running = asyncio.create_task(autoscaler.run())
    history = DemandHistory(valkey, FLEET)
    try:
        async with asyncio.timeout(30):
            while not (known := await history.lead_times()):
                name = backend.begin()
                await asyncio.sleep(0.3)
                backend.finish(name)
        assert 0.2 < max(known.values()) < 30
    finally:
        running.cancel()
        await asyncio.wait([running])


@pytest.fixture
async def web(autoscaler: Autoscaler) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(make_app(autoscaler, namespace="games", interval_s=5))
    async with httpx.AsyncClient(transport=transport, base_url="http://autoscaler") as client:
        yield client


async def test_the_webhook(web: httpx.AsyncClient, autoscaler: Autoscaler) -> None:
    """It answers for our fleets, refuses other ones and bad bodies, and bounds their size."""
    await autoscaler.sample(FLEET)
    status = {"replicas": 2, "readyReplicas": 1, "reservedReplicas": 0, "allocatedReplicas": 1}
    review = {"request": {"uid": "u1", "name": "arena", "namespace": "games", "status": status}}
    reply = await web.post("/v1/fleet-autoscale", json=review)
    assert reply.status_code == 200
    assert reply.json()["response"]["uid"] == "u1"
    assert (await web.get("/v1/fleets/arena/decision")).json()["reasons"]
    for change in ({"name": "other"}, {"namespace": "elsewhere"}):
        assert (
            await web.post("/v1/fleet-autoscale", json={"request": {**review["request"], **change}})
        ).status_code == 404
    assert (await web.post("/v1/fleet-autoscale", content=b"{")).status_code == 400
    assert (await web.post("/v1/fleet-autoscale", content=b" " * (1 << 21))).status_code == 413
    assert (await web.get("/v1/fleets/other/decision")).status_code == 404


@pytest.mark.parametrize("jump_s", [-3600.0, 600.0, 2 * 86_400.0], ids=["back", "ahead", "days ahead"])
async def test_a_store_whose_clock_jumps_takes_no_server_away(
    valkey: redis.asyncio.Redis, backend: FakeBackend, autoscaler: Autoscaler, jump_s: float
) -> None:
    """As after a failover to a machine that is off: what was wanted stays wanted, nobody is idle for it, and numbers stay sane."""
    demand = autoscaler._demand[FLEET]
    demand.aim = FleetAim(rooms=8, shelf=2, max=50, idle_to_zero_s=1800.0)
    await autoscaler.sample(FLEET)
    await claim(valkey, backend, 5)
    await autoscaler.sample(FLEET)
    before = await autoscaler.decide(FLEET, SERVERS, interval_s=5)
    claims = demand.history.claims

    async def skewed() -> tuple[float, int]:
        at_s, count = await claims()
        return at_s + jump_s, count

    demand.history.claims = skewed  # type: ignore[method-assign]
    for _ in range(3):
        await autoscaler.sample(FLEET)
        after = await autoscaler.decide(FLEET, SERVERS, interval_s=5)
        assert not after.blind
        assert not after.idle
        assert before.replicas <= after.replicas <= 50


async def test_a_webhook_whose_own_clock_is_off_decides_by_the_stores(
    autoscaler: Autoscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Schedules, seasons and what is published go by one clock for all replicas."""
    true_s = time.time()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    await autoscaler.sample(FLEET)
    decision = await autoscaler.decide(FLEET, SERVERS, interval_s=5)
    assert abs(decision.at_s - true_s) < 3600
