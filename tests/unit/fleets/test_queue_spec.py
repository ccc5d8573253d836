"""Queues in YAML: what each rule becomes, and the mistakes that are named."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleets.spec.convert import to_queue_config
from fleets.spec.loader import SpecError, load
from matchmaker.matching.wire import decode_queue, encode_queue
from matchmaker.model import (
    Age,
    Aggregate,
    AttributeType,
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
    Reference,
    Role,
    Rule,
    Step,
    Team,
    TeamBalanceRule,
    TeamSizeRule,
)

FLEET = {
    "apiVersion": "warmfleet.dev/v1",
    "kind": "Fleet",
    "metadata": {"name": "arena", "labels": {"region": "eu"}},
    "spec": {"server": {"game": "gameserver.games.arena:Arena", "seats": 40}},
}


def read(tmp_path: Path, **spec: Any) -> QueueConfig:
    body = {"fleets": ["arena"], "teams": [{"name": "red", "players": 2}, {"name": "blue", "players": 2}], **spec}
    queue = {"apiVersion": "warmfleet.dev/v1", "kind": "Queue", "metadata": {"name": "ranked"}, "spec": body}
    file = tmp_path / "queue.yaml"
    file.write_text(yaml.safe_dump_all([FLEET, queue]))
    specs = load([file])
    return to_queue_config(specs.queues[0], specs.fleets)


def problem(tmp_path: Path, **spec: Any) -> str:
    with pytest.raises(SpecError) as caught:
        read(tmp_path, **spec)
    return str(caught.value)


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (
            {
                "type": "difference",
                "attribute": "skill[tank]",
                "max": 10,
                "to": "mean",
                "aggregate": "max",
                "age": "oldest",
            },
            DifferenceRule(
                attribute="skill[tank]",
                limit=Limit(value=10),
                to=Reference.MEAN,
                aggregate=Aggregate.MAX,
                age=Age.OLDEST,
            ),
        ),
        (
            {
                "type": "batchDistance",
                "attribute": "rating",
                "max": 5,
                "ramp": True,
                "expand": [{"after": "10s", "max": 9}],
            },
            BatchDistanceRule(
                attribute="rating", limit=Limit(value=5, expand=(Step(after_s=10, limit=9),), linear=True)
            ),
        ),
        (
            {"type": "latency", "max": "60ms", "minimise": True, "age": "newest", "optionalAfter": "1m"},
            LatencyRule(limit=Limit(value=60), minimise=True, age=Age.NEWEST, optional_after_s=60),
        ),
        ({"type": "equal", "attribute": "mode", "weight": 2}, EqualRule(attribute="mode", weight=2)),
        (
            {"type": "inSet", "attribute": "mode", "values": ["ctf", 3]},
            InSetRule(attribute="mode", values=("ctf", 3.0)),
        ),
        (
            {"type": "intersection", "attribute": "maps", "min": 2, "expand": [{"after": "20s", "min": 1}]},
            IntersectionRule(attribute="maps", minimum=2, expand=(Step(after_s=20, limit=1),)),
        ),
        (
            {"type": "teamBalance", "attribute": "rating", "max": 50, "by": "sum"},
            TeamBalanceRule(attribute="rating", limit=Limit(value=50), by_sum=True),
        ),
        ({"type": "teamSize", "max": 1}, TeamSizeRule(limit=Limit(value=1))),
        (
            {"type": "comparison", "attribute": "level", "is": ">=", "value": 10},
            ComparisonRule(attribute="level", operation=Operation.AT_LEAST, value=10),
        ),
        (
            {"type": "comparison", "attribute": "hero", "is": "!="},
            ComparisonRule(attribute="hero", operation=Operation.UNEQUAL),
        ),
    ],
)
def test_every_rule_is_read_and_crosses_to_the_matching_process(
    tmp_path: Path, body: dict[str, Any], rule: Rule
) -> None:
    queue = read(tmp_path, rules=[body])
    assert queue.rules == (rule,)
    assert decode_queue(encode_queue(queue)) == queue


def test_everything_else_of_a_queue_is_read(tmp_path: Path) -> None:
    queue = read(
        tmp_path,
        teams=[
            {"name": "hunters", "players": 4, "min": 2, "roles": [{"name": "tank", "players": 1}]},
            {"name": "squad", "players": 3, "count": 2},
        ],
        attributes={"rating": "number", "maps": "stringList", "skill": "numberMap", "class": "string"},
        party={"max": 3, "aggregate": "max"},
        waitForFull="10s",
        maxWait="45s",
        priorities={"premium": "30s"},
        avoidFor="1m",
        roleAttribute="class",
        match="studio.matching:by_clan",
    )
    assert queue.teams == (
        Team(name="hunters", players=4, minimum=2, roles=(Role(name="tank", players=1),)),
        Team(name="squad-1", players=3),
        Team(name="squad-2", players=3),
    )
    assert queue.attributes["skill"] is AttributeType.NUMBER_MAP
    assert (queue.wait_for_full_s, queue.max_wait_s, queue.avoid_for_s) == (10, 45, 60)
    assert queue.priorities == {"premium": 30}
    assert (queue.role_attribute, queue.match_function, queue.match_function_checked) == (
        "class",
        "studio.matching:by_clan",
        True,
    )
    assert read(tmp_path).max_wait_s == math.inf


DIFFERENCE = {"type": "difference", "attribute": "rating", "max": 1}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"rules": [{**DIFFERENCE, "wieght": 1}]}, "did you mean weight?"),
        ({"rules": [{**DIFFERENCE, "type": "diference"}]}, "difference"),
        ({"rules": [{**DIFFERENCE, "max": math.nan}]}, "spec.rules[0].max"),
        ({"rules": [{**DIFFERENCE, "max": math.inf}]}, "spec.rules[0].max"),
        ({"rules": [{**DIFFERENCE, "attribute": "skill[]"}]}, "spec.rules[0].attribute"),
        ({"rules": [{**DIFFERENCE, "age": "eldest"}]}, "spec.rules[0].age"),
        ({"rules": [{**DIFFERENCE, "weight": 1, "optionalAfter": "3s"}]}, "drop one of weight and optionalAfter"),
        ({"rules": [{"type": "comparison", "attribute": "a", "is": ">", "value": "x"}]}, "compares with a number"),
        ({"teams": [{"name": "a", "players": 2, "min": 3}]}, "the team could never start"),
        ({"teams": [{"name": "a", "players": 2, "roles": [{"name": "tank", "players": 3}]}]}, "roles want 3 players"),
        ({"teams": [{"name": "a", "players": 2, "count": 2}, {"name": "a-1", "players": 1}]}, "two have the same name"),
        ({"match": "no function"}, "spec.match"),
        ({"teams": [{"name": "a", "players": 9, "count": 5}]}, "a match has 45 players, but fleet arena has 40 seats"),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path: Path, spec: dict[str, Any], words: str) -> None:
    assert words in problem(tmp_path, **spec)


def comparison(attribute: str, operation: str, value: Any = None) -> dict[str, Any]:
    constant = {} if value is None else {"value": value}
    return {"type": "comparison", "attribute": attribute, "is": operation, **constant}


def in_set(attribute: str, *values: Any) -> dict[str, Any]:
    return {"type": "inSet", "attribute": attribute, "values": list(values)}


MAPS = {"type": "intersection", "attribute": "rating"}
SAME = {"type": "equal", "attribute": "m"}
TANK = {"name": "a", "players": 2, "roles": [{"name": "tank", "players": 1}]}
UNEVEN = [{"name": "a", "players": 1}, {"name": "b", "players": 4}]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"rules": [{"type": "latency", "max": "0ms"}]}, "spec.rules[0]: no match can ever obey it: no round trip"),
        (
            {"rules": [{"type": "latency", "max": "0ms", "expand": [{"after": "5m", "max": "90ms"}]}]},
            "no round trip is 0 ms",
        ),
        ({"teams": UNEVEN, "rules": [{"type": "teamSize", "max": 2}]}, "sizes differ by 3 at least"),
        (
            {"teams": UNEVEN, "rules": [{"type": "teamSize", "max": 2, "expand": [{"after": "2m", "max": 3}]}]},
            "sizes differ by 3 at least",
        ),
        ({"rules": [DIFFERENCE], "attributes": {"rank": "number"}}, "declares no 'rating'"),
        ({"rules": [DIFFERENCE], "attributes": {"rating": "string"}}, "declared a string"),
        ({"rules": [comparison("x", ">", 5)], "attributes": {"x": "string"}}, "the rule wants a number"),
        ({"rules": [in_set("x", "a")], "attributes": {"x": "number"}}, "no x obeys it"),
        ({"rules": [in_set("x", 1, 2)], "attributes": {"x": "stringList"}}, "no x obeys it"),
        ({"rules": [comparison("level", ">", 5), comparison("level", "<=", 5)]}, "spec.rules[1]: no match can ever"),
        ({"rules": [comparison("x", ">=", 3), comparison("x", "<=", 3), comparison("x", "!=", 3)]}, "rules[2]"),
        ({"rules": [in_set("m", "x"), in_set("m", "y")], "attributes": {"m": "string"}}, "no m obeys it"),
        ({"rules": [SAME, comparison("m", "!=")]}, "every player's m is to be another, and all the same"),
        ({"rules": [comparison("m", "="), comparison("m", "!=")]}, "to be another, and all the same"),
        ({"rules": [comparison("m", "=", 5), comparison("m", "!=")]}, "one of 4 players or more is to have another m"),
        ({"rules": [in_set("m", 1, 2, 3), comparison("m", "!=")]}, "and there are 3"),
        (
            {"rules": [comparison("rating", "!="), {"type": "batchDistance", "attribute": "rating", "max": 0}]},
            "to be another, and none to differ",
        ),
        ({"rules": [in_set("m", "x", "z"), comparison("m", "=", "y")]}, "no m obeys it and those before"),
        ({"rules": [comparison("m", "=", v) for v in ("x", "y")]}, "no m obeys it and those before"),
        ({"rules": [in_set("level", 1, 2, "three"), comparison("level", ">", 2)]}, "no level obeys it"),
        ({"rules": [DIFFERENCE, MAPS]}, "no rating obeys it and those before"),
        ({"rules": [DIFFERENCE, {**DIFFERENCE, "attribute": "rating[tank]"}]}, "no rating[tank] obeys it"),
        ({"ratings": {}, "rules": [comparison("rating", "=", "gold")]}, "no rating obeys it"),
        (
            {
                "teams": [{"name": "a", "players": 1}, {"name": "b", "players": 3}],
                "rules": [
                    comparison("rating", ">=", 100),
                    comparison("rating", "<=", 110),
                    {"type": "teamBalance", "attribute": "rating", "by": "sum", "max": 50},
                ],
            },
            "the teams' sums of rating differ by 190 at least",
        ),
        ({"teams": [TANK], "attributes": {"rating": "number"}}, "declares no 'role'"),
        ({"teams": [TANK], "attributes": {"role": "number"}}, "nobody can take the role tank"),
        ({"teams": [TANK], "attributes": {"role": "string"}, "rules": [in_set("role", "dps")]}, "the role tank"),
        (
            {
                "teams": [{**TANK, "roles": [{"name": r, "players": 1} for r in ("tank", "healer")]}],
                "attributes": {"role": "string"},
                "rules": [{"type": "equal", "attribute": "role"}],
            },
            "tank and healer are different roles",
        ),
        ({"maxTickets": 3}, "maxTickets: 3 may wait, and a match takes 4"),
        ({"party": {"max": 3}}, "such a party would never be matched"),
    ],
)
def test_rules_that_no_match_can_ever_obey_are_found(tmp_path: Path, spec: dict[str, Any], words: str) -> None:
    assert words in problem(tmp_path, **spec)


def test_a_rule_that_becomes_optional_in_time_may_be_impossible_until_then(tmp_path: Path) -> None:
    rule = {"type": "latency", "max": "0ms"}
    assert read(tmp_path, rules=[{**rule, "optionalAfter": "30s"}]).rules
    assert "no round trip" in problem(tmp_path, rules=[{**rule, "optionalAfter": "3m"}])


def test_a_match_function_that_is_not_checked_may_break_any_rule(tmp_path: Path) -> None:
    rules = [comparison("x", ">", 5), comparison("x", "<", 5)]
    function = {"function": "studio.matching:by_clan"}
    assert read(tmp_path, rules=rules, match={**function, "rules": "unchecked"}).rules
    assert "no x obeys it" in problem(tmp_path, rules=rules, match=function)


def test_more_may_wait_and_parties_take_fewer_tickets(tmp_path: Path) -> None:
    assert read(tmp_path, maxTickets=2, party={"max": 2}).max_tickets == 2
    assert read(tmp_path, maxTickets=4).max_tickets == 4


def test_a_shadow_is_apart_from_the_queues_that_take_tickets(tmp_path: Path) -> None:
    teams = [{"name": "all", "players": 2}]
    documents = [FLEET] + [
        {
            "apiVersion": "warmfleet.dev/v1",
            "kind": "Queue",
            "metadata": {"name": name},
            "spec": {"fleets": ["arena"], "teams": teams, **shadow},
        }
        for name, shadow in (("ranked", {}), ("trial", {"shadow": {"of": "ranked"}}))
    ]
    file = tmp_path / "queues.yaml"
    file.write_text(yaml.safe_dump_all(documents))
    specs = load([file])
    assert [queue.metadata.name for queue in specs.queues] == ["ranked"]
    assert [queue.metadata.name for queue in specs.shadows] == ["trial"]


def test_a_shadow_is_of_a_queue_that_takes_tickets(tmp_path: Path) -> None:
    assert "no Queue that takes tickets is named 'ranked'" in problem(tmp_path, shadow={"of": "ranked"})


def test_ratings_are_read_and_want_a_number(tmp_path: Path) -> None:
    assert read(tmp_path).ratings is None
    plain = read(tmp_path, ratings={}).ratings
    assert plain is not None
    assert (plain.model, plain.attribute, plain.initial, plain.spread) == ("plackettLuce", "rating", 1500, 500)
    chosen = read(
        tmp_path, ratings={"model": "bradleyTerryFull", "attribute": "mmr", "initial": 0, "spread": 8}
    ).ratings
    assert chosen is not None
    assert (chosen.model, chosen.attribute, chosen.initial) == ("bradleyTerryFull", "mmr", 0)
    assert "ratings.attribute" in problem(tmp_path, attributes={"rating": "string"}, ratings={})
    assert "spread" in problem(tmp_path, ratings={"spread": 0})
    assert "model" in problem(tmp_path, ratings={"model": "elo"})


@pytest.mark.parametrize(
    "rules",
    [
        [{"type": "inSet", "attribute": "m", "values": [value]} for value in ("x", "y")],
        [
            {"type": "inSet", "attribute": "m", "values": ["x"]},
            {"type": "comparison", "attribute": "m", "is": "!=", "value": "x"},
        ],
    ],
)
def test_a_list_may_obey_what_no_single_value_does(tmp_path: Path, rules: list[dict[str, Any]]) -> None:
    assert len(read(tmp_path, rules=rules, attributes={"m": "stringList"}).rules) == 2
