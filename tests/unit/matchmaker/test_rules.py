"""Every rule: what obeys it, what breaks it, and how it relaxes with age."""

import math
from collections.abc import Mapping

import pytest

from gameserver.sessions.model import FleetName, PlayerId
from matchmaker.matching.rules import agree, check, fleets_for, number, regions_of
from matchmaker.model import (
    Aggregate,
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
EU, US, HOME = FleetName("arena-eu"), FleetName("arena-us"), FleetName("arena-home")
RELAXING = Limit(value=100, expand=(Step(after_s=10, limit=200), Step(after_s=30, limit=500)))


def queue(*rules: Rule, teams: tuple[int, ...] = (1, 1), aggregate: Aggregate = Aggregate.MEAN) -> QueueConfig:
    return QueueConfig(
        name=QueueName("q"),
        fleets=(EU, US, HOME),
        regions={EU: "eu", US: "us"},
        teams=tuple(Team(name=f"team{index}", players=players) for index, players in enumerate(teams)),
        rules=rules,
        party_max=5,
        aggregate=aggregate,
    )


def party(*attributes: Mapping[str, Attribute], age_s: float = 0.0) -> Ticket:
    players = tuple(TicketPlayer(id=PlayerId(f"p{index}"), attributes=each) for index, each in enumerate(attributes))
    return Ticket(id=TicketId("q.x"), players=players, created_at_s=NOW_S - age_s)


def rated(*ratings: float, age_s: float = 0.0) -> Ticket:
    return party(*({"rating": rating} for rating in ratings), age_s=age_s)


def far(age_s: float = 0.0, **latencies: float) -> Ticket:
    player = TicketPlayer(id=PlayerId("p"), latencies_ms=latencies)
    return Ticket(id=TicketId("q.x"), players=(player,), created_at_s=NOW_S - age_s)


@pytest.mark.parametrize(
    ("age_s", "limit", "next_s"),
    [(0, 100, 10), (9.999, 100, 10), (10, 200, 30), (29.999, 200, 30), (30, 500, math.inf), (1e9, 500, math.inf)],
)
def test_a_limit_changes_exactly_at_the_age_of_its_step(age_s: float, limit: float, next_s: float) -> None:
    assert RELAXING.at(age_s) == limit
    assert RELAXING.relaxes_after_s(age_s) == next_s


def test_a_limit_without_steps_never_changes() -> None:
    assert Limit(value=3).at(1e9) == 3
    assert Limit(value=3).relaxes_after_s(0) == math.inf


@pytest.mark.parametrize(
    ("aggregate", "wanted"), [(Aggregate.MIN, 1000.0), (Aggregate.MAX, 1600.0), (Aggregate.MEAN, 1200.0)]
)
def test_a_partys_number_is_aggregated(aggregate: Aggregate, wanted: float) -> None:
    assert number(rated(1000, 1000, 1600), "rating", aggregate) == wanted


@pytest.mark.parametrize("second", [{}, {"rating": "high"}, {"rating": ("1",)}])
def test_a_party_has_no_number_when_one_of_its_players_has_none(second: dict[str, Attribute]) -> None:
    assert number(party({"rating": 1.0}, second), "rating", Aggregate.MAX) is None


@pytest.mark.parametrize(
    ("left", "right", "wanted"),
    [
        (rated(1500), rated(1600), ""),
        (rated(1500), rated(1600.5), "rating differs by more than 100"),
        (rated(1500, age_s=10), rated(1700, age_s=10), ""),
        (rated(1500, age_s=9.9), rated(1700, age_s=10), "rating differs by more than 100"),
        (rated(1500, age_s=60), rated(1700, age_s=0), "rating differs by more than 100"),
        (rated(1500, age_s=60), rated(2000, age_s=30), ""),
        (rated(1500, age_s=60), rated(2001, age_s=30), "rating differs by more than 500"),
        (rated(1500), party({}), "rating differs by more than 100"),
    ],
)
def test_difference(left: Ticket, right: Ticket, wanted: str) -> None:
    """The newest ticket's limit counts: nobody is given a worse match than its own age has earned."""
    config = queue(DifferenceRule(attribute="rating", limit=RELAXING))
    assert check(config, ((left,), (right,)), NOW_S) == wanted
    assert agree(config, (left, right), NOW_S) == (not wanted)


def test_difference_looks_at_parties_as_wholes() -> None:
    rule = DifferenceRule(attribute="rating", limit=Limit(value=50))
    teams = ((rated(1000, 2000),), (rated(1500, 1500),))
    assert check(queue(rule, teams=(2, 2)), teams, NOW_S) == ""
    assert check(queue(rule, teams=(2, 2), aggregate=Aggregate.MAX), teams, NOW_S) == "rating differs by more than 50"
    assert check(queue(rule, teams=(2, 2), aggregate=Aggregate.MIN), teams, NOW_S) == "rating differs by more than 50"


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [("ctf", "ctf", True), ("ctf", "duel", False), (1.0, 1.0, True), (("a", "b"), ("a", "b"), True), ("1", 1.0, False)],
)
def test_equal(left: Attribute, right: Attribute, same: bool) -> None:
    config = queue(EqualRule(attribute="mode"))
    wanted = "" if same else "mode is not the same"
    assert check(config, ((party({"mode": left}),), (party({"mode": right}),)), NOW_S) == wanted


def test_equal_holds_within_a_party_too() -> None:
    config = queue(EqualRule(attribute="mode"), teams=(2,))
    assert check(config, ((party({"mode": "a"}, {"mode": "b"}),),), NOW_S) == "mode is not the same"


@pytest.mark.parametrize(
    ("minimum", "left", "right", "obeyed"),
    [
        (1, ("a", "b"), ("b", "c"), True),
        (2, ("a", "b"), ("b", "c"), False),
        (2, ("a", "b", "c"), ("c", "b"), True),
        (1, ("a",), (), False),
        (1, ("a",), "a", False),
        (0, ("a",), ("b",), True),
    ],
)
def test_intersection(minimum: int, left: Attribute, right: Attribute, obeyed: bool) -> None:
    config = queue(IntersectionRule(attribute="maps", minimum=minimum))
    wanted = "" if obeyed else f"maps has fewer than {minimum} in common"
    assert check(config, ((party({"maps": left}),), (party({"maps": right}),)), NOW_S) == wanted


def test_intersection_is_of_all_players_not_of_pairs() -> None:
    config = queue(IntersectionRule(attribute="maps"), teams=(1, 1, 1))
    teams = tuple((party({"maps": maps}),) for maps in (("a", "b"), ("b", "c"), ("a", "c")))
    assert check(config, teams, NOW_S) == "maps has fewer than 1 in common"


LATENCY = LatencyRule(limit=Limit(value=60, expand=(Step(after_s=20, limit=120),)))


@pytest.mark.parametrize(
    ("tickets", "regions"),
    [
        ((far(eu=20, us=90), far(eu=60, us=90)), {"eu": 60}),
        ((far(eu=20), far(eu=60.5)), {}),
        ((far(eu=20), far(us=20)), {}),
        ((far(eu=20, us=50), far(eu=40, us=30)), {"eu": 40, "us": 50}),
        ((far(20, eu=120), far(20, eu=20)), {"eu": 120}),
        ((far(19.9, eu=120), far(20, eu=20)), {}),
        ((far(20, eu=120), far(0, eu=20)), {"eu": 120}),
        ((far(mars=1), far(mars=1)), {}),
        ((far(), far(eu=1)), {}),
    ],
)
def test_latency(tickets: tuple[Ticket, ...], regions: dict[str, float]) -> None:
    """Each player is held to the limit of its own ticket's age, in the same region for all."""
    config = queue(LATENCY)
    assert regions_of(config, tickets, NOW_S) == regions
    broken = check(config, tuple((ticket,) for ticket in tickets), NOW_S)
    assert broken == ("" if regions else "no region is near enough to everyone")


def test_without_a_latency_rule_every_fleet_will_do() -> None:
    assert regions_of(queue(), (far(eu=500),), NOW_S) is None
    assert fleets_for(queue(), (far(eu=500),), NOW_S) == (EU, US, HOME)


@pytest.mark.parametrize(
    ("tickets", "fleets"),
    [
        ((far(eu=20, us=50), far(eu=40, us=30)), (EU, US)),
        ((far(eu=50, us=20), far(eu=50, us=30)), (US, EU)),
        ((far(eu=30, us=30),), (EU, US)),
        ((far(eu=30, us=90),), (EU,)),
        ((far(eu=90, us=90),), ()),
    ],
)
def test_fleets_come_nearest_to_the_slowest_player_first(
    tickets: tuple[Ticket, ...], fleets: tuple[FleetName, ...]
) -> None:
    """Fleets without a region, or with one that is too far for somebody, are left out; ties keep the queue's order."""
    assert fleets_for(queue(LATENCY), tickets, NOW_S) == fleets


@pytest.mark.parametrize(
    ("red", "blue", "age_s", "wanted"),
    [
        ((1000, 2000), (1500, 1550), 0, ""),
        ((1000, 1000), (1100, 1101), 0, "the teams' rating differs by more than 100"),
        ((1000, 1000), (1200, 1200), 10, ""),
        ((1000, 1000), (1201, 1201), 10, "the teams' rating differs by more than 200"),
    ],
)
def test_team_balance(red: tuple[float, ...], blue: tuple[float, ...], age_s: float, wanted: str) -> None:
    config = queue(TeamBalanceRule(attribute="rating", limit=RELAXING), teams=(2, 2))
    teams = (tuple(rated(r, age_s=age_s) for r in red), (rated(*blue, age_s=age_s),))
    assert check(config, teams, NOW_S) == wanted
    assert agree(config, (*teams[0], *teams[1]), NOW_S), "how tickets are dealt is not yet known to agree()"


def test_team_balance_compares_means_of_teams_of_different_sizes() -> None:
    config = queue(TeamBalanceRule(attribute="rating", limit=Limit(value=10)), teams=(1, 3))
    assert check(config, ((rated(1500),), (rated(1400, 1500, 1600),)), NOW_S) == ""
    assert check(config, ((rated(1500),), (rated(1400, 1400, 1600),)), NOW_S) != ""


def test_team_balance_needs_every_players_number() -> None:
    config = queue(TeamBalanceRule(attribute="rating", limit=Limit(value=1e9)))
    assert check(config, ((rated(1500),), (party({}),)), NOW_S) == "the teams' rating differs by more than 1e+09"


@pytest.mark.parametrize(
    ("teams", "dealt", "full"),
    [
        ((1, 1), ((1,), (1,)), True),
        ((1, 1), ((1,), ()), False),
        ((2, 2), ((2,), (1,)), False),
        ((1, 3), ((1,), (2, 1)), True),
        ((1, 3), ((3,), (1,)), False),
        ((1, 1), ((1,), (1,), (1,)), False),
        ((5, 5), ((3, 2), (1, 1, 1, 1, 1)), True),
        ((4,), ((2, 2),), True),
    ],
)
def test_teams_must_be_full_and_in_order(
    teams: tuple[int, ...], dealt: tuple[tuple[int, ...], ...], full: bool
) -> None:
    parties = tuple(tuple(rated(*[1500] * size) for size in team) for team in dealt)
    assert check(queue(teams=teams), parties, NOW_S) == ("" if full else "the teams are not full")


def test_the_first_broken_rule_is_named() -> None:
    config = queue(EqualRule(attribute="mode"), DifferenceRule(attribute="rating", limit=RELAXING))
    apart = ((party({"mode": "a", "rating": 0.0}),), (party({"mode": "b", "rating": 900.0}),))
    assert check(config, apart, NOW_S) == "mode is not the same"
    near = ((party({"mode": "a", "rating": 0.0}),), (party({"mode": "a", "rating": 900.0}),))
    assert check(config, near, NOW_S) == "rating differs by more than 100"
