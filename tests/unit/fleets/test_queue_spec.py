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
        attributes={"rating": "number", "maps": "stringList", "skill": "numberMap", "mode": "string"},
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


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"rules": [{"type": "latency", "max": "0ms"}]}, "no round trip is 0 ms"),
        (
            {
                "teams": [{"name": "a", "players": 1}, {"name": "b", "players": 4}],
                "rules": [{"type": "teamSize", "max": 2}],
            },
            "sizes differ by 3 at least",
        ),
        ({"rules": [DIFFERENCE], "attributes": {"rank": "number"}}, "declares no 'rating'"),
        ({"rules": [DIFFERENCE], "attributes": {"rating": "string"}}, "declared a string"),
        (
            {
                "rules": [
                    {"type": "comparison", "attribute": "level", "is": ">", "value": 5},
                    {"type": "comparison", "attribute": "level", "is": "<=", "value": 5},
                ]
            },
            "rules[1]: no match can ever obey it and those before",
        ),
        (
            {"rules": [{"type": "inSet", "attribute": "m", "values": [v]} for v in ("x", "y")]},
            "no m is in every set",
        ),
        (
            {"rules": [{"type": "equal", "attribute": "m"}, {"type": "comparison", "attribute": "m", "is": "!="}]},
            "an equal rule wants one m of everyone",
        ),
        (
            {
                "rules": [
                    {"type": "inSet", "attribute": "m", "values": ["x", "z"]},
                    {"type": "comparison", "attribute": "m", "is": "=", "value": "y"},
                ]
            },
            "no match can ever obey the comparisons of m",
        ),
        (
            {"rules": [{"type": "comparison", "attribute": "m", "is": "=", "value": v} for v in ("x", "y")]},
            "no match can ever obey the comparisons of m",
        ),
        (
            {
                "rules": [
                    {"type": "inSet", "attribute": "level", "values": [1, 2, "three"]},
                    {"type": "comparison", "attribute": "level", "is": ">", "value": 2},
                ]
            },
            "no match can ever obey the comparisons of level",
        ),
        ({"party": {"max": 3}}, "such a party would never be matched"),
    ],
)
def test_rules_that_no_match_can_ever_obey_are_found(tmp_path: Path, spec: dict[str, Any], words: str) -> None:
    assert words in problem(tmp_path, **spec)


def test_a_rule_that_becomes_optional_in_time_may_be_impossible_until_then(tmp_path: Path) -> None:
    rule = {"type": "latency", "max": "0ms"}
    assert read(tmp_path, rules=[{**rule, "optionalAfter": "30s"}]).rules
    assert "no round trip" in problem(tmp_path, rules=[{**rule, "optionalAfter": "3m"}])


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
