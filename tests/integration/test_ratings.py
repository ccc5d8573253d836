"""Ratings from a match's end to the next ticket: each session counts once, whoever looks at it and however often."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from matchmaker_api import RATED, Api, directing, problem, running
from matchmaking import FLEET, FakeAllocator, until

from gameserver.sessions.client import StoreClient
from gameserver.sessions.model import PlayerId, SessionId, SessionState
from matchmaker.api.auth import ApiKeys
from matchmaker.model import DifferenceRule, Leavers, Limit, RatingConfig
from matchmaker.ratings.rater import Rater
from matchmaker.ratings.store import RatingStore

RANKED = replace(RATED, ratings=RatingConfig(), rules=(DifferenceRule(attribute="rating", limit=Limit(value=10_000)),))
ANN, BOB = PlayerId("ann"), PlayerId("bob")


def end(allocator: FakeAllocator, session: SessionId, results: Any) -> None:
    found = allocator.sessions[session]
    over = replace(found.session, state=SessionState.ENDED, results=json.dumps(results))
    allocator.sessions[session] = replace(found, session=over)


@pytest.fixture
def allocator() -> FakeAllocator:
    return FakeAllocator()


async def due_now(client: StoreClient) -> None:
    """What is due later is due at once."""
    for session in await client.zrange("wf:r:{duel}:due", 0, -1):
        await client.zadd("wf:r:{duel}:due", {session: 0})


async def test_a_session_counts_once(valkey: StoreClient, allocator: FakeAllocator) -> None:
    store = RatingStore(valkey)
    raters = [Rater(RANKED, RatingStore(valkey), allocator) for _ in range(4)]
    session = allocator.running("m", ("ann", "red"), ("bob", "blue"))
    for _ in range(2):
        await store.expect(RANKED.name, session)
    await due_now(valkey)
    await raters[0].look()
    assert await store.fetch(RANKED.name, [ANN, BOB]) == {}, "it still runs"
    end(allocator, session, {"winners": ["ann"]})
    for _ in range(3):
        await due_now(valkey)
        await asyncio.gather(*(rater.look() for rater in raters))
    ratings = await store.fetch(RANKED.name, [ANN, BOB])
    assert {player: rating.matches for player, rating in ratings.items()} == {ANN: 1, BOB: 1}
    assert ratings[ANN].mean > 1500 > ratings[BOB].mean
    assert await valkey.zcard("wf:r:{duel}:due") == 0


async def test_a_player_s_sessions_that_end_together_all_count(valkey: StoreClient, allocator: FakeAllocator) -> None:
    """None overwrites another's rating, whichever process rates it."""
    store = RatingStore(valkey)
    for number in range(12):
        session = allocator.running(f"m{number}", ("ann", "red"), (f"p{number}", "blue"))
        end(allocator, session, {"winners": ["ann"]})
        await store.expect(RANKED.name, session)
    raters = [Rater(RANKED, RatingStore(valkey), allocator) for _ in range(6)]

    async def all_rated() -> bool:
        await due_now(valkey)
        await asyncio.gather(*(rater.look() for rater in raters))
        return not await valkey.zcard("wf:r:{duel}:due")

    await until(all_rated)
    assert (await store.fetch(RANKED.name, [ANN]))[ANN].matches == 12


async def test_a_reply_that_was_lost_changes_nothing_when_it_is_asked_again(
    valkey: StoreClient, allocator: FakeAllocator
) -> None:
    store = RatingStore(valkey)
    rater = Rater(RANKED, store, allocator)
    session = allocator.running("m", ("ann", "red"), ("bob", "blue"))
    end(allocator, session, {"scores": {"ann": 3, "bob": 5}})
    await store.expect(RANKED.name, session)
    await due_now(valkey)
    before = dict.fromkeys((ANN, BOB), rater._skill.new)
    after = {player: replace(rating, matches=1) for player, rating in before.items()}
    assert await store.apply(RANKED.name, session, before, after)
    assert await store.apply(RANKED.name, session, before, after), "done before is done"
    assert (await store.fetch(RANKED.name, [ANN]))[ANN].matches == 1


@pytest.mark.parametrize("results", [{}, {"error": "the game failed"}, [1, 2], {"winners": ["eve"]}])
async def test_sessions_that_say_nothing_are_dropped(
    valkey: StoreClient, allocator: FakeAllocator, results: Any
) -> None:
    store = RatingStore(valkey)
    session = allocator.running("m", ("ann", "red"), ("bob", "blue"))
    end(allocator, session, results)
    await store.expect(RANKED.name, session)
    await store.expect(RANKED.name, SessionId(f"{FLEET}.gone"))
    await due_now(valkey)
    await Rater(RANKED, store, allocator).look()
    assert await store.fetch(RANKED.name, [ANN, BOB]) == {}
    assert await valkey.zcard("wf:r:{duel}:due") == 0


async def test_reported_results_rate_a_session_at_once_and_once(valkey: StoreClient, allocator: FakeAllocator) -> None:
    """A game that is not ours says nothing; its studio's service does, while the server still runs."""
    store = RatingStore(valkey)
    session = allocator.running("m", ("ann", "red"), ("bob", "blue"))
    await store.expect(RANKED.name, session)
    assert await store.report(RANKED.name, session, b'{"winner":"bob"}')
    rater = Rater(RANKED, store, allocator)
    await rater.look()
    end(allocator, session, {"winners": ["ann"]})
    await due_now(valkey)
    await rater.look()
    ratings = await store.fetch(RANKED.name, [ANN, BOB])
    assert ratings[BOB].mean > 1500
    assert ratings[BOB].matches == 1


TEAMS = {PlayerId(name): name[0] for name in ("r1", "r2", "b1", "b2")}


async def rated(valkey: StoreClient, allocator: FakeAllocator, *left: str, **config: Any) -> dict[str, float]:
    """What a match of two against two, which red won, makes of its players' ratings; those who left have no seats any more."""
    queue = replace(RANKED, ratings=RatingConfig(**config))
    store, rater = RatingStore(valkey), Rater(queue, RatingStore(valkey), allocator)
    session = allocator.running(f"m{len(allocator.sessions)}", *(item for item in TEAMS.items() if item[0] not in left))
    found = allocator.sessions[session]
    gone = replace(found.session, left={PlayerId(name): name[0] for name in left})
    allocator.sessions[session] = replace(found, session=gone)
    end(allocator, session, config.pop("results", {"winners": ["r"]}))
    await valkey.delete("wf:r:{duel}:players")
    await store.expect(RANKED.name, session)
    await due_now(valkey)
    await rater.look()
    return {player: rating.mean for player, rating in (await store.fetch(RANKED.name, [*TEAMS])).items()}


async def test_who_left_before_the_end_loses_whatever_its_team_did(
    valkey: StoreClient, allocator: FakeAllocator
) -> None:
    """Its team's own rating is as if it had stayed; so is that of the others."""
    stayed = await rated(valkey, allocator)
    assert stayed["r1"] == stayed["r2"] > 1500 > stayed["b1"] == stayed["b2"]
    left = await rated(valkey, allocator, "r2")
    assert left == {**stayed, "r2": pytest.approx(stayed["b2"])}
    assert await rated(valkey, allocator, "b2") == stayed
    nobody_left = await rated(valkey, allocator, "b1", "b2")
    assert nobody_left == stayed, "who outlasts a whole team has won"


async def test_a_studio_may_let_leavers_count_as_staying_or_not_at_all(
    valkey: StoreClient, allocator: FakeAllocator
) -> None:
    stayed = await rated(valkey, allocator)
    assert await rated(valkey, allocator, "r2", leavers=Leavers.STAY) == stayed
    unrated = await rated(valkey, allocator, "r2", leavers=Leavers.UNRATED)
    assert unrated == {player: mean for player, mean in stayed.items() if player != "r2"}


@pytest.mark.parametrize(("results", "place"), [({"ranks": {"ann": 1, "bob": 2, "cat": 3}}, 1), ({"winner": "cat"}, 3)])
async def test_in_a_match_of_each_for_itself_a_result_of_ones_own_stands(
    valkey: StoreClient, allocator: FakeAllocator, results: Any, place: int
) -> None:
    """Who left when its game was over may have won it; who has no result of its own comes last."""
    store, rater = RatingStore(valkey), Rater(RANKED, RatingStore(valkey), allocator)
    session = allocator.running("m", ("bob", "all"), ("cat", "all"))
    found = allocator.sessions[session]
    allocator.sessions[session] = replace(found, session=replace(found.session, left={ANN: "all"}))
    end(allocator, session, results)
    await store.expect(RANKED.name, session)
    await due_now(valkey)
    await rater.look()
    ratings = await store.fetch(RANKED.name, [ANN, BOB, PlayerId("cat")])
    means = [rating.mean for rating in ratings.values()]
    assert sorted(means, reverse=True).index(ratings[ANN].mean) == place - 1


async def _rating(api: Api, player: str, **values: Any) -> dict[str, Any]:
    reply = await api.ask("GET", f"/v1/queues/duel/ratings/{player}", by=player, **values)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


async def test_from_results_to_the_next_ticket(valkey: StoreClient) -> None:
    """A real director rates a match that it made; the winner's next ticket says so, whatever the player itself would say."""
    keys = ApiKeys.parse("studio:backend:" + "0" * 64)
    async with running(valkey, queues=[RANKED], keys=keys) as api, directing(api, valkey, RANKED):
        body = {"queue": "duel", "players": [{"id": "ann"}]}
        made = (await api.ask("POST", "/v1/tickets", by="ann", json=body)).json()
        assert made["players"][0]["attributes"] == {"rating": 1500}
        assert await _rating(api, "ann") == {"player": "ann", "rating": 1500, "spread": 500, "matches": 0}
        await api.queue("bob", rating=9000)

        async def assigned() -> bool:
            ticket = (await api.ask("GET", f"/v1/tickets/{made['id']}", by="ann")).json()
            return ticket["state"] == "assigned"

        await until(assigned)
        (session,) = api.allocator.sessions
        end(api.allocator, session, {"winners": ["bob"]})

        async def rated() -> bool:
            return bool((await _rating(api, "ann"))["matches"] == 1)

        await until(rated)
        bob = await api.queue("bob", rating=9000)
        assert 1500 < bob["players"][0]["attributes"]["rating"] < 2500, "players do not make their ratings up"
        problem(await api.ask("GET", "/v1/queues/duel/ratings/bob", by="ann"), 403, "forbidden")
        problem(await api.ask("GET", "/v1/queues/nowhere/ratings/ann", by="ann"), 404, "not-found")
