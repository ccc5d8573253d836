"""FlexMatch's rules, one by one: each type becomes rules of ours, or raises NoEqual."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fleets.importers.draft import (
    Draft,
    ImportFailed,
    NoEqual,
    Step,
    expand,
    milliseconds,
    number,
    scalar,
    text,
)
from fleets.importers.expressions import Expression, parse

_AGGREGATES = {"avg": "mean", "min": "min", "max": "max"}


@dataclass(kw_only=True)
class Context:
    """What a rule must know of its rule set."""

    draft: Draft
    types: dict[str, str]
    """The attributes' types, in FlexMatch's words."""
    expansions: dict[str, list[Step]]
    """Target to steps."""
    parties: bool
    """Whether a ticket may have several players."""
    age: str
    """Whose age expansions go by: newest or oldest."""
    used: set[str] = field(default_factory=set)
    """Expansions that a rule or team has taken."""
    roles: set[str] = field(default_factory=set)
    """Attributes that stand for roles."""

    def limits(
        self, rule: dict[str, Any], key: str, *, scale: float = 1.0, **bounds: float
    ) -> tuple[float, list[Step]]:
        """A rule's number and what its expansions make of it."""
        path = f"rules[{rule['name']}].{key}"
        steps = self.expansions.get(path, [])
        self.used.add(path)
        first = number(rule.get(key), path, **bounds) * scale
        return first, [(after, number(value, f"expansions[{path}]", **bounds) * scale) for after, value in steps]

    def measured(self, rule: dict[str, Any]) -> list[Expression]:
        """The rule's measurements."""
        given = rule.get("measurements", rule.get("measurement"))
        texts = given if isinstance(given, list) else [given]
        return [self.expression(rule, value) for value in texts]

    def expression(self, rule: dict[str, Any], value: Any) -> Expression:
        """One property expression of a rule."""
        teams = self.draft.spec["teams"]
        names = frozenset(team["name"] for team in teams)
        several = frozenset(team["name"] for team in teams if team.get("count", 1) > 1)
        path = f"rules[{rule['name']}]"
        return parse(text(value, f"{path}.measurements"), names, path, several)

    def everybody(self, expression: Expression) -> bool:
        """Whether it is about all teams."""
        return len(expression.teams) == len(self.draft.spec["teams"])


def _batch_distance(rules: Context, rule: dict[str, Any]) -> None:
    attribute = text(rule.get("batchAttribute"), f"rules[{rule['name']}].batchAttribute")
    kind = rules.types.get(attribute, "number" if "maxDistance" in rule else "string")
    if kind == "string":
        rules.draft.rule("equal", attribute=attribute)
    elif kind != "number":
        raise NoEqual(f"{attribute} is a {kind}")
    else:
        limit, steps = rules.limits(rule, "maxDistance", least=0)
        _difference(rules, rule, attribute, limit, steps)


def _difference(
    rules: Context, rule: dict[str, Any], attribute: str, limit: float, steps: list[Step], to: str = ""
) -> None:
    rules.draft.rule(
        "difference", attribute=attribute, max=limit, to=to, aggregate=_aggregate(rule) if rules.parties else "",
        expand=expand(steps), age=rules.age if steps else "",
    )  # fmt: skip


def _aggregate(rule: dict[str, Any]) -> str:
    given = str(rule.get("partyAggregation", "avg"))
    if given not in _AGGREGATES:
        raise ImportFailed(f"rules[{rule['name']}].partyAggregation: {given!r} is none of {', '.join(_AGGREGATES)}")
    return _AGGREGATES[given]


def _comparison(rules: Context, rule: dict[str, Any]) -> None:
    operation = rule.get("operation")
    if operation not in ("<", "<=", "=", "!=", ">", ">="):
        raise ImportFailed(f"rules[{rule['name']}].operation: {operation!r} is no comparison")
    for measured in rules.measured(rule):
        if _same_size(rules, rule, measured):
            rules.draft.rule("teamSize", max=0)
            continue
        if measured.attribute is None or not rules.everybody(measured):
            raise NoEqual("a comparison is about an attribute of every player")
        if "referenceValue" not in rule:
            if measured.each or measured.over or operation not in ("=", "!="):
                raise NoEqual("without a reference value only players are compared, for = or !=")
            kind = "equal" if operation == "=" else "comparison"
            rules.draft.rule(kind, attribute=measured.attribute, **({} if operation == "=" else {"is": operation}))
            continue
        _constant(rules, rule, measured, operation, rule["referenceValue"])


def _same_size(rules: Context, rule: dict[str, Any], measured: Expression) -> bool:
    """Whether the two teams are to have equally many players."""
    reference = rule.get("referenceValue")
    if rule.get("operation") != "=" or not isinstance(reference, str) or "[" not in reference:
        return False
    other = rules.expression(rule, reference)
    two = {name for side in (measured, other) for name in side.teams}
    counts = all(side.attribute is None and side.over == "count" and not side.each for side in (measured, other))
    return counts and len(measured.teams) == len(other.teams) == 1 and len(two) == len(rules.draft.spec["teams"]) == 2


def _constant(rules: Context, rule: dict[str, Any], measured: Expression, operation: str, value: Any) -> None:
    """Every player's value compares with a constant, which is at least as strict as an average, minimum or maximum that does."""
    path = f"rules[{rule['name']}]"
    if not scalar(value):
        raise NoEqual("a reference that is itself measured is not compared with")
    made = {measured.each, measured.over} - {""}
    if made - {"min", "max", "avg", "median"} or (made and operation == "!="):
        raise NoEqual(f"{', '.join(sorted(made))} of all players is not compared")
    exact = {"<": "max", "<=": "max", ">": "min", ">=": "min"}.get(operation)
    if made - {exact}:
        rules.draft.approximated(
            path, f"every player's {measured.attribute} is held to it, not the {', '.join(sorted(made))} alone"
        )
    elif rules.parties and isinstance(value, int | float) and rule.get("partyAggregation", "avg") != exact:
        if operation == "!=":
            raise NoEqual("a party's aggregated number is not compared for !=")
        rules.draft.approximated(path, "every player of a party is held to it, not the party's number alone")
    rules.draft.rule("comparison", attribute=measured.attribute, **{"is": operation, "value": value})


def _distance(rules: Context, rule: dict[str, Any]) -> None:
    path, reference = f"rules[{rule['name']}]", rule.get("referenceValue")
    if number(rule.get("minDistance", 0), f"{path}.minDistance") > 0:
        if "maxDistance" not in rule:
            raise NoEqual("a least distance is not asked for")
        rules.draft.dropped(f"{path}.minDistance", "a least distance is not asked for")
    for measured in rules.measured(rule):
        if isinstance(reference, str) and "[" in reference:
            _between(rules, rule, measured, rules.expression(rule, reference))
            continue
        limit, steps = rules.limits(rule, "maxDistance", least=0)
        if steps:
            rules.draft.approximated(
                f"expansions[{path}.maxDistance]", "the distance to a constant does not change with age"
            )
        if measured.attribute is None or not rules.everybody(measured):
            raise NoEqual("a distance to a constant is about an attribute of every player")
        constant = number(reference, f"{path}.referenceValue")
        _constant(rules, rule, measured, ">=", constant - limit)
        _constant(rules, rule, measured, "<=", constant + limit)


def _between(rules: Context, rule: dict[str, Any], a: Expression, b: Expression) -> None:
    """The distance between two measures of a match."""
    if a.attribute != b.attribute:
        raise NoEqual("two different attributes are not compared")
    whole_match = rules.everybody(a) and rules.everybody(b)
    count = sum(team.get("count", 1) for team in rules.draft.spec["teams"])
    if whole_match and not a.each and not b.each and a.attribute is not None:
        if (a.over, b.over) in (("", "avg"), ("avg", "")):
            limit, steps = rules.limits(rule, "maxDistance", least=0)
            return _difference(rules, rule, a.attribute, limit, steps, to="mean")
        if {a.over, b.over} == {"min", "max"}:
            limit, steps = rules.limits(rule, "maxDistance", least=0)
            return _difference(rules, rule, a.attribute, limit, steps)
    if whole_match and {a.over, b.over} == {"min", "max"} and a.each == b.each:
        return _balance(rules, rule, a.attribute, a.each)
    if (
        count == 2
        and len(a.teams) == len(b.teams) == 1
        and a.teams != b.teams
        and a.over == b.over
        and not (a.each or b.each)
    ):
        return _balance(rules, rule, a.attribute, a.over)
    if whole_match and a.each == "avg" and not a.over and b.over == "avg" and not b.each and a.attribute is not None:
        sizes = {(team["players"], team.get("min", team["players"])) for team in rules.draft.spec["teams"]}
        halves = count == 2 and len(sizes) == 1 and all(most == fewest for most, fewest in sizes)
        if not halves:
            rules.draft.approximated(
                f"rules[{rule['name']}]", "the teams' means are held to it among each other, which is stricter"
            )
        return _balance(rules, rule, a.attribute, "avg", scale=2.0 if halves else 1.0)
    raise NoEqual("a distance between these two is not measured")


def _balance(rules: Context, rule: dict[str, Any], attribute: str | None, by: str, scale: float = 1.0) -> None:
    limit, steps = rules.limits(rule, "maxDistance", scale=scale, least=0)
    keys: dict[str, Any] = {"max": limit, "expand": expand(steps), "age": rules.age if steps else ""}
    if attribute is None and by == "count":
        rules.draft.rule("teamSize", **keys)
    elif attribute is not None and by in ("avg", "sum"):
        if rules.parties and _aggregate(rule) != "mean":
            rules.draft.approximated(
                f"rules[{rule['name']}].partyAggregation", "teams are balanced by their players' own numbers"
            )
        rules.draft.rule("teamBalance", attribute=attribute, by="sum" if by == "sum" else "", **keys)
    else:
        raise NoEqual(f"teams are not balanced by {by or 'that'}")


def _collection(rules: Context, rule: dict[str, Any]) -> None:
    path, operation = f"rules[{rule['name']}]", rule.get("operation")
    if operation not in ("intersection", "contains", "reference_intersection_count"):
        raise ImportFailed(
            f"{path}.operation: {operation!r} is none of intersection, contains, reference_intersection_count"
        )
    if "maxCount" in rule:
        if "players[playerId]" in str(rule.get("referenceValue", "")):
            raise NoEqual("whom a player does not want to meet stands in its ticket, as `blocked`, in every queue")
        raise NoEqual("a greatest count is not asked for")
    minimum, steps = rules.limits({"minCount": 1, **rule}, "minCount", least=0, most=64)
    for measured in rules.measured(rule):
        if measured.attribute is None or measured.each or (measured.over and measured.over != "set_intersection"):
            raise NoEqual("a collection is an attribute of the players")
        if operation == "contains":
            _roles(rules, rule, measured, int(minimum), steps)
            continue
        if not rules.everybody(measured):
            raise NoEqual("a collection of some of the teams is not looked at")
        if rules.parties and rule.get("partyAggregation", "union") == "union":
            rules.draft.approximated(path, "every player of a party brings the values, not the party together")
        if operation == "intersection":
            later = expand([(after, int(value)) for after, value in steps], "min")
            rules.draft.rule(
                "intersection",
                attribute=measured.attribute,
                min=int(minimum),
                expand=later,
                age=rules.age if steps else "",
            )
            continue
        values = rule.get("referenceValue")
        if not isinstance(values, list) or not values or not all(scalar(value) for value in values) or minimum > 1:
            raise NoEqual("what is counted among a reference is one value of a list of constants")
        if steps:
            rules.draft.approximated(f"expansions[{path}.minCount]", "it does not change with age")
        rules.draft.rule("inSet", attribute=measured.attribute, values=values)


def _roles(rules: Context, rule: dict[str, Any], measured: Expression, minimum: int, steps: list[Step]) -> None:
    """Players of a team who have a value, as places for a role."""
    value, teams = rule.get("referenceValue"), rules.draft.spec["teams"]
    per_team = not measured.flat or len(measured.teams) == 1
    if not isinstance(value, str) or not per_team or measured.over:
        raise NoEqual("what a team's players must contain is one constant, in each team")
    assert measured.attribute is not None
    if rules.roles - {measured.attribute}:
        raise NoEqual(f"roles are the attribute {rules.draft.spec['roleAttribute']} already")
    if steps:
        rules.draft.approximated(f"expansions[rules[{rule['name']}].minCount]", "roles' places do not change with age")
    for team in teams:
        if team["name"] in measured.teams and minimum:
            taken = sum(role["players"] for role in team.get("roles", []))
            if taken + minimum > team.get("min", team["players"]):
                raise NoEqual(f"roles want more players than team {team['name']} may start with")
            if taken:
                rules.draft.approximated(f"rules[{rule['name']}]", "a player counts for one role only")
            team.setdefault("roles", []).append({"name": value, "players": minimum})
    rules.roles.add(measured.attribute)
    rules.draft.spec["roleAttribute"] = measured.attribute


def _latency(rules: Context, rule: dict[str, Any]) -> None:
    path = f"rules[{rule['name']}]"
    if "maxDistance" in rule:
        rules.draft.dropped(f"{path}.maxDistance", "round trips are not compared with each other")
    if "maxLatency" not in rule:
        raise NoEqual("a latency rule has a greatest round trip")
    if rules.draft.near:
        raise NoEqual("there is one latency rule at most")
    limit, steps = rules.limits(rule, "maxLatency", least=0)
    if rules.parties and rule.get("partyAggregation", "avg") != "max":
        rules.draft.approximated(path, "every player of a party is held to it, not the party's number alone")
    rules.draft.rule(
        "latency", max=milliseconds(limit), expand=expand(steps, show=milliseconds), age=rules.age if steps else ""
    )


def _sort(rules: Context, rule: dict[str, Any]) -> None:
    raise NoEqual("the longest wait goes first, and near tickets are sought by the rules' limits")


CONVERT: dict[str, Callable[[Context, dict[str, Any]], None]] = {
    "batchDistance": _batch_distance,
    "comparison": _comparison,
    "distance": _distance,
    "collection": _collection,
    "latency": _latency,
    "absoluteSort": _sort,
    "distanceSort": _sort,
}
