"""
Unity Matchmaker queues (`.mmq` files and the admin API's objects): one of our queues for each pool.

Source: "Matchmaking rules", "Rule relaxations", "Queues and pools" and "Deploy Matchmaker configurations" of Unity's documentation, and the
configuration model of its command line. Keys are read without regard to case: rules are documented in capitals, `.mmq` files are camelCase.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from fleets.importers.draft import (
    Draft,
    ImportFailed,
    NoEqual,
    Step,
    expand,
    mapping,
    milliseconds,
    number,
    rows,
    scalar,
    seconds,
    text,
    whole,
)

_COMPARE = {"lessthan": "<", "lessthanequal": "<=", "greaterthan": ">", "greaterthanequal": ">="}
_OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}
_FILTERS = {
    "equal": "=",
    "notequal": "!=",
    "lessthan": "<",
    "lessthanequal": "<=",
    "greaterthan": ">",
    "greaterthanequal": ">=",
}
_AGES = {"oldest": "oldest", "youngest": "newest"}
_SOURCE = re.compile(r"players\.(customdata|externaldata\.cloudsave|externaldata\.leaderboard)\.(.+)", re.IGNORECASE)
_LATENCY = "players.qosresults.latency"


def is_unity(document: dict[str, Any]) -> bool:
    """Whether this looks like a queue of Unity Matchmaker."""
    keys = {key.lower() for key in document}
    return bool(keys & {"defaultpool", "filteredpools", "matchdefinition", "matchlogic"})


def unity(document: dict[str, Any]) -> list[Draft]:
    """The queues of a queue's pools. Raises ImportFailed."""
    queue = _lower(document)
    if "matchdefinition" in queue:
        queue = {"name": queue.get("name", "unity"), "defaultpool": {"name": "", "matchlogic": queue}}
    elif "matchlogic" in queue:
        queue = {"name": queue.get("name", "unity"), "defaultpool": queue | {"name": ""}}
    name = text(queue.get("name"), "name")
    pools = [(f"filteredPools[{i}]", pool) for i, pool in enumerate(rows(queue.get("filteredpools"), "filteredPools"))]
    if default := mapping(queue.get("defaultpool"), "defaultPool"):
        pools.append(("defaultPool", default))
    if not pools:
        raise ImportFailed("defaultPool: a queue has one pool at least")
    return [_pool(queue, name, pool, path, only=len(pools) == 1) for path, pool in pools]


def _pool(queue: dict[str, Any], name: str, pool: dict[str, Any], path: str, *, only: bool) -> Draft:
    pool_name = str(pool.get("name", ""))
    draft = Draft(name=name if only else f"{name}-{pool_name or path}")
    if not only:
        draft.approximated(path, f"a pool is a queue of its own: let the client choose {draft.name}")
    for key, value in (("enabled", queue.get("enabled")), (f"{path}.enabled", pool.get("enabled"))):
        if value is False:
            draft.dropped(key, "it is off there: a queue that is not wanted is left out of the files, or paused")
    logic = mapping(pool.get("matchlogic"), f"{path}.matchLogic")
    definition = mapping(logic.get("matchdefinition"), f"{path}.matchLogic.matchDefinition")
    where = f"{path}.matchDefinition"
    _teams(draft, definition, where)
    draft.parties(whole(queue.get("maxplayersperticket", 1), "maxPlayersPerTicket", least=1))
    for rule_path, rule, team in _rules(definition, where):
        _rule(draft, rule, rule_path, team)
    for index, row in enumerate(rows(pool.get("filters"), f"{path}.filters")):
        _filter(draft, row, f"{path}.filters[{index}]")
    if pool.get("timeoutseconds") is not None:
        draft.spec["ticketTimeout"] = seconds(number(pool["timeoutseconds"], f"{path}.timeoutSeconds", least=0))
    if logic.get("backfillenabled"):
        draft.spec["backfill"] = {"enabled": True}
    if pool.get("variants"):
        draft.dropped(f"{path}.variants", "a variant is tried as a shadow queue, or as a queue of its own")
    if mapping(pool.get("matchhosting"), f"{path}.matchHosting"):
        draft.dropped(f"{path}.matchHosting", "where matches run stands in spec.fleets")
    return draft


def _teams(draft: Draft, definition: dict[str, Any], path: str) -> None:
    teams = rows(definition.get("teams"), f"{path}.teams")
    if not teams:
        raise ImportFailed(f"{path}.teams: a match has one team at least")
    for index, row in enumerate(teams):
        where = f"{path}.teams[{index}]"
        name = text(row.get("name"), f"{where}.name")
        fewest, most, steps = _range(row.get("playercount"), f"{where}.playerCount")
        count_low, count_high, count_steps = _range(row.get("teamcount", {"min": 1, "max": 1}), f"{where}.teamCount")
        if count_steps:
            draft.dropped(f"{where}.teamCount.relaxations", "the number of teams does not change")
        if len(teams) == 1 and most == 1 and count_low < count_high:
            draft.approximated(
                f"{where}.teamCount", f"everybody is in one team {name}, of {count_low} to {count_high} players"
            )
            fewest, most, count_high = count_low, count_high, 1
        elif count_low < count_high:
            draft.approximated(f"{where}.teamCount", f"there are always {count_low} teams {name}")
            count_high = count_low
        team = draft.team(name, most, max(1, fewest), max(1, count_high))
        if steps and steps[-1][1] < fewest:
            team["min"] = max(1, int(steps[-1][1]))
            draft.spec["waitForFull"] = seconds(steps[-1][0])
            if len(steps) > 1 or fewest < most:
                draft.approximated(
                    f"{where}.playerCount",
                    "the team is waited for until full, and from the last step on has the last minimum",
                )


def _range(value: Any, path: str) -> tuple[int, int, list[Step]]:
    """(min, max, what the minimum becomes with age)."""
    given = mapping(value, path)
    low = whole(given.get("min"), f"{path}.min", least=0)
    high = whole(given.get("max"), f"{path}.max", least=1)
    if low > high:
        raise ImportFailed(f"{path}.min: {low} is above max {high}")
    steps = [
        (
            number(row.get("atseconds"), f"{path}.relaxations.atSeconds", least=0),
            whole(row.get("value"), f"{path}.relaxations.value"),
        )
        for row in rows(given.get("relaxations"), f"{path}.relaxations")
        if str(row.get("type")).lower() == "rangecontrol.replacemin"
    ]
    return low, high, sorted(steps)


def _rules(definition: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any], str | None]]:
    """The path of each rule, the rule, and the team that it is about."""
    for index, rule in enumerate(rows(definition.get("matchrules"), f"{path}.matchRules")):
        yield f"matchRules[{rule.get('name') or index}]", rule, None
    for team in rows(definition.get("teams"), f"{path}.teams"):
        for index, rule in enumerate(rows(team.get("teamrules"), f"{path}.teams.teamRules")):
            yield f"teams[{team.get('name')}].teamRules[{rule.get('name') or index}]", rule, str(team.get("name"))


def _rule(draft: Draft, rule: dict[str, Any], path: str, team: str | None) -> None:
    """One rule; `team`: that it is about, None for a rule of the match."""
    kind = str(rule.get("type", "")).lower()
    convert = _RULES.get(kind)
    if convert is None and kind != "doubledifference":
        raise ImportFailed(f"{path}.type: {rule.get('type')!r} is no rule of Unity Matchmaker")
    try:
        if convert is None:
            raise NoEqual("differences of differences are not measured")
        relaxed = _Relaxed(draft, rule, path)
        if relaxed.off:
            draft.dropped(path, "the rule is never on")
            return
        if team is not None and kind == "equality" and rule.get("reference") is not None:
            _team_of(draft, rule, path, relaxed, team)
            return
        if team is not None:
            draft.approximated(path, "it holds for the whole match, not in each team alone")
        convert(draft, rule, path, relaxed)
    except NoEqual as why:
        draft.dropped(path, str(why))


class _Relaxed:
    """What a rule's relaxations make of it."""

    def __init__(self, draft: Draft, rule: dict[str, Any], path: str) -> None:
        self.steps: list[Step] = []
        self.common: dict[str, Any] = {}
        self.off = rule.get("enablerule") is False
        ages, disabled = set(), False
        listed = rows(rule.get("relaxations"), f"{path}.relaxations")
        for row in sorted(
            listed, key=lambda row: number(row.get("atseconds"), f"{path}.relaxations.atSeconds", least=0)
        ):
            kind, at_s = str(row.get("type", "")).lower(), number(row.get("atseconds"), path)
            ages.add(str(row.get("agetype", "Oldest")).lower())
            if kind == "referencecontrol.replace":
                self.steps.append((at_s, row.get("value")))
            elif kind == "rulecontrol.disable":
                disabled, self.common["optionalAfter"] = True, seconds(at_s)
            elif kind == "rulecontrol.enable":
                draft.approximated(f"{path}.relaxations", "the rule is on from the start, and stays")
                self.off, disabled = False, False
                self.common.pop("optionalAfter", None)
            else:
                raise ImportFailed(f"{path}.relaxations.type: {row.get('type')!r} is no relaxation of a rule")
        if self.off and disabled:
            self.common = {}
        if ages and (self.steps or self.common):
            if unknown := ages - {*_AGES, "average"}:
                raise ImportFailed(f"{path}.relaxations.ageType: {min(unknown)!r} is none of Oldest, Youngest, Average")
            if ages != {"oldest"} and ages != {"youngest"}:
                draft.approximated(f"{path}.relaxations.ageType", "all of the rule's steps go by the newest ticket")
            self.common["age"] = _AGES[ages.pop()] if len(ages) == 1 and ages <= set(_AGES) else "newest"

    def numbers(self, path: str, least: float = -1e15) -> list[Step]:
        """The steps' numbers."""
        return [(after, number(value, f"{path}.relaxations.value", least=least)) for after, value in self.steps]

    def stays(self, draft: Draft, path: str) -> dict[str, Any]:
        """What is left for a rule whose reference cannot change; the original one only, if it is the stricter one is not known."""
        if self.steps:
            draft.dropped(f"{path}.relaxations", "the reference does not change with age")
            if "optionalAfter" not in self.common:
                self.common.pop("age", None)
        return self.common


def _attribute(draft: Draft, rule: dict[str, Any], path: str) -> str:
    source = text(rule.get("source"), f"{path}.source")
    found = _SOURCE.fullmatch(source)
    if found is None:
        raise NoEqual(f"{source} is nothing that a player brings")
    if found[1].lower() != "customdata":
        draft.dropped(f"{path}.source", f"players bring it: nothing is read from {source.split('.')[2]}")
    name, *inner = found[2].split(".")
    if len(inner) > 1:
        raise NoEqual(f"{source} lies too deep: a number of a map is as deep as it goes")
    return f"{name}[{inner[0]}]" if inner else name


def _difference(draft: Draft, rule: dict[str, Any], path: str, relaxed: _Relaxed) -> None:
    _no_not(rule)
    limit = number(rule.get("reference"), f"{path}.reference", least=0)
    name = _attribute(draft, rule, path)
    draft.rule("batchDistance", attribute=name, max=limit, expand=expand(relaxed.numbers(path, 0)), **relaxed.common)


def _equality(draft: Draft, rule: dict[str, Any], path: str, relaxed: _Relaxed) -> None:
    name, reference = _attribute(draft, rule, path), rule.get("reference")
    if reference is None:
        _no_not(rule)
        draft.rule("equal", attribute=name, **relaxed.stays(draft, path))
        return
    if not scalar(reference):
        raise NoEqual("a value is compared with a number or a word")
    if rule.get("not"):
        draft.approximated(path, "no player has the value, rather than not all of them")
    draft.rule(
        "comparison",
        attribute=name,
        **{"is": "!=" if rule.get("not") else "=", "value": reference},
        **relaxed.stays(draft, path),
    )


def _team_of(draft: Draft, rule: dict[str, Any], path: str, relaxed: "_Relaxed", name: str) -> None:
    """Everybody in a team has the same constant: a role of which it has as many places as players."""
    _no_not(rule)
    attribute, value = _attribute(draft, rule, path), rule["reference"]
    team = next(team for team in draft.spec["teams"] if team["name"] == name)
    if not isinstance(value, str) or "[" in attribute:
        raise NoEqual("a team's own value is a word")
    if "min" in team or team.get("roles") or draft.spec.get("roleAttribute", attribute) != attribute:
        raise NoEqual("a team's own value is a role, of one attribute in all teams, and as many as it has players")
    if relaxed.steps or relaxed.common:
        draft.approximated(f"{path}.relaxations", "a team's roles stay what they are")
    team["roles"] = [{"name": value, "players": team["players"]}]
    draft.spec["roleAttribute"] = attribute


def _compare(draft: Draft, rule: dict[str, Any], path: str, relaxed: _Relaxed) -> None:
    operation = _COMPARE[str(rule["type"]).lower()]
    reference = number(rule.get("reference"), f"{path}.reference")
    if str(rule.get("source", "")).lower() == _LATENCY:
        if operation not in ("<", "<=") or rule.get("not"):
            raise NoEqual("round trips have an upper limit only")
        if draft.near:
            raise NoEqual("there is one latency rule at most")
        steps = expand(relaxed.numbers(path, 0), show=milliseconds)
        draft.rule("latency", max=milliseconds(reference), expand=steps, **relaxed.common)
        return
    name = _attribute(draft, rule, path)
    if rule.get("not"):
        draft.approximated(path, "the opposite holds for every player, rather than for one")
        operation = _OPPOSITE[operation]
    draft.rule("comparison", attribute=name, **{"is": operation, "value": reference}, **relaxed.stays(draft, path))


def _in_list(draft: Draft, rule: dict[str, Any], path: str, relaxed: _Relaxed) -> None:
    name, values = _attribute(draft, rule, path), rule.get("reference")
    if not isinstance(values, list) or not values or not all(scalar(value) for value in values):
        raise NoEqual("values are looked up in a list of numbers and words")
    common = relaxed.stays(draft, path)
    if not rule.get("not"):
        draft.rule("inSet", attribute=name, values=values, **common)
        return
    draft.approximated(path, "no player has one of the values")
    for value in values:
        draft.rule("comparison", attribute=name, **{"is": "!=", "value": value}, **common)


def _intersection(draft: Draft, rule: dict[str, Any], path: str, relaxed: _Relaxed) -> None:
    _no_not(rule)
    name, overlap = _attribute(draft, rule, path), whole(rule.get("overlap", 1), f"{path}.overlap", least=0, most=64)
    if rule.get("reference") is not None and not isinstance(rule["reference"], int | float):
        raise NoEqual("players' lists are compared with each other, not with a constant")
    draft.rule("intersection", attribute=name, min=overlap, **relaxed.stays(draft, path))


def _no_not(rule: dict[str, Any]) -> None:
    if rule.get("not"):
        raise NoEqual("that it does not hold is not asked for")


def _filter(draft: Draft, row: dict[str, Any], path: str) -> None:
    operation = _FILTERS.get(str(row.get("operator", "")).lower())
    value, name = row.get("value"), text(row.get("attribute"), f"{path}.attribute")
    if operation is None:
        raise ImportFailed(f"{path}.operator: {row.get('operator')!r} is no operator of a filter")
    if not scalar(value) or (operation not in ("=", "!=") and isinstance(value, str) and not _numeric(value)):
        raise ImportFailed(f"{path}.value: {value!r}: a number or a word is wanted")
    draft.approximated(path, f"a filter is a rule here, of the players' attribute {name}")
    if operation not in ("=", "!="):
        value = number(value, f"{path}.value")
    draft.rule("comparison", attribute=name, **{"is": operation, "value": value})


def _numeric(value: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?", value) is not None


def _lower(value: Any) -> Any:
    """Keys in lower case, at every depth."""
    if isinstance(value, dict):
        return {str(key).lower(): _lower(inner) for key, inner in value.items()}
    return [_lower(inner) for inner in value] if isinstance(value, list) else value


_RULES: dict[str, Callable[[Draft, dict[str, Any], str, _Relaxed], None]] = {
    "difference": _difference,
    "equality": _equality,
    **dict.fromkeys(_COMPARE, _compare),
    "inlist": _in_list,
    "intersection": _intersection,
}
