"""Rules beyond the first five, and what every rule can have: each edge, to the letter of docs/rules.md. Judge and search agree."""

from dataclasses import replace

import pytest

from gameserver.sessions.model import FleetName, PlayerId
from matchmaker.matching.form import form_matches
from matchmaker.matching.rules import check, quality, regions_of, roles_of
from matchmaker.model import (
    Age,
    Aggregate,
    Attribute,
    BatchDistanceRule,
    ComparisonRule,
    DifferenceRule,
    EqualRule,
    InSetRule,
    IntersectionRule,
    LatencyRule,
    Limit,
    Operation,
    QueueConfig,
    QueueName,
    Reference,
    Role,
    Rule,
    Step,
    Team,
    TeamBalanceRule,
    TeamSizeRule,
    Ticket,
    TicketId,
    TicketPlayer,
)

NOW_S = 1000.0
EU, US = FleetName("eu"), FleetName("us")
Values = dict[str, Attribute]


def queue(*rules: Rule, teams: tuple[int, ...] = (1, 1)) -> QueueConfig:
    return QueueConfig(
        name=QueueName("q"),
        fleets=(EU, US),
        regions={EU: "eu", US: "us"},
        teams=tuple(Team(name=f"t{i}", players=players) for i, players in enumerate(teams)),
        rules=rules,
        party_max=5,
    )


def party(name: str, *values: Values, age_s: float = 0.0, eu: float = 20, us: float = 20) -> Ticket:
    players = tuple(
        TicketPlayer(id=PlayerId(f"{name}{i}"), attributes=each, latencies_ms={"eu": eu, "us": us})
        for i, each in enumerate(values)
    )
    return Ticket(id=TicketId(name), players=players, created_at_s=NOW_S - age_s)


def one(name: str, value: Attribute | None = None, *, age_s: float = 0.0, attribute: str = "x") -> Ticket:
    return party(name, {} if value is None else {attribute: value}, age_s=age_s)


def agrees(config: QueueConfig, *tickets: Ticket) -> bool:
    """Whether the judge lets two (or more) lone tickets meet, one a team; the search must find them exactly then."""
    fine = check(config, [(ticket,) for ticket in tickets], NOW_S) == ""
    found = form_matches(config, list(tickets), NOW_S)
    assert bool(found) == fine, "judge and search differ"
    return fine


MEAN = DifferenceRule(attribute="x", limit=Limit(value=10), to=Reference.MEAN)


@pytest.mark.parametrize(
    ("values", "fine"), [((0, 20), True), ((0, 20.1), False), ((0, 0, 15), True), ((0, 0, 15.1), False)]
)
def test_a_difference_to_the_mean_is_from_the_match_mean(values: tuple[float, ...], fine: bool) -> None:
    config = queue(MEAN, teams=(1,) * len(values))
    assert agrees(config, *(one(str(i), float(v)) for i, v in enumerate(values))) == fine


def test_in_the_mean_a_party_counts_as_often_as_it_has_players() -> None:
    """Three at 0 and one at 13: the mean is 3.25, from which 13 is 9.75; two by two it would be 6.5 and 6.5."""
    three, lone = party("a", *({"x": 0.0},) * 3), one("b", 13.0)
    assert check(queue(MEAN, teams=(3, 1)), ((three,), (lone,)), NOW_S) == ""
    assert check(queue(MEAN, teams=(3, 1)), ((three,), (one("b", 13.4),)), NOW_S) != ""


@pytest.mark.parametrize("aggregate", Aggregate)
def test_a_rules_own_aggregate_overrides_the_queues(aggregate: Aggregate) -> None:
    rule = DifferenceRule(attribute="x", limit=Limit(value=0), aggregate=aggregate)
    config = replace(queue(rule, teams=(2, 1)), aggregate=Aggregate.MIN)
    wanted = {Aggregate.MIN: 0.0, Aggregate.MEAN: 50.0, Aggregate.MAX: 100.0}[aggregate]
    duo = party("a", {"x": 0.0}, {"x": 100.0})
    assert check(config, ((duo,), (one("b", wanted),)), NOW_S) == ""
    assert check(config, ((duo,), (one("b", wanted + 1),)), NOW_S) != ""


@pytest.mark.parametrize(("spread", "fine"), [(10.0, True), (10.5, False)])
def test_batch_distance_counts_the_players_of_one_party_too(spread: float, fine: bool) -> None:
    config = queue(BatchDistanceRule(attribute="x", limit=Limit(value=10)), teams=(2, 1))
    pool = [party("a", {"x": 0.0}, {"x": spread}), one("b", 5.0)]
    assert bool(form_matches(config, pool, NOW_S)) == fine
    assert (check(config, ((pool[0],), (pool[1],)), NOW_S) == "") == fine


@pytest.mark.parametrize(
    ("value", "fine"),
    [("ctf", True), (3.0, True), ("duel", False), (("duel", "ctf"), True), ((), False), (None, False)],
)
def test_in_set_wants_the_value_or_one_of_its_list(value: Attribute | None, fine: bool) -> None:
    config = queue(InSetRule(attribute="x", values=("ctf", 3.0)))
    assert agrees(config, one("a", value), one("b", "ctf")) == fine


@pytest.mark.parametrize(
    ("operation", "below", "at", "above"),
    [
        (Operation.LESS, True, False, False),
        (Operation.AT_MOST, True, True, False),
        (Operation.EQUAL, False, True, False),
        (Operation.UNEQUAL, True, False, True),
        (Operation.AT_LEAST, False, True, True),
        (Operation.MORE, False, False, True),
    ],
)
def test_a_comparison_with_a_constant(operation: Operation, below: bool, at: bool, above: bool) -> None:
    config = queue(ComparisonRule(attribute="x", operation=operation, value=5))
    for value, fine in ((4.0, below), (5.0, at), (6.0, above)):
        assert agrees(config, one("a", value), one("b", value)) == fine
    assert agrees(config, one("a", "five"), one("b", "five")) == (operation is Operation.UNEQUAL)


@pytest.mark.parametrize(
    ("operation", "same", "others"), [(Operation.EQUAL, True, False), (Operation.UNEQUAL, False, True)]
)
def test_a_comparison_without_a_constant_is_among_the_players(operation: Operation, same: bool, others: bool) -> None:
    config = queue(ComparisonRule(attribute="x", operation=operation))
    assert agrees(config, one("a", "tank"), one("b", "tank")) == same
    assert agrees(config, one("a", "tank"), one("b", "healer")) == others


@pytest.mark.parametrize(("limit", "fine"), [(0, False), (1, False), (2, True)])
def test_team_size_compares_the_fullest_and_the_emptiest(limit: float, fine: bool) -> None:
    config = replace(
        queue(TeamSizeRule(limit=Limit(value=limit))),
        teams=(Team(name="a", players=3, minimum=1), Team(name="b", players=3, minimum=1)),
    )
    trio, lone = party("a", {}, {}, {}, age_s=9), party("b", {}, age_s=9)
    assert (check(config, ((trio,), (lone,)), NOW_S) == "") == fine
    assert bool(form_matches(config, [trio, lone], NOW_S)) == fine


@pytest.mark.parametrize(("second", "fine"), [(100.0, True), (100.5, False)])
def test_team_balance_by_sum(second: float, fine: bool) -> None:
    config = queue(TeamBalanceRule(attribute="x", limit=Limit(value=50), by_sum=True), teams=(2, 1))
    duo, lone = party("a", {"x": 25.0}, {"x": 25.0}), one("b", second)
    assert (check(config, ((duo,), (lone,)), NOW_S) == "") == fine
    assert bool(form_matches(config, [duo, lone], NOW_S)) == fine


def test_a_number_of_a_map_is_read_by_its_name() -> None:
    config = queue(DifferenceRule(attribute="skill[tank]", limit=Limit(value=5)))
    assert agrees(config, one("a", {"tank": 1.0}, attribute="skill"), one("b", {"tank": 6.0}, attribute="skill"))
    assert not agrees(config, one("a", {"tank": 1.0}, attribute="skill"), one("b", {"healer": 1.0}, attribute="skill"))


# ---- what every rule can have ------------------------------------------------------------------------------------------

STEPS = Limit(value=10, expand=(Step(after_s=10, limit=20), Step(after_s=30, limit=50)))
EVEN = replace(STEPS, linear=True)


@pytest.mark.parametrize(
    ("age_s", "stepped", "even"),
    [
        (0, 10, 10),
        (5, 10, 15),
        (9.99, 10, 19.99),
        (10, 20, 20),
        (20, 20, 35),
        (29.99, 20, 49.985),
        (30, 50, 50),
        (90, 50, 50),
    ],
)
def test_a_limit_jumps_at_its_steps_or_changes_evenly_between_them(age_s: float, stepped: float, even: float) -> None:
    assert STEPS.at(age_s) == stepped
    assert EVEN.at(age_s) == pytest.approx(even)
    for limit in (STEPS, EVEN):
        config = queue(DifferenceRule(attribute="x", limit=limit))
        width = limit.at(age_s)
        assert agrees(config, one("a", 0.0, age_s=age_s), one("b", width - 1e-6, age_s=age_s))
        assert not agrees(config, one("a", 0.0, age_s=age_s), one("b", width + 1e-6, age_s=age_s))


@pytest.mark.parametrize(
    ("age", "fine"),
    [
        (Age.OWN, {10: True, 15: False, 45: False}),
        (Age.NEWEST, {10: True, 15: False, 45: False}),
        (Age.OLDEST, {10: True, 15: True, 45: True}),
    ],
)
def test_whose_age_counts(age: Age, fine: dict[int, bool]) -> None:
    """Somebody new and somebody of 30 s."""
    config = queue(DifferenceRule(attribute="x", limit=STEPS, age=age))
    for width, wanted in fine.items():
        assert agrees(config, one("new", 0.0), one("old", float(width), age_s=30)) == wanted


def test_of_a_limit_that_tightens_the_own_age_is_the_oldest_ones() -> None:
    tightens = Limit(value=50, expand=(Step(after_s=10, limit=5),))
    for age, fine in ((Age.OWN, False), (Age.NEWEST, True), (Age.OLDEST, False)):
        config = queue(DifferenceRule(attribute="x", limit=tightens, age=age))
        assert agrees(config, one("new", 0.0), one("old", 20.0, age_s=30)) == fine


@pytest.mark.parametrize(("age", "eu_only"), [(Age.OWN, True), (Age.NEWEST, False), (Age.OLDEST, True)])
def test_whose_age_counts_for_the_round_trip(age: Age, eu_only: bool) -> None:
    """The old one is 100 ms away and has waited long enough for that; the new one has not."""
    config = queue(LatencyRule(limit=Limit(value=60, expand=(Step(after_s=20, limit=120),)), age=age))
    near, far = party("a", {}, eu=20, us=500), party("b", {}, age_s=20, eu=100, us=500)
    assert agrees(config, near, far) == eu_only
    assert regions_of(config, (near, far), NOW_S) == ({"eu": 100} if eu_only else {})


@pytest.mark.parametrize(
    "rule",
    [
        DifferenceRule(attribute="x", limit=Limit(value=0)),
        MEAN,
        BatchDistanceRule(attribute="x", limit=Limit(value=0)),
        TeamBalanceRule(attribute="x", limit=Limit(value=0)),
        EqualRule(attribute="x"),
        InSetRule(attribute="x", values=(0.0,)),
        IntersectionRule(attribute="x"),
        ComparisonRule(attribute="x", operation=Operation.LESS, value=1),
        ComparisonRule(attribute="x", operation=Operation.EQUAL),
    ],
)
@pytest.mark.parametrize("age", Age)
def test_a_rule_that_has_become_optional_is_not_asked(rule: Rule, age: Age) -> None:
    """At its age exactly: of both by `own` and `newest`, of the older one by `oldest`. In-set and comparisons go by each ticket's own."""
    config = queue(replace(rule, optional_after_s=30.0, age=age))
    assert not agrees(config, one("a", 0.0, age_s=29.9), one("b", 99.0, age_s=29.9))
    assert agrees(config, one("a", 0.0, age_s=30), one("b", 99.0, age_s=30))
    alone = isinstance(rule, InSetRule) or (isinstance(rule, ComparisonRule) and rule.value is not None)
    assert agrees(config, one("a", 0.0), one("b", 99.0, age_s=30)) == (age is Age.OLDEST or (alone and age is Age.OWN))


def test_an_intersection_relaxes_to_fewer_values() -> None:
    config = queue(
        IntersectionRule(attribute="x", minimum=2, expand=(Step(after_s=10, limit=1), Step(after_s=20, limit=0)))
    )
    for age_s, shared, fine in ((9.9, 2, True), (9.9, 1, False), (10, 1, True), (10, 0, False), (20, 0, True)):
        other = ("p", "q", "r")[: 2 - shared] + ("s", "t")[:shared]
        assert agrees(config, one("a", ("s", "t"), age_s=age_s), one("b", other, age_s=age_s)) == fine


def test_a_soft_rule_forbids_nothing_and_costs_quality() -> None:
    config = queue(EqualRule(attribute="x", weight=2), DifferenceRule(attribute="y", limit=Limit(value=10)))
    same = [party("a", {"x": 1.0, "y": 0.0}), party("b", {"x": 1.0, "y": 5.0})]
    other = [party("a", {"x": 1.0, "y": 0.0}), party("b", {"x": 2.0, "y": 5.0})]
    assert [form_matches(config, pool, NOW_S)[0].quality for pool in (same, other)] == [
        pytest.approx(1 - 0.5 / 3),
        pytest.approx(1 - 2.5 / 3),
    ]
    for pool in (same, other):
        assert quality(config, [(pool[0],), (pool[1],)], NOW_S) == form_matches(config, pool, NOW_S)[0].quality


@pytest.mark.parametrize("limit", [0, 10])
def test_a_number_that_is_missing_is_as_bad_as_can_be(limit: float) -> None:
    config = queue(DifferenceRule(attribute="x", limit=Limit(value=limit), optional_after_s=10))
    (match,) = form_matches(config, [one("a", 1.0, age_s=15), one("b", age_s=15)], NOW_S)
    assert match.quality == quality(config, match.teams, NOW_S) == 0.0


# ---- teams, turns, strangers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("age_s", "fine"), [(9.9, False), (10, True)])
def test_a_team_above_its_minimum_is_not_waited_for_for_ever(age_s: float, fine: bool) -> None:
    teams = (Team(name="a", players=3, minimum=1), Team(name="b", players=3, minimum=1))
    for config in (
        replace(queue(), teams=teams, wait_for_full_s=10),
        replace(queue(), teams=teams, wait_for_full_s=500, max_wait_s=10),
    ):
        assert bool(form_matches(config, [one("a", age_s=age_s), one("b")], NOW_S)) == fine


def test_every_role_has_its_player_and_a_flexible_one_makes_room() -> None:
    team = Team(name="a", players=3, roles=(Role(name="tank", players=1), Role(name="healer", players=1)))
    config = replace(queue(), teams=(team,))
    roles: dict[str, Attribute] = {"any": ("tank", "healer"), "tank": "tank", "none": "dps"}
    pool = [one(name, role, attribute="role") for name, role in roles.items()]
    (match,) = form_matches(config, pool, NOW_S)
    assert match.roles == {"tank0": "tank", "any0": "healer"}
    assert roles_of(team, [t.players[0] for t in match.tickets], "role") == match.roles
    assert form_matches(config, [pool[0], pool[2], one("none2", "dps", attribute="role")], NOW_S) == []


def test_a_priority_is_a_head_start_and_no_more() -> None:
    config = replace(queue(), priorities={"premium": 30.0})
    pool = [one("a", age_s=40), replace(one("p", age_s=5), priority="premium"), one("b", age_s=20), one("c", age_s=1)]
    matches = form_matches(config, pool, NOW_S)
    assert [{ticket.id for ticket in match.tickets} for match in matches] == [{"a", "p"}, {"b", "c"}]


def test_an_overdue_ticket_goes_before_all_others() -> None:
    config = replace(
        queue(DifferenceRule(attribute="x", limit=Limit(value=10))), priorities={"premium": 500.0}, max_wait_s=60
    )
    pool = [one("late", 0.0, age_s=61), replace(one("p", 9.0, age_s=5), priority="premium"), one("only", 9.5, age_s=1)]
    matches = form_matches(config, pool, NOW_S)
    assert len(matches) == 1
    assert TicketId("late") in {ticket.id for ticket in matches[0].tickets}


@pytest.mark.parametrize(("age_s", "meets"), [(29.9, False), (30, True)])
def test_blocked_players_never_meet_and_avoided_ones_late(age_s: float, meets: bool) -> None:
    def shy(**whom: tuple[PlayerId, ...]) -> Ticket:
        return replace(one("a", age_s=age_s), players=(TicketPlayer(id=PlayerId("a0"), **whom),))

    assert not agrees(queue(), shy(blocked=(PlayerId("b0"),)), one("b", age_s=99))
    assert agrees(queue(), shy(avoided=(PlayerId("b0"),)), one("b", age_s=99)) == meets
    assert agrees(queue(), shy(avoided=(PlayerId("c0"),)), one("b", age_s=99))
