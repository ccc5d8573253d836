"""Whatever a file holds, it becomes valid YAML, or the importer fails and says why."""

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fleets.importers.draft import ImportFailed
from fleets.importers.importing import Source, import_file
from fleets.spec.loader import load

FLEXMATCH = {
    "name": "Big One",
    "ruleLanguageVersion": "1.0",
    "playerAttributes": [{"name": "skill", "type": "number", "default": 5}, {"name": "maps", "type": "string_list"}],
    "algorithm": {"strategy": "exhaustiveSearch", "batchingPreference": "sorted", "sortByAttributes": ["skill"]},
    "teams": [
        {"name": "red", "minPlayers": 2, "maxPlayers": 4},
        {"name": "blue", "minPlayers": 2, "maxPlayers": 4, "quantity": 2},
    ],
    "rules": [
        {"name": "a", "type": "batchDistance", "batchAttribute": "skill", "maxDistance": 50, "partyAggregation": "max"},
        {
            "name": "b",
            "type": "collection",
            "operation": "intersection",
            "measurements": ["flatten(teams[*].players.attributes[maps])"],
            "minCount": 1,
        },
        {
            "name": "c",
            "type": "comparison",
            "measurements": ["flatten(teams[*].players.attributes[skill])"],
            "operation": ">",
            "referenceValue": 1,
        },
        {
            "name": "d",
            "type": "distance",
            "measurements": ["avg(teams[*].players.attributes[skill])"],
            "referenceValue": "avg(flatten(teams[*].players.attributes[skill]))",
            "maxDistance": 5,
        },
        {"name": "e", "type": "latency", "maxLatency": 90},
        {"name": "f", "type": "compound", "statement": "and(c, not(a))"},
    ],
    "expansions": [
        {"target": "rules[a].maxDistance", "steps": [{"waitTimeSeconds": 5, "value": 99}]},
        {"target": "teams[red].minPlayers", "steps": [{"waitTimeSeconds": 9, "value": 1}]},
    ],
}
PLAYFAB = {
    "MatchmakingQueue": {
        "Name": "Big",
        "MinMatchSize": 2,
        "MaxMatchSize": 8,
        "MaxTicketSize": 3,
        "Teams": [{"Name": "a", "MinTeamSize": 1, "MaxTeamSize": 4}, {"Name": "b", "MinTeamSize": 1, "MaxTeamSize": 4}],
        "Rules": [
            {
                "Name": "d",
                "Type": "DifferenceRule",
                "Attribute": {"Path": "skill", "Source": "User"},
                "Difference": 2,
                "Expansion": {"Type": "Linear", "Delta": 1, "Limit": 5, "SecondsBetweenExpansions": 5},
            },
            {
                "Name": "s",
                "Type": "SetIntersectionRule",
                "Attribute": {"Path": "maps"},
                "MinIntersectionSize": 2,
                "Expansion": {"Type": "Custom", "MinIntersectionSizeOverrides": [2, 1], "SecondsBetweenExpansions": 5},
            },
            {"Name": "e", "Type": "StringEqualityRule", "Attribute": {"Path": "mode"}, "SecondsUntilOptional": 9},
        ],
    }
}
UNITY = {
    "name": "q",
    "maxPlayersPerTicket": 2,
    "defaultPool": {
        "name": "p",
        "timeoutSeconds": 30,
        "filters": [{"attribute": "region", "operator": "Equal", "value": "eu"}],
        "matchLogic": {
            "backfillEnabled": True,
            "matchDefinition": {
                "teams": [
                    {
                        "name": "t",
                        "teamCount": {"min": 2, "max": 2},
                        "playerCount": {
                            "min": 2,
                            "max": 3,
                            "relaxations": [
                                {"type": "RangeControl.ReplaceMin", "ageType": "Oldest", "atSeconds": 5, "value": 1}
                            ],
                        },
                    }
                ],
                "matchRules": [
                    {
                        "name": "x",
                        "type": "Difference",
                        "source": "Players.CustomData.skill",
                        "reference": 5,
                        "relaxations": [{"type": "RuleControl.Disable", "ageType": "Average", "atSeconds": 9}],
                    },
                    {
                        "name": "y",
                        "type": "InList",
                        "source": "Players.CustomData.mode",
                        "reference": ["a"],
                        "not": True,
                    },
                ],
            },
        },
    },
}
DOCUMENTS: dict[Source, Any] = {Source.FLEXMATCH: FLEXMATCH, Source.PLAYFAB: PLAYFAB, Source.UNITY: UNITY}
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 2000),
    st.floats(allow_nan=True),
    st.sampled_from(
        ["", "x", "teams[*].players.attributes[skill]", "avg(", "or(a, b)", "Linear", "é" * 70, "a[b", "99", "9e999"]
    ),
    st.just([]),
    st.just({}),
    st.lists(st.integers(), max_size=2),
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(path for key, inner in items for path in paths(inner, (*at, key)))]


@given(data=st.data(), source=st.sampled_from(list(Source)))
@settings(max_examples=400, deadline=None)
def test_any_change_gives_a_valid_queue_or_a_reason(data: st.DataObject, source: Source) -> None:
    """Up to three values of a valid file are replaced or left out."""
    document = copy.deepcopy(DOCUMENTS[source])
    for _ in range(data.draw(st.integers(0, 3))):
        path = data.draw(st.sampled_from(paths(document)[1:] or [()]))
        if not path:
            break
        holder = document
        for part in path[:-1]:
            holder = holder[part]
        if data.draw(st.booleans()) or isinstance(holder, list):
            holder[path[-1]] = data.draw(ODD)
        else:
            del holder[path[-1]]
    with tempfile.TemporaryDirectory() as folder:
        given_file, made = Path(folder) / "in.json", Path(folder) / "out.yaml"
        given_file.write_text(json.dumps(document))
        try:
            imported = import_file(given_file, source)
        except ImportFailed:
            # Its message is what the tests of each importer look at.
            return
        made.write_text(imported.yaml)
        assert [queue.metadata.name for queue in load([made]).queues] == list(imported.queues)
