"""Why a ticket waits: the right rule is blamed, and the moment of its relaxing is named."""

from dataclasses import replace

import pytest
from matchmaking import DUEL, FLEET

from gameserver.sessions.model import PlayerId
from matchmaker.explanation import MOST_LOOKED_AT, Verdict, explain
from matchmaker.model import (
    DifferenceRule,
    EqualRule,
    LatencyRule,
    Limit,
    Step,
    Team,
    Ticket,
    TicketId,
    TicketPlayer,
)

RATING = DifferenceRule(attribute="rating", limit=Limit(value=100, expand=(Step(after_s=10, limit=300),)))
MODE = EqualRule(attribute="mode")
QUEUE = replace(DUEL, rules=(RATING, MODE))


def ticket(name: str, rating: float, *, mode: str = "ctf", at_s: float = 0.0, **player: object) -> Ticket:
    one = TicketPlayer(id=PlayerId(name), attributes={"rating": rating, "mode": mode}, **player)  # type: ignore[arg-type]
    return Ticket(id=TicketId(f"duel.{name}"), players=(one,), created_at_s=at_s)


ANN = ticket("ann", 1500)


def test_an_empty_queue_has_too_few_players() -> None:
    found = explain(QUEUE, ANN, [], 5.0, waiting=0)
    assert (found.verdict, found.wanted_players, found.candidates) == (Verdict.FEW_PLAYERS, 1, 0)


def test_the_rule_that_keeps_most_away_is_blamed_and_says_when_it_relaxes() -> None:
    others = [ticket("bob", 1700), ticket("cat", 1790), ticket("dan", 1500, mode="race"), ticket("eve", 2500)]
    found = explain(QUEUE, ANN, others, 4.0, waiting=4)
    assert (found.verdict, found.blocking, found.candidates) == (Verdict.RULE, 0, 0)
    rating, mode = found.rules
    assert (rating.title, mode.title) == ("difference rating", "equal mode")
    assert (rating.limit, rating.next_limit, rating.relaxes_in_s) == (100, 300, 6.0)
    assert (rating.fits, rating.fits_next, rating.alone, rating.nearest) == (1, 3, 3, 0)
    assert (mode.fits, mode.alone, mode.relaxes_in_s, mode.limit) == (3, 1, None, None)
    assert "relaxes in 6.0 s, then 3 do" in found.detail


def test_a_rule_that_is_not_asked_any_more_has_no_limit() -> None:
    queue = replace(DUEL, rules=(replace(RATING, optional_after_s=20.0),))
    before = explain(queue, ANN, [ticket("bob", 5000)], 15.0, waiting=1).rules[0]
    assert (before.limit, before.next_limit, before.relaxes_in_s) == (300, None, 5.0)
    old = ticket("bob", 5000, at_s=-5)
    after = explain(queue, ANN, [old], 21.0, waiting=1)
    assert (after.rules[0].limit, after.rules[0].relaxes_in_s, after.candidates) == (None, None, 1)


def test_soft_rules_keep_nobody_away() -> None:
    queue = replace(DUEL, rules=(replace(RATING, weight=1.0),))
    found = explain(queue, ANN, [ticket("bob", 5000)], 1.0, waiting=1)
    assert (found.rules, found.candidates, found.verdict) == ((), 1, Verdict.TEAMS)


def test_a_latency_rule_and_block_lists_are_counted() -> None:
    queue = replace(DUEL, rules=(LatencyRule(limit=Limit(value=60)),), regions={FLEET: "eu"})
    ann = ticket("ann", 0, latencies_ms={"eu": 20})
    far = ticket("bob", 0, latencies_ms={"eu": 90})
    foe = ticket("cat", 0, latencies_ms={"eu": 20}, blocked=(PlayerId("ann"),))
    found = explain(queue, ann, [far, foe], 1.0, waiting=2)
    assert (found.rules[0].title, found.rules[0].fits, found.rules[0].limit) == ("latency", 1, 60)
    assert (found.blocked, found.candidates) == (1, 0)


@pytest.mark.parametrize("linear", [True, False])
def test_a_limit_that_changes_evenly_is_relaxing_now(linear: bool) -> None:
    limit = Limit(value=100, expand=(Step(after_s=10, limit=300),), linear=linear)
    queue = replace(DUEL, rules=(DifferenceRule(attribute="rating", limit=limit),))
    found = explain(queue, ANN, [ticket("bob", 1790)], 5.0, waiting=1).rules[0]
    assert found.relaxes_in_s == (0.0 if linear else 5.0)
    assert found.limit == (200 if linear else 100)


def test_of_many_the_nearest_are_looked_at() -> None:
    others = [ticket(f"p{rating}", rating) for rating in range(5000)]
    found = explain(QUEUE, ANN, others, 1.0, waiting=90_000)
    assert (found.looked_at, found.waiting) == (MOST_LOOKED_AT, 90_000)
    assert found.candidates == 201


def test_enough_that_fit_one_by_one_are_a_matter_of_teams() -> None:
    queue = replace(QUEUE, teams=(Team(name="red", players=2), Team(name="blue", players=2)))
    found = explain(queue, ANN, [ticket("bob", 1450), ticket("cat", 1550), ticket("dan", 1510)], 1.0, waiting=3)
    assert (found.verdict, found.wanted_players, found.candidate_players) == (Verdict.TEAMS, 3, 3)
