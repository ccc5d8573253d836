"""PlayFab queues: every rule type, both forms, both kinds of expansion."""

import json
from pathlib import Path
from typing import Any

import pytest

from fleets.importers.draft import ImportFailed, Kind
from fleets.importers.importing import Imported, Source, import_file
from fleets.spec.loader import load

LEVEL = {"Path": "Level", "Source": "User"}


def queue(**more: Any) -> dict[str, Any]:
    return {
        "MatchmakingQueue": {"Name": "FourPlayers", "MinMatchSize": 4, "MaxMatchSize": 4, "MaxTicketSize": 1, **more}
    }


def imported(tmp_path: Path, document: Any) -> tuple[dict[str, Any], Imported]:
    path = tmp_path / "queue.json"
    path.write_text(json.dumps(document))
    result = import_file(path)
    assert result.source is Source.PLAYFAB
    out = tmp_path / "out.yaml"
    out.write_text(result.yaml)
    return load([out]).queues[0].model_dump(by_alias=True, exclude_unset=True)["spec"], result


TEAMS = [{"Name": "a", "MinTeamSize": 1, "MaxTeamSize": 3}, {"Name": "b", "MinTeamSize": 1, "MaxTeamSize": 3}]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (
            {"Type": "StringEqualityRule", "Attribute": LEVEL, "SecondsUntilOptional": 20},
            {"type": "equal", "attribute": "Level", "optionalAfter": 20.0},
        ),
        (
            {"Type": "StringEqualityRule", "Attribute": LEVEL, "Expansion": {"Type": "Custom", "SecondsBetweenExpansions": 5,
                "EnabledOverrides": [True, True, False]}},
            {"type": "equal", "attribute": "Level", "optionalAfter": 10.0},
        ),
        (
            {"Type": "DifferenceRule", "Attribute": LEVEL, "Difference": 2, "Expansion": {"Type": "Linear", "Delta": 1.5, "Limit": 4,
                "SecondsBetweenExpansions": 5}},
            {"type": "difference", "attribute": "Level", "max": 2.0, "expand": [{"after": 5.0, "max": 3.5}, {"after": 10.0, "max": 4}]},
        ),
        (
            {"Type": "DifferenceRule", "Attribute": LEVEL, "Difference": 9, "Expansion": {"Type": "Custom", "DifferenceOverrides": [1, 2, 5],
                "SecondsBetweenExpansions": 10}},
            {"type": "difference", "attribute": "Level", "max": 1.0, "expand": [{"after": 10.0, "max": 2}, {"after": 20.0, "max": 5}]},
        ),
        (
            {"Type": "SetIntersectionRule", "Attribute": LEVEL, "MinIntersectionSize": 3, "Expansion": {"Type": "Linear", "Delta": 2,
                "SecondsBetweenExpansions": 5}},
            {"type": "intersection", "attribute": "Level", "min": 3, "expand": [{"after": 5.0, "min": 1}, {"after": 10.0, "min": 0}]},
        ),
        (
            {"Type": "RegionSelectionRule", "Path": "Latency", "MaxLatency": 200, "Expansion": {"Type": "Custom", "MaxLatencyOverrides": [80, 120],
                "SecondsBetweenExpansions": 5}},
            {"type": "latency", "max": 80.0, "expand": [{"after": 5.0, "max": 120.0}]},
        ),
        ({"Type": "TeamSizeBalanceRule", "Difference": 1, "SecondsUntilOptional": 9}, {"type": "teamSize", "max": 1.0, "optionalAfter": 9.0}),
        ({"Type": "TeamDifferenceRule", "Attribute": LEVEL, "Difference": 0.2}, {"type": "teamBalance", "attribute": "Level", "max": 0.2}),
    ],
)  # fmt: skip
def test_rules_with_an_equal(tmp_path: Path, rule: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each rule type becomes its equal, with its expansions."""
    spec, _ = imported(tmp_path, queue(Teams=TEAMS, MinMatchSize=2, MaxMatchSize=6, Rules=[{"Name": "R", **rule}]))
    assert spec["rules"] == [expected]


def test_lists_by_type(tmp_path: Path) -> None:
    """The API's own form: a list for each type, overrides as objects."""
    spec, _ = imported(
        tmp_path,
        queue(
            DifferenceRules=[
                {
                    "Name": "D",
                    "Attribute": LEVEL,
                    "Difference": 5,
                    "CustomExpansion": {
                        "DifferenceOverrides": [{"Value": 1}, {"Value": 3}],
                        "SecondsBetweenExpansions": 7,
                    },
                }
            ],
            RegionSelectionRule={"Name": "L", "Path": "Latencies", "MaxLatency": 90, "Weight": 1},
        ),
    )
    assert [rule["type"] for rule in spec["rules"]] == ["difference", "latency"]
    assert spec["rules"][0]["expand"] == [{"after": 7.0, "max": 3}]


def test_bounds_of_the_match_narrow_the_teams(tmp_path: Path) -> None:
    """Teams together are never fewer than MinMatchSize, nor more than MaxMatchSize."""
    spec, result = imported(tmp_path, queue(Teams=TEAMS, MinMatchSize=4, MaxMatchSize=4))
    assert sum(team.get("min", team["players"]) for team in spec["teams"]) >= 4
    assert sum(team["players"] for team in spec["teams"]) == 4
    assert {"MinMatchSize", "MaxMatchSize"} <= {note.path for note in result.notes}


def test_without_equal(tmp_path: Path) -> None:
    """Totals, ticket sizes, defaults, weights and statistics are noted."""
    spec, result = imported(
        tmp_path,
        queue(
            Rules=[
                {"Type": "MatchTotalRule", "Name": "T", "Attribute": LEVEL, "Min": 2, "Max": 8, "Weight": 1},
                {"Type": "TeamTicketSizeSimilarityRule", "Name": "S"},
                {
                    "Type": "DifferenceRule",
                    "Name": "D",
                    "Attribute": {"Path": "Elo", "Source": "PlayerEntity"},
                    "Difference": 1,
                    "DefaultAttributeValue": 5,
                    "AttributeNotSpecifiedBehavior": "UseDefault",
                    "Weight": 3,
                },
                {
                    "Type": "StringEqualityRule",
                    "Name": "E",
                    "Attribute": LEVEL,
                    "AttributeNotSpecifiedBehavior": "MatchAny",
                },
            ],
            StatisticsVisibilityToPlayers={"ShowNumberOfPlayersMatching": True},
            ServerAllocationEnabled=False,
            BuildId="b",
        ),
    )
    assert [rule["type"] for rule in spec["rules"]] == ["difference", "equal"]
    dropped = {note.path for note in result.notes if note.kind is Kind.DROPPED}
    assert {
        "Rules[T]",
        "Rules[S]",
        "Rules[D].Attribute.Source",
        "Rules[D].DefaultAttributeValue",
        "Rules[D].Weight",
        "BuildId",
    } <= dropped
    assert "Rules[E].AttributeNotSpecifiedBehavior" in {
        note.path for note in result.notes if note.kind is Kind.APPROXIMATED
    }


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (
            queue(StringEqualityRules=[{"Attribute": LEVEL, "CustomExpansion": {"SecondsBetweenExpansions": 5, "EnabledOverrides": True}}]),
            "EnabledOverrides: a list is wanted",
        ),
        (queue(MinMatchSize=9), "MinMatchSize: 9 is above MaxMatchSize 4"),
        (queue(Rules=[{"Type": "Odd"}]), "Rules[0].Type: 'Odd' is none of"),
        (queue(Rules=[{"Type": "DifferenceRule", "Attribute": LEVEL}]), "Rules[0].Difference: None: a number"),
        (queue(Rules=[{"Type": "DifferenceRule", "Attribute": {}, "Difference": 1}]), "Attribute.Path: is missing"),
        (queue(Rules=[{"Type": "DifferenceRule", "Attribute": LEVEL, "Difference": 1, "Expansion": {"Type": "Odd"}}]), "none of Linear, Custom"),
        (queue(Teams=[{"Name": "a", "MinTeamSize": 1, "MaxTeamSize": 1}]), "Teams: they fit no match"),
    ],
)  # fmt: skip
def test_bad_input_is_named(tmp_path: Path, document: dict[str, Any], said: str) -> None:
    """What is wrong is said with its place."""
    with pytest.raises(ImportFailed) as failed:
        imported(tmp_path, document)
    assert said in str(failed.value)


def test_an_expansion_says_by_its_keys_what_it_is_and_keeps_what_it_leaves_out(tmp_path: Path) -> None:
    """The API's lists have no Type in them; a value that is missing changes nothing, which is noted."""
    spec, result = imported(
        tmp_path,
        queue(
            StringEqualityRules=[
                {
                    "Name": "S",
                    "Attribute": {"Path": "Mode", "Source": "User"},
                    "Expansion": {"EnabledOverrides": [True, False], "SecondsBetweenExpansions": 10},
                }
            ],
            DifferenceRules=[
                {
                    "Name": "D",
                    "Attribute": LEVEL,
                    "Difference": 1,
                    "Expansion": {"DifferenceOverrides": [None, 2, None, {"Value": 4}], "SecondsBetweenExpansions": 5},
                }
            ],
        ),
    )
    by_type = {rule["type"]: rule for rule in spec["rules"]}
    assert by_type["equal"]["optionalAfter"] == 10.0
    assert (by_type["difference"]["max"], by_type["difference"]["expand"]) == (
        1,
        [{"after": 5.0, "max": 2}, {"after": 15.0, "max": 4}],
    )
    assert "DifferenceRules[D].DifferenceOverrides" in {note.path for note in result.notes}
