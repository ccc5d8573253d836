"""FlexMatch rule sets: what each rule type, expansion and expression becomes."""

import json
from pathlib import Path
from typing import Any

import pytest

from fleets.importers.draft import ImportFailed, Kind
from fleets.importers.importing import Imported, Source, import_file
from fleets.spec.loader import load

DUEL = {"name": "red", "minPlayers": 1, "maxPlayers": 1}
ATTRIBUTES = [
    {"name": "skill", "type": "number"},
    {"name": "mode", "type": "string"},
    {"name": "maps", "type": "string_list"},
    {"name": "class", "type": "string_list"},
]


def imported(tmp_path: Path, document: Any, **options: Any) -> Imported:
    path = tmp_path / "rules.json"
    path.write_text(json.dumps(document))
    return import_file(path, **options)


def queue_of(tmp_path: Path, result: Imported) -> dict[str, Any]:
    path = tmp_path / "out.yaml"
    path.write_text(result.yaml)
    specs = load([path])
    return specs.queues[0].model_dump(by_alias=True, exclude_unset=True)["spec"]


def rules_of(
    tmp_path: Path, *rules: dict[str, Any], size: int = 1, teams: Any = None, **more: Any
) -> tuple[Any, Imported]:
    """The rules that these become, for two teams of `size`."""
    document = {
        "name": "Ranked Duel",
        "ruleLanguageVersion": "1.0",
        "playerAttributes": ATTRIBUTES,
        "teams": teams
        or [{"name": "red", "minPlayers": size, "maxPlayers": size}, {"name": "blue", "minPlayers": size, "maxPlayers": size}],
        "rules": [{"name": f"r{index}", **rule} for index, rule in enumerate(rules)],
        **more,
    }  # fmt: skip
    result = imported(tmp_path, document)
    return queue_of(tmp_path, result)["rules"], result


ALL = "teams[*].players.attributes[skill]"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"type": "batchDistance", "batchAttribute": "skill", "maxDistance": "50"}, {"type": "difference", "attribute": "skill", "max": 50.0}),
        ({"type": "batchDistance", "batchAttribute": "mode"}, {"type": "equal", "attribute": "mode"}),
        (
            {"type": "comparison", "measurements": [f"flatten({ALL})"], "operation": ">=", "referenceValue": 20},
            {"type": "comparison", "attribute": "skill", "is": ">=", "value": 20.0},
        ),
        (
            {"type": "comparison", "measurements": ["flatten(teams[*].players.attributes[mode])"], "operation": "!="},
            {"type": "comparison", "attribute": "mode", "is": "!="},
        ),
        (
            {"type": "comparison", "measurements": ["flatten(teams[*].players.attributes[mode])"], "operation": "="},
            {"type": "equal", "attribute": "mode"},
        ),
        (
            {"type": "distance", "measurements": [f"flatten({ALL})"], "referenceValue": f"avg(flatten({ALL}))", "maxDistance": 10},
            {"type": "difference", "attribute": "skill", "max": 10.0, "to": "mean"},
        ),
        (
            {"type": "distance", "measurements": [f"max(flatten({ALL}))"], "referenceValue": f"min(flatten({ALL}))", "maxDistance": 10},
            {"type": "difference", "attribute": "skill", "max": 10.0},
        ),
        (
            {"type": "distance", "measurements": [f"avg({ALL})"], "referenceValue": f"avg(flatten({ALL}))", "maxDistance": 10},
            {"type": "teamBalance", "attribute": "skill", "max": 20.0},
        ),
        (
            {
                "type": "distance",
                "measurements": ["sum(teams[red].players.attributes[skill])"],
                "referenceValue": "sum(teams[blue].players.attributes[skill])",
                "maxDistance": 10,
            },
            {"type": "teamBalance", "attribute": "skill", "max": 10.0, "by": "sum"},
        ),
        (
            {
                "type": "distance",
                "measurements": ["count(teams[red].players)"],
                "referenceValue": "count(teams[blue].players)",
                "maxDistance": 1,
            },
            {"type": "teamSize", "max": 1.0},
        ),
        (
            {"type": "distance", "measurements": [f"max(avg({ALL}))"], "referenceValue": f"min(avg({ALL}))", "maxDistance": 7},
            {"type": "teamBalance", "attribute": "skill", "max": 7.0},
        ),
        (
            {"type": "collection", "operation": "intersection", "measurements": ["flatten(teams[*].players.attributes[maps])"], "minCount": 2},
            {"type": "intersection", "attribute": "maps", "min": 2},
        ),
        (
            {
                "type": "collection",
                "operation": "reference_intersection_count",
                "measurements": ["flatten(teams[*].players.attributes[maps])"],
                "referenceValue": ["ice", "fire"],
                "minCount": 1,
            },
            {"type": "inSet", "attribute": "maps", "values": ["ice", "fire"]},
        ),
        ({"type": "latency", "maxLatency": 150}, {"type": "latency", "max": 150.0}),
    ],
)  # fmt: skip
def test_rules_with_an_equal(tmp_path: Path, rule: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each rule type becomes its equal, and nothing is noted where it is exact."""
    rules, result = rules_of(tmp_path, rule)
    assert rules == [expected]
    assert result.notes == () or result.notes[0].path == "name"


def test_a_distance_to_a_constant_is_two_comparisons(tmp_path: Path) -> None:
    """|x - 50| ≤ 5 is 45 ≤ x ≤ 55."""
    rules, _ = rules_of(
        tmp_path, {"type": "distance", "measurements": [f"flatten({ALL})"], "referenceValue": 50, "maxDistance": 5}
    )
    assert [(rule["is"], rule["value"]) for rule in rules] == [(">=", 45), ("<=", 55)]


def test_party_numbers_are_exact_or_stricter(tmp_path: Path) -> None:
    """An average of a party is an aggregate of a difference, and every member's number in a comparison."""
    rules, result = rules_of(
        tmp_path,
        {"type": "batchDistance", "batchAttribute": "skill", "maxDistance": 5, "partyAggregation": "max"},
        {"type": "comparison", "measurements": [f"flatten({ALL})"], "operation": ">=", "referenceValue": 9, "partyAggregation": "avg"},
        {"type": "comparison", "measurements": [f"flatten({ALL})"], "operation": ">=", "referenceValue": 8, "partyAggregation": "min"},
        size=4,
    )  # fmt: skip
    assert rules[0]["aggregate"] == "max"
    assert [note.path for note in result.notes if note.kind is Kind.APPROXIMATED] == ["name", "rules[r1]"]


def test_expansions(tmp_path: Path) -> None:
    """Steps go with their rule, by the newest ticket or as the algorithm says; those of nothing are noted."""
    expansions = [
        {
            "target": "rules[r0].maxDistance",
            "steps": [{"waitTimeSeconds": 30, "value": 200}, {"waitTimeSeconds": 10, "value": "100"}],
        },
        {"target": "rules[r1].maxLatency", "steps": [{"waitTimeSeconds": 5, "value": 250}]},
        {"target": "rules[r2].minCount", "steps": [{"waitTimeSeconds": 5, "value": 1}]},
        {"target": "rules[r3].maxDistance", "steps": [{"waitTimeSeconds": 5, "value": 15}]},
        {"target": "rules[gone].maxDistance", "steps": [{"waitTimeSeconds": 5, "value": 1}]},
    ]
    rules, result = rules_of(
        tmp_path,
        {"type": "batchDistance", "batchAttribute": "skill", "maxDistance": 50},
        {"type": "latency", "maxLatency": 100},
        {"type": "collection", "operation": "intersection", "measurements": ["flatten(teams[*].players.attributes[maps])"], "minCount": 3},
        {"type": "distance", "measurements": [f"avg({ALL})"], "referenceValue": f"avg(flatten({ALL}))", "maxDistance": 10},
        expansions=expansions,
        algorithm={"expansionAgeSelection": "oldest", "strategy": "exhaustiveSearch"},
    )  # fmt: skip
    assert rules[0]["expand"] == [{"after": 10.0, "max": 100}, {"after": 30.0, "max": 200}]
    assert {rule["age"] for rule in rules} == {"oldest"}
    assert rules[1]["expand"] == [{"after": 5.0, "max": 250.0}]
    assert rules[2]["expand"] == [{"after": 5.0, "min": 1}]
    assert rules[3]["expand"] == [{"after": 5.0, "max": 30}]
    assert "expansions[rules[gone].maxDistance]" in [note.path for note in result.notes]


def test_teams(tmp_path: Path) -> None:
    """Sizes, copies, and a team that starts smaller after a while."""
    document = {
        "name": "hunt",
        "ruleLanguageVersion": "1.0",
        "teams": [{"name": "monster", "minPlayers": 1, "maxPlayers": 1}, {"name": "hunters", "minPlayers": 4, "maxPlayers": 4, "quantity": 2}],
        "expansions": [{"target": "teams[hunters].minPlayers", "steps": [{"waitTimeSeconds": 20, "value": 2}]}],
    }  # fmt: skip
    result = imported(tmp_path, document)
    spec = queue_of(tmp_path, result)
    assert spec["teams"] == [{"name": "monster", "players": 1}, {"name": "hunters", "players": 4, "min": 2, "count": 2}]
    assert spec["waitForFull"] == 20.0
    assert spec["party"]["max"] == 4


def test_roles(tmp_path: Path) -> None:
    """A team that must contain a class has places for that role."""
    teams = [{"name": "red", "minPlayers": 5, "maxPlayers": 5}, {"name": "blue", "minPlayers": 5, "maxPlayers": 5}]
    contains = {"type": "collection", "operation": "contains", "referenceValue": "medic", "minCount": 1}
    document = {
        "name": "roles",
        "ruleLanguageVersion": "1.0",
        "playerAttributes": ATTRIBUTES,
        "teams": teams,
        "rules": [{"name": "Medics", "measurements": ["teams[*].players.attributes[class]"], **contains}],
    }
    spec = queue_of(tmp_path, imported(tmp_path, document))
    assert [team["roles"] for team in spec["teams"]] == [[{"name": "medic", "players": 1}]] * 2
    assert spec["roleAttribute"] == "class"


def test_compound(tmp_path: Path) -> None:
    """`and` asks for its parts; alternatives have no equal, and their parts are not asked alone."""
    strong = {"type": "comparison", "measurements": [f"flatten({ALL})"], "operation": ">", "referenceValue": 10}
    weak = {"type": "comparison", "measurements": [f"avg(flatten({ALL}))"], "operation": "<", "referenceValue": 90}
    rules, _ = rules_of(tmp_path, strong, weak, {"type": "compound", "statement": "and(r0, not(r1))"})
    assert [(rule["is"], rule["value"]) for rule in rules] == [(">", 10), (">=", 90)]
    path = tmp_path / "or"
    path.mkdir()
    spec, result = rules_of(path, strong, weak, {"type": "compound", "statement": "or(r0, r1)"})
    assert spec == []
    assert [note.path for note in result.notes if note.kind is Kind.DROPPED] == ["rules[r2]"]


@pytest.mark.parametrize(
    "rule",
    [
        {"type": "distanceSort", "sortDirection": "ascending", "sortAttribute": "skill"},
        {"type": "absoluteSort", "sortDirection": "descending", "sortAttribute": "skill", "mapKey": "maxValue"},
        {"type": "latency", "maxDistance": 50, "distanceReference": "min"},
        {"type": "collection", "operation": "intersection", "measurements": ["flatten(teams[*].players.attributes[maps])"], "maxCount": 2},
        {"type": "comparison", "measurements": [f"stddev(flatten({ALL}))"], "operation": "<", "referenceValue": 3},
        {"type": "comparison", "measurements": [f"odd(flatten({ALL}))"], "operation": "<", "referenceValue": 3},
    ],
)  # fmt: skip
def test_rules_without_an_equal_are_dropped_and_noted(tmp_path: Path, rule: dict[str, Any]) -> None:
    """What cannot be carried over is left out, never made laxer in silence."""
    rules, result = rules_of(tmp_path, rule)
    assert rules == []
    assert any(note.kind is Kind.DROPPED and note.path.startswith("rules[r0]") for note in result.notes)


def test_defaults_are_noted(tmp_path: Path) -> None:
    """A default value has to come from the client."""
    document = {
        "name": "d",
        "ruleLanguageVersion": "1.0",
        "playerAttributes": [{"name": "skill", "type": "number", "default": 10}],
        "teams": [DUEL],
    }
    notes = imported(tmp_path, document).notes
    assert [note.path for note in notes] == ["playerAttributes[skill].default"]


def test_an_answer_of_the_api_holds_a_rule_set(tmp_path: Path) -> None:
    """A rule set in a string, as the API has it."""
    body = json.dumps({"ruleLanguageVersion": "1.0", "teams": [DUEL]})
    assert imported(tmp_path, {"Name": "duel", "RuleSetBody": body}).queues == ("duel",)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"name": "x", "ruleLanguageVersion": "1.0"}, "teams: a rule set has one team at least"),
        ({"name": "x", "rules": [], "teams": [{"name": "a", "maxPlayers": 0}]}, "teams[0].maxPlayers: 0: a number from 1"),
        ({"name": "x", "rules": [], "teams": [{"name": "a", "maxPlayers": 1, "minPlayers": 3}]}, "3 is above maxPlayers 1"),
        ({"name": "x", "teams": [DUEL], "rules": [{"name": "r", "type": "magic"}]}, "rules[r].type: 'magic' is none of"),
        ({"name": "x", "teams": [DUEL], "rules": [{"type": "latency"}]}, "rules[0].name: is missing"),
        (
            {"name": "x", "teams": [DUEL], "rules": [{"name": "r", "type": "comparison", "operation": "=",
                "measurements": ["teams[b].players.attributes[x]"]}]},
            "there is no team 'b'",
        ),
        ({"name": "x", "teams": [DUEL], "rules": [{"name": "r", "type": "compound", "statement": "and(a, b)"}]}, "no rule 'a'"),
        ({"name": "x", "teams": [DUEL], "rules": [{"name": "r", "type": "batchDistance", "batchAttribute": "s", "maxDistance": "far"}]}, "'far'"),
        ({"hello": 1}, "is no rule set of FlexMatch"),
    ],
)  # fmt: skip
def test_bad_input_is_named(tmp_path: Path, document: dict[str, Any], said: str) -> None:
    """What is wrong is said with its place."""
    with pytest.raises(ImportFailed) as failed:
        imported(tmp_path, document, source=None if "hello" in document else Source.FLEXMATCH)
    assert said in str(failed.value)


def test_what_no_match_can_obey_fails(tmp_path: Path) -> None:
    """A result that `warmfleet validate` would refuse is no result."""
    rules = [
        {"name": f"r{value}", "type": "comparison", "measurements": [f"flatten({ALL})"], "operation": ">" if value else "<", "referenceValue": value}
        for value in (0, 9)
    ]  # fmt: skip
    document = {
        "name": "x",
        "ruleLanguageVersion": "1.0",
        "playerAttributes": ATTRIBUTES,
        "teams": [DUEL],
        "rules": rules,
    }
    with pytest.raises(ImportFailed, match="cannot be a valid queue"):
        imported(tmp_path, document)


def test_two_teams_of_equal_size(tmp_path: Path) -> None:
    """The comparison of two teams' counts for equality; of other teams, and for anything else, it has no equal."""
    teams = [{"name": name, "minPlayers": 2, "maxPlayers": 4} for name in ("red", "blue")]
    counts = {"measurements": ["count(teams[red].players)"], "referenceValue": "count(teams[blue].players)"}
    rules, result = rules_of(tmp_path, {"type": "comparison", "operation": "=", **counts}, teams=teams)
    assert rules == [{"type": "teamSize", "max": 0.0}]
    assert {note.path for note in result.notes} == {"name"}
    rules, _ = rules_of(tmp_path, {"type": "comparison", "operation": "<=", **counts}, teams=teams)
    assert rules == []


def test_teams_alike_are_measured_one_by_one(tmp_path: Path) -> None:
    """An average over `teams[*]` is each team's, also where one entry stands for several teams."""
    fair = {"type": "distance", "measurements": [f"avg({ALL})"], "referenceValue": f"avg(flatten({ALL}))"}
    teams = [{"name": "trio", "minPlayers": 3, "maxPlayers": 3, "quantity": 3}]
    rules, result = rules_of(tmp_path, {**fair, "maxDistance": 10}, teams=teams)
    assert rules == [{"type": "teamBalance", "attribute": "skill", "max": 10.0}]
    assert {note.kind for note in result.notes} == {Kind.APPROXIMATED}


def test_a_list_of_blocked_players_is_in_the_ticket(tmp_path: Path) -> None:
    rule = {
        "type": "collection",
        "operation": "reference_intersection_count",
        "measurements": "flatten(teams[*].players.attributes[maps])",
        "referenceValue": "flatten(teams[*].players[playerId])",
        "maxCount": 0,
    }
    rules, result = rules_of(tmp_path, rule)
    assert rules == []
    assert [note.message for note in result.notes if "`blocked`" in note.message]
