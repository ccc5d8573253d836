"""Unity Matchmaker queues: pools, teams, rules, relaxations."""

import json
from pathlib import Path
from typing import Any

import pytest

from fleets.importers.draft import ImportFailed, Kind
from fleets.importers.importing import Imported, Source, import_file
from fleets.spec.loader import load


def pool(*rules: dict[str, Any], name: str = "main", teams: Any = None, **more: Any) -> dict[str, Any]:
    teams = teams or [{"name": "Side", "teamCount": {"min": 2, "max": 2}, "playerCount": {"min": 2, "max": 2}}]
    definition = {"teams": teams, "matchRules": [{"name": f"r{index}", **rule} for index, rule in enumerate(rules)]}
    return {
        "name": name,
        "enabled": True,
        "matchLogic": {"name": "Rules", "matchDefinition": definition, **more.pop("logic", {})},
        **more,
    }


def queue(default: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "arena", "enabled": True, "maxPlayersPerTicket": 2, "defaultPool": default, **more}


def imported(tmp_path: Path, document: Any) -> tuple[list[dict[str, Any]], Imported]:
    path = tmp_path / "queue.mmq"
    path.write_text(json.dumps(document))
    result = import_file(path)
    assert result.source is Source.UNITY
    out = tmp_path / "out.yaml"
    out.write_text(result.yaml)
    return [q.model_dump(by_alias=True, exclude_unset=True)["spec"] for q in load([out]).queues], result


SKILL = "Players.CustomData.skill"
RELAX = [
    {"type": "ReferenceControl.Replace", "ageType": "Oldest", "atSeconds": 10, "value": 20},
    {"type": "RuleControl.Disable", "ageType": "Oldest", "atSeconds": 30},
]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (
            {"type": "Difference", "source": SKILL, "reference": 5, "relaxations": RELAX},
            {"type": "batchDistance", "attribute": "skill", "max": 5.0, "expand": [{"after": 10.0, "max": 20}], "optionalAfter": 30.0, "age": "oldest"},
        ),
        ({"type": "Equality", "source": "Players.CustomData.mode"}, {"type": "equal", "attribute": "mode"}),
        ({"Type": "Equality", "Source": "Players.CustomData.mode", "Reference": "x"}, {"type": "comparison", "attribute": "mode", "is": "=", "value": "x"}),
        ({"type": "GreaterThanEqual", "source": SKILL, "reference": 3}, {"type": "comparison", "attribute": "skill", "is": ">=", "value": 3.0}),
        ({"type": "LessThan", "source": SKILL, "reference": 3, "not": True}, {"type": "comparison", "attribute": "skill", "is": ">=", "value": 3.0}),
        ({"type": "GreaterThan", "source": "Players.CustomData.levels.tank", "reference": 3}, {"type": "comparison", "attribute": "levels[tank]",
            "is": ">", "value": 3.0}),
        (
            {"type": "LessThanEqual", "source": "Players.QosResults.Latency", "reference": 60, "relaxations": [{"type": "ReferenceControl.Replace",
                "ageType": "Youngest", "atSeconds": 5, "value": 90}]},
            {"type": "latency", "max": 60.0, "expand": [{"after": 5.0, "max": 90.0}], "age": "newest"},
        ),
        ({"type": "InList", "source": "Players.CustomData.mode", "reference": ["a", "b"]}, {"type": "inSet", "attribute": "mode", "values": ["a", "b"]}),
        ({"type": "Intersection", "source": "Players.CustomData.maps", "overlap": 2}, {"type": "intersection", "attribute": "maps", "min": 2}),
    ],
)  # fmt: skip
def test_rules_with_an_equal(tmp_path: Path, rule: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each rule type becomes its equal, with its relaxations; keys may be in capitals."""
    specs, _ = imported(tmp_path, queue(pool(rule)))
    assert specs[0]["rules"] == [expected]


def test_pools_are_queues_and_filters_are_rules(tmp_path: Path) -> None:
    """Filtered pools come with their filters as rules, and each pool under its own name."""
    eu = pool(
        {"type": "Equality", "source": "Players.CustomData.mode"},
        name="eu",
        filters=[{"attribute": "region", "operator": "Equal", "value": "eu"}],
    )
    specs, result = imported(
        tmp_path, queue(pool(timeoutSeconds=45, logic={"backfillEnabled": True}, variants=[{}]), filteredPools=[eu])
    )
    assert result.queues == ("arena-eu", "arena-main")
    assert {"type": "comparison", "attribute": "region", "is": "=", "value": "eu"} in specs[0]["rules"]
    assert specs[1]["ticketTimeout"] == 45.0
    assert specs[1]["backfill"] == {"enabled": True}
    assert "defaultPool.variants" in {note.path for note in result.notes}


def test_sizes(tmp_path: Path) -> None:
    """Free for all is one team; a minimum that falls is waited for."""
    ffa = [{"name": "Solo", "teamCount": {"min": 2, "max": 8}, "playerCount": {"min": 1, "max": 1}}]
    specs, _ = imported(tmp_path, queue(pool(teams=ffa)))
    assert specs[0]["teams"] == [{"name": "Solo", "players": 8, "min": 2}]
    falling = {
        "min": 4,
        "max": 4,
        "relaxations": [{"type": "RangeControl.ReplaceMin", "ageType": "Oldest", "atSeconds": 25, "value": 3}],
    }
    specs, _ = imported(tmp_path, queue(pool(teams=[{"name": "T", "playerCount": falling}])))
    assert specs[0]["teams"] == [{"name": "T", "players": 4, "min": 3}]
    assert specs[0]["waitForFull"] == 25.0


@pytest.mark.parametrize(
    "rule",
    [
        {"type": "DoubleDifference", "source": SKILL, "reference": 5},
        {"type": "Difference", "source": "Players.QosResults.Latency", "reference": 5},
        {"type": "Equality", "source": SKILL, "not": True},
        {"type": "Equality", "source": SKILL, "enableRule": False},
        {"type": "GreaterThan", "source": "Players.QosResults.Latency", "reference": 5},
    ],
)
def test_rules_without_an_equal_are_dropped_and_noted(tmp_path: Path, rule: dict[str, Any]) -> None:
    """What cannot be carried over is left out and said."""
    specs, result = imported(tmp_path, queue(pool(rule)))
    assert specs[0].get("rules", []) == []
    assert [note.path for note in result.notes if note.kind is Kind.DROPPED] == ["matchRules[r0]"]


def test_a_rule_that_comes_on_later_is_on_from_the_start(tmp_path: Path) -> None:
    """Stricter, and noted."""
    later = [{"type": "RuleControl.Enable", "ageType": "Average", "atSeconds": 10}]
    specs, result = imported(
        tmp_path, queue(pool({"type": "Equality", "source": SKILL, "enableRule": False, "relaxations": later}))
    )
    assert [rule["type"] for rule in specs[0]["rules"]] == ["equal"]
    assert [note.kind for note in result.notes] == [Kind.APPROXIMATED]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (queue({}), "defaultPool: a queue has one pool at least"),
        (queue(pool({"type": "Odd", "source": SKILL})), "matchRules[r0].type: 'Odd' is no rule"),
        (queue(pool({"type": "Difference", "source": SKILL, "reference": "x"})), "matchRules[r0].reference: 'x'"),
        (queue(pool(teams=[{"name": "T"}])), "playerCount.min: None"),
        (queue(pool(filters=[{"attribute": "a", "operator": "Odd", "value": 1}])), "no operator of a filter"),
    ],
)
def test_bad_input_is_named(tmp_path: Path, document: dict[str, Any], said: str) -> None:
    """What is wrong is said with its place."""
    with pytest.raises(ImportFailed) as failed:
        imported(tmp_path, document)
    assert said in str(failed.value)


def chosen(name: str, players: dict[str, int]) -> dict[str, Any]:
    rule = {"name": "own", "type": "Equality", "source": "Players.CustomData.side", "reference": name.lower()}
    return {"name": name, "playerCount": players, "teamRules": [rule]}


def test_a_team_that_its_players_chose_has_places_for_them_alone(tmp_path: Path) -> None:
    """The value that a team's rule wants is a role of all of its places; a team of no fixed size has no equal."""
    five = {"min": 5, "max": 5}
    specs, result = imported(tmp_path, queue(pool(teams=[chosen("Red", five), chosen("Blue", five)])))
    assert [team["roles"] for team in specs[0]["teams"]] == [
        [{"name": "red", "players": 5}],
        [{"name": "blue", "players": 5}],
    ]
    assert (specs[0]["roleAttribute"], specs[0].get("rules", []), result.notes) == ("side", [], ())
    _, result = imported(tmp_path, queue(pool(teams=[chosen("Red", {"min": 3, "max": 5}), chosen("Blue", five)])))
    assert [note.path for note in result.notes if note.kind is Kind.DROPPED] == ["teams[Red].teamRules[own]"]
