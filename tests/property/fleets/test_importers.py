"""What an imported queue matches obeys the rules it was imported from, as their own matchmakers mean them."""

import itertools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fleets.importers.importing import import_file
from fleets.spec.convert import to_queue_config
from fleets.spec.loader import load
from gameserver.sessions.model import PlayerId
from matchmaker.matching.pool import Pool
from matchmaker.model import Ticket, TicketId, TicketPlayer

NOW_S = 1000.0
Match = list[list[Ticket]]
Judge = Callable[[Match], bool]
"""The original rule, written down independently of ours."""


def players(match: Match) -> list[TicketPlayer]:
    return [player for team in match for ticket in team for player in ticket.players]


def ages(match: Match) -> list[float]:
    return [NOW_S - ticket.created_at_s for team in match for ticket in team]


def spread(values: list[float]) -> float:
    return max(values) - min(values)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def skills(some: list[TicketPlayer]) -> list[float]:
    return [float(player.attributes["skill"]) for player in some]  # type: ignore[arg-type]


def parties(match: Match) -> list[float]:
    return [mean(skills(list(ticket.players))) for team in match for ticket in team]


def team_means(match: Match) -> list[float]:
    return [mean(skills([player for ticket in team for player in ticket.players])) for team in match]


def shared(match: Match) -> int:
    return len(set.intersection(*(set(player.attributes["maps"]) for player in players(match))))  # type: ignore[arg-type]


def near(match: Match, limit_ms: float) -> bool:
    return any(all(player.latencies_ms[region] <= limit_ms for player in players(match)) for region in ("eu", "us"))


def modes(match: Match) -> set[Any]:
    return {player.attributes["mode"] for player in players(match)}


ALL = "teams[*].players.attributes[skill]"
LIMIT = st.integers(1, 12)


def flexmatch_rules(limit: int, later: int) -> dict[str, tuple[dict[str, Any], Judge]]:
    def at(match: Match) -> float:
        return later if min(ages(match)) >= 20 else limit

    return {
        "batch": ({"type": "batchDistance", "batchAttribute": "skill", "maxDistance": limit}, lambda m: spread(parties(m)) <= at(m)),
        "mode": ({"type": "batchDistance", "batchAttribute": "mode"}, lambda m: len(modes(m)) == 1),
        "least": (
            {"type": "comparison", "measurements": [f"flatten({ALL})"], "operation": ">=", "referenceValue": limit, "partyAggregation": "min"},
            lambda m: min(skills(players(m))) >= limit,
        ),
        "teams": (
            {"type": "distance", "measurements": [f"avg({ALL})"], "referenceValue": f"avg(flatten({ALL}))", "maxDistance": limit},
            lambda m: all(abs(value - mean(skills(players(m)))) <= limit + 1e-9 for value in team_means(m)),
        ),
        "maps": (
            {"type": "collection", "operation": "intersection", "measurements": ["flatten(teams[*].players.attributes[maps])"],
                "partyAggregation": "intersection"},
            lambda m: shared(m) >= 1,
        ),
        "near": ({"type": "latency", "maxLatency": 50 + limit, "partyAggregation": "max"}, lambda m: near(m, 50 + limit)),
    }  # fmt: skip


def flexmatch(limit: int, later: int, names: list[str]) -> tuple[dict[str, Any], list[Judge]]:
    known = flexmatch_rules(limit, later)
    document = {
        "name": "q",
        "ruleLanguageVersion": "1.0",
        "playerAttributes": [
            {"name": "skill", "type": "number"},
            {"name": "mode", "type": "string"},
            {"name": "maps", "type": "string_list"},
        ],
        "teams": [{"name": "a", "minPlayers": 2, "maxPlayers": 2}, {"name": "b", "minPlayers": 2, "maxPlayers": 2}],
        "rules": [{"name": name, **known[name][0]} for name in names],
        "expansions": [{"target": "rules[batch].maxDistance", "steps": [{"waitTimeSeconds": 20, "value": later}]}] if "batch" in names else [],
    }  # fmt: skip
    return document, [known[name][1] for name in names]


def playfab(limit: int, later: int, names: list[str]) -> tuple[dict[str, Any], list[Judge]]:
    skill, expansion = (
        {"Path": "skill", "Source": "User"},
        {"Type": "Custom", "DifferenceOverrides": [limit, later], "SecondsBetweenExpansions": 20},
    )
    known: dict[str, tuple[dict[str, Any], Judge]] = {
        "batch": (
            {"Type": "DifferenceRule", "Attribute": skill, "Difference": 1, "Expansion": expansion},
            lambda m: spread(parties(m)) <= (later if min(ages(m)) >= 20 else limit) or later < limit,
        ),
        "mode": ({"Type": "StringEqualityRule", "Attribute": {"Path": "mode", "Source": "User"}}, lambda m: len(modes(m)) == 1),
        "least": ({"Type": "TeamSizeBalanceRule", "Difference": 0}, lambda m: len(m[0]) >= 0 and len({sum(len(t.players) for t in team) for team in m}) == 1),
        "teams": ({"Type": "TeamDifferenceRule", "Attribute": skill, "Difference": limit}, lambda m: spread(team_means(m)) <= limit + 1e-9),
        "maps": ({"Type": "SetIntersectionRule", "Attribute": {"Path": "maps", "Source": "User"}, "MinIntersectionSize": 1}, lambda m: shared(m) >= 1),
        "near": ({"Type": "RegionSelectionRule", "Path": "L", "MaxLatency": 50 + limit}, lambda m: near(m, 50 + limit)),
    }  # fmt: skip
    teams = [{"Name": name, "MinTeamSize": 1, "MaxTeamSize": 2} for name in ("a", "b")]
    body = {
        "Name": "q",
        "MinMatchSize": 2,
        "MaxMatchSize": 4,
        "Teams": teams,
        "Rules": [{"Name": n, **known[n][0]} for n in names],
    }
    return {"MatchmakingQueue": body}, [known[name][1] for name in names]


def unity(limit: int, later: int, names: list[str]) -> tuple[dict[str, Any], list[Judge]]:
    relax = [{"type": "ReferenceControl.Replace", "ageType": "Oldest", "atSeconds": 20, "value": later}]
    known: dict[str, tuple[dict[str, Any], Judge]] = {
        "batch": (
            {"type": "Difference", "source": "Players.CustomData.skill", "reference": limit, "relaxations": relax},
            lambda m: spread(skills(players(m))) <= (later if max(ages(m)) >= 20 else limit),
        ),
        "mode": ({"type": "Equality", "source": "Players.CustomData.mode"}, lambda m: len(modes(m)) == 1),
        "least": ({"type": "GreaterThanEqual", "source": "Players.CustomData.skill", "reference": limit}, lambda m: min(skills(players(m))) >= limit),
        "teams": ({"type": "InList", "source": "Players.CustomData.mode", "reference": ["x"]}, lambda m: modes(m) == {"x"}),
        "maps": ({"type": "Intersection", "source": "Players.CustomData.maps"}, lambda m: shared(m) >= 1),
        "near": ({"type": "LessThanEqual", "source": "Players.QosResults.Latency", "reference": 50 + limit}, lambda m: near(m, 50 + limit)),
    }  # fmt: skip
    teams = [{"name": "side", "teamCount": {"min": 2, "max": 2}, "playerCount": {"min": 2, "max": 2}}]
    definition = {"teams": teams, "matchRules": [{"name": n, **known[n][0]} for n in names]}
    body = {
        "name": "q",
        "maxPlayersPerTicket": 2,
        "defaultPool": {"name": "p", "matchLogic": {"matchDefinition": definition}},
    }
    return body, [known[name][1] for name in names]


@st.composite
def pools(draw: st.DrawFn) -> list[Ticket]:
    ids = itertools.count()
    player = st.builds(
        lambda skill, mode, maps, eu, us: TicketPlayer(
            id=PlayerId(f"p{next(ids)}"),
            attributes={"skill": float(skill), "mode": mode, "maps": tuple(maps)},
            latencies_ms={"eu": float(eu), "us": float(us)},
        ),
        st.integers(0, 20),
        st.sampled_from("xy"),
        st.lists(st.sampled_from(["ice", "fire", "sand"]), unique=True, min_size=1),
        st.integers(10, 90),
        st.integers(10, 90),
    )
    ticket = st.builds(
        lambda players, age: (tuple(players), float(age)), st.lists(player, min_size=1, max_size=2), st.integers(0, 40)
    )
    rows = draw(st.lists(ticket, min_size=2, max_size=14))
    return [
        Ticket(id=TicketId(f"q.{n}"), players=players, created_at_s=NOW_S - age)
        for n, (players, age) in enumerate(rows)
    ]


@given(
    make=st.sampled_from([flexmatch, playfab, unity]),
    limit=LIMIT,
    more=st.integers(0, 10),
    names=st.lists(st.sampled_from(["batch", "mode", "least", "teams", "maps", "near"]), unique=True, max_size=4),
    tickets=pools(),
)
@settings(max_examples=150, deadline=None)
def test_matches_obey_the_original(make: Any, limit: int, more: int, names: list[str], tickets: list[Ticket]) -> None:
    """Every match that the imported queue makes obeys every original rule that was carried over."""
    document, judges = make(limit, limit + more, names)
    with tempfile.TemporaryDirectory() as folder:
        given_file, made = Path(folder) / "in.json", Path(folder) / "out.yaml"
        given_file.write_text(json.dumps(document))
        made.write_text(import_file(given_file, regions=["eu", "us"]).yaml)
        specs = load([made])
    assert len(specs.queues[0].spec.rules) == len(names)
    queue = to_queue_config(specs.queues[0], specs.fleets)
    pool = Pool(queue)
    pool.change(tickets, ())
    for proposal in pool.cycle(NOW_S):
        match = [list(team) for team in proposal.teams]
        assert all(judge(match) for judge in judges)
