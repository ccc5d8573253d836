"""
FlexMatch rule sets (Amazon GameLift) as queues.

Source: "FlexMatch rule set schema", "FlexMatch rule types", "FlexMatch property expressions" and "FlexMatch rule set property definitions" of the
Amazon GameLift Servers FlexMatch guide. What each rule becomes is in docs/importing.md.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from fleets.importers.draft import Draft, ImportFailed, NoEqual, Step, mapping, number, rows, seconds, text, whole
from fleets.importers.flexmatch_rules import CONVERT, Context

_TYPES = {"number": "number", "string": "string", "string_list": "stringList", "string_number_map": "numberMap"}
_OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}
_MOST_IN_TICKET = 10
"""Players of a FlexMatch ticket."""
_LARGE = 40
"""A match of more players is balanced, and knows two kinds of rules only."""


def is_flexmatch(document: dict[str, Any]) -> bool:
    """Whether this looks like a rule set, or like the API's answer that holds one."""
    return "RuleSetBody" in document or (
        "teams" in document and ("ruleLanguageVersion" in document or "rules" in document)
    )


def flexmatch(document: dict[str, Any]) -> list[Draft]:
    """The queue of a rule set. Raises ImportFailed."""
    if isinstance(body := document.get("RuleSetBody"), str):
        try:
            inner = json.loads(body)
        except ValueError as error:
            raise ImportFailed(f"RuleSetBody: is no JSON: {error}") from None
        name = document.get("Name") or document.get("RuleSetName") or "flexmatch"
        return flexmatch({"name": name, **mapping(inner, "RuleSetBody")})
    return [_RuleSet(document).draft]


class _RuleSet:
    """One rule set on its way to a queue."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.draft = Draft(name=text(document.get("name", "flexmatch"), "name"))
        self.expansions = self._expansions()
        self.used: set[str] = set()
        self._attributes()
        self._teams()
        algorithm = mapping(document.get("algorithm"), "algorithm")
        self.context = Context(
            draft=self.draft,
            types={row["name"]: str(row.get("type", "number")) for row in document.get("playerAttributes") or []},
            expansions=self.expansions,
            parties=self.draft.parties(_MOST_IN_TICKET),
            age="oldest" if algorithm.get("expansionAgeSelection") == "oldest" else "newest",
            used=self.used,
        )
        self._rules()
        self._algorithm(algorithm)
        for target in sorted(self.expansions.keys() - self.used):
            self.draft.dropped(f"expansions[{target}]", "nothing that is here changes with it")

    def _attributes(self) -> None:
        declared: dict[str, str] = {}
        for index, row in enumerate(rows(self.document.get("playerAttributes"), "playerAttributes")):
            kind = _TYPES.get(str(row.get("type", "number")))
            if kind is None:
                raise ImportFailed(
                    f"playerAttributes[{index}].type: {row.get('type')!r} is none of {', '.join(_TYPES)}"
                )
            declared[text(row.get("name"), f"playerAttributes[{index}].name")] = kind
            if "default" in row:
                self.draft.dropped(
                    f"playerAttributes[{row['name']}].default",
                    f"players bring their attributes: let the client send {row['default']!r} where it has none",
                )
        if declared:
            self.draft.spec["attributes"] = declared

    def _teams(self) -> None:
        teams = rows(self.document.get("teams"), "teams")
        if not teams:
            raise ImportFailed("teams: a rule set has one team at least")
        for index, row in enumerate(teams):
            path = f"teams[{index}]"
            name = text(row.get("name"), f"{path}.name")
            most = whole(row.get("maxPlayers"), f"{path}.maxPlayers", least=1)
            fewest = whole(row.get("minPlayers", most), f"{path}.minPlayers", least=0)
            if fewest > most:
                raise ImportFailed(f"{path}.minPlayers: {fewest} is above maxPlayers {most}")
            if fewest == 0:
                self.draft.approximated(f"{path}.minPlayers", "a team has one player at least here")
            count = whole(row.get("quantity", 1), f"{path}.quantity", least=1, most=100)
            if count > 1:
                self.draft.approximated(f"{path}.quantity", f"the teams are named {name}-1 to {name}-{count}")
            team = self.draft.team(name, most, max(1, fewest), count)
            self._team_expansions(team, name, most, max(1, fewest))

    def _team_expansions(self, team: dict[str, Any], name: str, most: int, fewest: int) -> None:
        steps = [
            (after, whole(value, f"expansions[{name}]", least=0)) for after, value in self._steps(name, "minPlayers")
        ]
        if steps and steps[-1][1] < fewest:
            team["min"] = max(1, steps[-1][1])
            self.draft.spec["waitForFull"] = seconds(max(self._wait_for_full(), steps[-1][0]))
            if len(steps) > 1 or fewest < most:
                self.draft.approximated(
                    f"expansions[teams[{name}].minPlayers]",
                    "the team is waited for until full, and from the last step on has the last minimum",
                )
        if self._steps(name, "maxPlayers"):
            self.draft.dropped(f"expansions[teams[{name}].maxPlayers]", "a full team's size does not change")

    def _wait_for_full(self) -> float:
        return float(str(self.draft.spec.get("waitForFull", "0s")).rstrip("s"))

    def _expansions(self) -> dict[str, list[Step]]:
        found: dict[str, list[Step]] = {}
        for index, row in enumerate(rows(self.document.get("expansions"), "expansions")):
            target = re.sub(r"\s+", "", text(row.get("target"), f"expansions[{index}].target"))
            path = f"expansions[{target}]"
            found[target] = [
                (
                    number(step.get("waitTimeSeconds"), f"{path}.steps[{place}].waitTimeSeconds", least=0, most=1e6),
                    step.get("value"),
                )
                for place, step in enumerate(rows(row.get("steps"), f"{path}.steps"))
            ]
        return found

    def _steps(self, name: str, key: str) -> list[Step]:
        """The expansions of a team's key; targets name one, several or all teams."""
        for target, steps in self.expansions.items():
            named = re.fullmatch(rf"teams\[(.+)\]\.{key}", target)
            if named and (named[1] == "*" or name in named[1].split(",")):
                self.used.add(target)
                return sorted(steps, key=lambda step: step[0])
        return []

    def _rules(self) -> None:
        listed = rows(self.document.get("rules"), "rules")
        by_name = {text(rule.get("name"), f"rules[{index}].name"): rule for index, rule in enumerate(listed)}
        compounds = [rule for rule in listed if rule.get("type") == "compound"]
        # A rule that a compound one names is asked through it only.
        asked = {name: rule for name, rule in by_name.items() if not any(_names(c, name) for c in compounds)}
        for name, rule in asked.items():
            self._rule(name, rule, by_name)

    def _rule(self, name: str, rule: dict[str, Any], by_name: dict[str, dict[str, Any]]) -> None:
        path = f"rules[{name}]"
        try:
            if rule.get("type") == "compound":
                for part in _compound(text(rule.get("statement"), f"{path}.statement"), by_name, path):
                    self._rule(part["name"], part, by_name)
                return
            convert = CONVERT.get(str(rule.get("type")))
            if convert is None:
                raise ImportFailed(f"{path}.type: {rule.get('type')!r} is none of {', '.join([*CONVERT, 'compound'])}")
            convert(self.context, rule)
        except NoEqual as why:
            self.draft.dropped(path, str(why))

    def _algorithm(self, algorithm: dict[str, Any]) -> None:
        preference = algorithm.get("batchingPreference")
        latency = next((rule for rule in self.draft.spec["rules"] if rule["type"] == "latency"), None)
        if preference == "fastestRegion" and latency is not None:
            latency["minimise"] = True
        elif preference in ("sorted", "largestPopulation", "fastestRegion"):
            self.draft.dropped("algorithm.batchingPreference", "the core seeks near tickets by itself")
        if attribute := algorithm.get("balancedAttribute"):
            self.draft.dropped(
                "algorithm.balancedAttribute",
                f"teams are dealt evenly; to demand it, add a teamBalance rule of {attribute} with a max",
            )
        elif self.draft.seats > _LARGE:
            self.draft.approximated(
                "teams", f"a match of more than {_LARGE} players has the same rules as a small one here"
            )
        if algorithm.get("backfillPriority") in ("low", "normal"):
            self.draft.dropped(
                "algorithm.backfillPriority", "running sessions get players before new matches (set backfill.enabled)"
            )


def _names(compound: dict[str, Any], name: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", str(compound.get("statement", ""))) is not None


def _compound(statement: str, by_name: dict[str, dict[str, Any]], path: str) -> Sequence[dict[str, Any]]:
    """
    The rules that a statement asks for together: what `and` joins, and `not` of a comparison with a constant.

    Raises: NoEqual for `or` and `xor`; ImportFailed for a rule that is none.
    """
    statement = statement.strip()
    call = re.fullmatch(r"(and|or|xor|not)\s*\((.*)\)", statement, re.DOTALL)
    if call is None:
        if statement not in by_name:
            raise ImportFailed(f"{path}.statement: there is no rule {statement!r}")
        return [by_name[statement]]
    if call[1] in ("or", "xor"):
        raise NoEqual(f"rules are all asked for, none is an alternative ({call[1]}): a match function can be")
    parts = _arguments(call[2])
    if call[1] == "and":
        return [rule for part in parts for rule in _compound(part, by_name, path)]
    (rule,) = _compound(parts[0], by_name, path)
    opposite = _OPPOSITE.get(str(rule.get("operation")))
    made = json.dumps(rule.get("measurements", ""))
    # Of several values "not all are below" is not "all are above": only one number for all of the match has an opposite.
    if rule.get("type") != "comparison" or opposite is None or not re.search(r"(avg|min|max|median)\(flatten", made):
        raise NoEqual("a rule's opposite is that of a comparison of one number for all of the match")
    return [{**rule, "operation": opposite}]


def _arguments(inside: str) -> list[str]:
    """What stands between the commas of the outermost level."""
    parts, depth = [""], 0
    for char in inside:
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts
