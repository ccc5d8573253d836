"""Forming matches: golden pools, and the matches that come of them."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from gameserver.sessions.model import FleetName, PlayerId
from matchmaker.matching.form import form_matches
from matchmaker.matching.pool import Pool
from matchmaker.model import (
    Attribute,
    DifferenceRule,
    EqualRule,
    IntersectionRule,
    LatencyRule,
    Limit,
    QueueConfig,
    QueueName,
    Rule,
    Step,
    Team,
    TeamBalanceRule,
    Ticket,
    TicketId,
    TicketPlayer,
)

NOW_S = 1000.0
EU, US = FleetName("eu"), FleetName("us")
RATING = DifferenceRule(attribute="rating", limit=Limit(value=100, expand=(Step(after_s=30, limit=500),)))


def queue(*rules: Rule, teams: tuple[int, ...] = (1, 1)) -> QueueConfig:
    return QueueConfig(
        name=QueueName("q"),
        fleets=(EU, US),
        regions={EU: "eu", US: "us"},
        teams=tuple(Team(name=f"team{index}", players=players) for index, players in enumerate(teams)),
        rules=rules,
        party_max=6,
    )


def ticket(
    name: str, rating: float = 1500, *, age_s: float = 0, size: int = 1, us: float = 10, **attributes: Attribute
) -> Ticket:
    return Ticket(
        id=TicketId(name),
        created_at_s=NOW_S - age_s,
        players=tuple(
            TicketPlayer(
                id=PlayerId(f"{name}{index}"),
                attributes={"rating": rating, **attributes},
                latencies_ms={"eu": 30, "us": us},
            )
            for index in range(size)
        ),
    )


def formed(config: QueueConfig, pool: Sequence[Ticket]) -> list[str]:
    """Matches in words: tickets of a team sorted and joined, teams apart by a bar and in order."""
    return [
        "|".join(sorted(" ".join(sorted(t.id for t in team)) for team in match.teams))
        for match in form_matches(config, pool, NOW_S)
    ]


def test_nobody_makes_no_match() -> None:
    assert formed(queue(), []) == []
    assert formed(queue(), [ticket("a")]) == []


def test_the_oldest_takes_its_nearest() -> None:
    pool = [ticket("a", 1500, age_s=9), ticket("b", 1560, age_s=8), ticket("c", 1470, age_s=1), ticket("d", 1600)]
    assert formed(queue(RATING), pool) == ["a|c", "b|d"]


def test_without_rules_neighbours_in_age_meet() -> None:
    assert formed(queue(), [ticket(name, age_s=age_s) for name, age_s in zip("dcba", range(4), strict=True)]) == [
        "a|b",
        "c|d",
    ]


def test_age_alone_makes_a_match_possible() -> None:
    apart = (1500, 1900)
    assert formed(queue(RATING), [ticket("a", apart[0], age_s=29.9), ticket("b", apart[1], age_s=29.9)]) == []
    assert formed(queue(RATING), [ticket("a", apart[0], age_s=30), ticket("b", apart[1], age_s=30)]) == ["a|b"]


def test_an_old_ticket_looks_past_a_new_one_that_may_not_yet() -> None:
    pool = [ticket("old", 1500, age_s=60), ticket("new", 1700), ticket("far", 1900, age_s=40)]
    assert formed(queue(RATING), pool) == ["far|old"]


def test_equal_rules_part_the_pool() -> None:
    pool = [
        ticket(name, mode=mode, age_s=10 - i) for i, (name, mode) in enumerate([("a", "x"), ("b", "y"), ("c", "x")])
    ]
    assert formed(queue(EqualRule(attribute="mode")), pool) == ["a|c"]


def test_sets_must_meet_in_one_value() -> None:
    pool = [
        ticket("a", maps=("ice", "sand"), age_s=3),
        ticket("b", maps=("rock",), age_s=2),
        ticket("c", maps=("sand",), age_s=1),
    ]
    assert formed(queue(IntersectionRule(attribute="maps")), pool) == ["a|c"]


def test_a_match_goes_to_the_fleets_that_are_near_to_all() -> None:
    pool = [
        ticket("a", us=90, age_s=2),
        ticket("b", us=20, age_s=1),
        ticket("c", 1700, us=20),
        ticket("d", 1700, us=10),
    ]
    rules = (LatencyRule(limit=Limit(value=60)), RATING)
    assert [match.fleets for match in form_matches(queue(*rules), pool, NOW_S)] == [(EU,), (US, EU)]


@pytest.mark.parametrize(
    ("teams", "sizes", "wanted"),
    [
        ((2, 2), (2, 1, 1), True),
        ((2, 2), (2, 2), True),
        ((1, 3), (3, 1), True),
        ((3, 1), (3, 1), True),
        ((1, 3), (2, 2), False),
        ((2, 2), (3, 1), False),
        ((2, 3), (2, 2, 1), True),
        ((5, 5), (3, 3, 2, 2), True),
        ((6, 6), (3, 3, 2, 2, 2), True),
        ((1, 1, 1), (1, 1, 1), True),
        ((4,), (4,), True),
        ((1,), (1,), True),
    ],
)
def test_parties_stay_together(teams: tuple[int, ...], sizes: tuple[int, ...], wanted: bool) -> None:
    pool = [ticket(f"t{i}", size=size, age_s=50 - i) for i, size in enumerate(sizes)]
    matches = form_matches(queue(RATING, teams=teams), pool, NOW_S)
    assert len(matches) == wanted
    for match in matches:
        assert [sum(len(t.players) for t in team) for team in match.teams] == list(teams)
        assert {t.id for t in match.tickets} == {t.id for t in pool}


def test_a_party_too_large_for_every_team_waits_and_holds_up_nobody() -> None:
    pool = [ticket("huge", size=3, age_s=99), ticket("a", age_s=2), ticket("b", age_s=1)]
    assert formed(queue(), pool) == ["a|b"]


def test_strong_players_are_spread() -> None:
    """The strongest and the weakest together are as strong as the two between them."""
    pool = [ticket("a", 1600), ticket("b", 1540), ticket("c", 1540), ticket("d", 1500)]
    rules = (TeamBalanceRule(attribute="rating", limit=Limit(value=15)), RATING)
    assert formed(queue(*rules, teams=(2, 2)), pool) == ["a d|b c"]


def test_a_balance_rule_alone_finds_equals_among_strangers() -> None:
    """In order of age strong and weak alternate; the nearest in age never balance each other."""
    pool = [
        ticket(name, rating, age_s=9 - i) for i, (name, rating) in enumerate(zip("abcd", (1, 2, 1, 2), strict=True))
    ]
    assert formed(queue(TeamBalanceRule(attribute="rating", limit=Limit(value=0))), pool) == ["a|c", "b|d"]


def test_a_balance_rule_alone_finds_equals_beyond_a_crowd() -> None:
    crowd = [ticket(f"t{i}", 1000 * (i + 1), age_s=500 - i) for i in range(80)]
    pool = [ticket("a", 0, age_s=600), *crowd, ticket("z", 0)]
    assert formed(queue(TeamBalanceRule(attribute="rating", limit=Limit(value=0))), pool) == ["a|z"]


def test_when_the_last_one_unbalances_the_teams_another_is_tried() -> None:
    pool = [ticket("a", 1500, age_s=9), ticket("b", 1500, size=2), ticket("c", 1560), ticket("d", 1440)]
    rules = (RATING, TeamBalanceRule(attribute="rating", limit=Limit(value=29)))
    assert formed(queue(*rules, teams=(2, 2)), pool) == []
    pool.append(ticket("e", 1555))
    assert formed(queue(*rules, teams=(2, 2)), pool) == ["a e|b"]


def test_matches_come_in_the_order_of_their_oldest_tickets() -> None:
    pool = [ticket("a", 0, age_s=1), ticket("b", 0), ticket("c", 900, age_s=5), ticket("d", 900, age_s=0)]
    assert formed(queue(RATING), pool) == ["c|d", "a|b"]


def test_among_equals_nobody_is_passed_over_again_and_again() -> None:
    """Seven come at a time and ten play: who is left of one cycle plays in the next that makes a match."""
    pool = Pool(queue(RATING, teams=(5, 5)))
    left: set[TicketId] = set()
    for turn in range(60):
        fresh = [replace(ticket(f"t{turn}-{i}"), created_at_s=NOW_S + turn * 0.006 - i * 0.0005) for i in range(7)]
        pool.change(fresh, ())
        matches = pool.cycle(NOW_S + turn * 0.006)
        if matches:
            played = {one.id for match in matches for one in match.tickets}
            assert left <= played, turn
            pool.change((), played)
            left = {one.id for one in pool.waiting()}
