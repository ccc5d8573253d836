"""
PlayFab matchmaking queues as ours: both forms, a list `Rules` with a `Type` each, and the API's lists by type (`DifferenceRules`, …).

Source: "Configuring matchmaking queues" and "Matchmaking scenario and configuration examples" of PlayFab's documentation, and the models of its
`SetMatchmakingQueue`. Every ticket's rules expand by its own age there, as here (`age: own`).
"""

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
    seconds,
    text,
    whole,
)

_AGGREGATES = {"Average": "mean", "Min": "min", "Max": "max"}
_LISTS = {
    "DifferenceRules": "DifferenceRule",
    "MatchTotalRules": "MatchTotalRule",
    "SetIntersectionRules": "SetIntersectionRule",
    "StringEqualityRules": "StringEqualityRule",
    "TeamDifferenceRules": "TeamDifferenceRule",
}
_SINGLES = ("RegionSelectionRule", "TeamSizeBalanceRule", "TeamTicketSizeSimilarityRule")
_MOST_STEPS = 200


def is_playfab(document: dict[str, Any]) -> bool:
    """Whether this looks like a queue of PlayFab."""
    return "MatchmakingQueue" in document or "MaxMatchSize" in document


def playfab(document: dict[str, Any]) -> list[Draft]:
    """The queue. Raises ImportFailed."""
    queue = mapping(document.get("MatchmakingQueue", document), "MatchmakingQueue")
    draft = Draft(name=text(queue.get("Name"), "Name"))
    fewest = whole(queue.get("MinMatchSize"), "MinMatchSize", least=1, most=100)
    most = whole(queue.get("MaxMatchSize"), "MaxMatchSize", least=1, most=100)
    if fewest > most:
        raise ImportFailed(f"MinMatchSize: {fewest} is above MaxMatchSize {most}")
    _teams(draft, queue, fewest, most)
    draft.parties(whole(queue.get("MaxTicketSize", most), "MaxTicketSize", least=1, most=100))
    for path, rule in _listed(queue):
        kind = str(rule.get("Type"))
        if kind not in _RULES:
            raise ImportFailed(f"{path}.Type: {kind!r} is none of {', '.join(_RULES)}")
        try:
            _RULES[kind](draft, rule, path)
        except NoEqual as why:
            draft.dropped(path, str(why))
    if queue.get("StatisticsVisibilityToPlayers"):
        draft.dropped("StatisticsVisibilityToPlayers", "what players may see of a queue is not set by queue")
    if queue.get("ServerAllocationEnabled") is False:
        draft.dropped("ServerAllocationEnabled", "every match gets a server")
    if queue.get("BuildId"):
        draft.dropped("BuildId", "the server's image stands in the Fleet")
    return [draft]


def _teams(draft: Draft, queue: dict[str, Any], fewest: int, most: int) -> None:
    listed = rows(queue.get("Teams"), "Teams")
    names = [text(row.get("Name"), f"Teams[{index}].Name") for index, row in enumerate(listed)]
    low = [whole(r.get("MinTeamSize"), f"Teams[{i}].MinTeamSize", least=1, most=100) for i, r in enumerate(listed)]
    high = [whole(r.get("MaxTeamSize"), f"Teams[{i}].MaxTeamSize", least=1, most=100) for i, r in enumerate(listed)]
    if not listed:
        names, low, high = ["players"], [fewest], [most]
    for index, name in enumerate(names):
        if low[index] > high[index]:
            raise ImportFailed(f"Teams[{name}].MinTeamSize: {low[index]} is above MaxTeamSize {high[index]}")
    if sum(low) > most or sum(high) < fewest:
        raise ImportFailed("Teams: they fit no match between MinMatchSize and MaxMatchSize")
    # The match's own bounds are kept by narrower teams, the widest first.
    if sum(low) < fewest:
        draft.approximated("MinMatchSize", "teams start larger, so that together they are as many")
    while sum(low) < fewest:
        low[_widest(low, high)] += 1
    if sum(high) > most:
        draft.approximated("MaxMatchSize", "teams are smaller, so that together they are no more")
    while sum(high) > most:
        high[_widest(low, high)] -= 1
    for index, name in enumerate(names):
        draft.team(name, high[index], low[index])


def _widest(low: list[int], high: list[int]) -> int:
    return max(range(len(low)), key=lambda index: high[index] - low[index])


def _listed(queue: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for index, rule in enumerate(rows(queue.get("Rules"), "Rules")):
        yield f"Rules[{rule.get('Name') or index}]", rule
    for key, kind in _LISTS.items():
        for index, rule in enumerate(rows(queue.get(key), key)):
            yield f"{key}[{rule.get('Name') or index}]", {**rule, "Type": kind}
    for key in _SINGLES:
        if rule := mapping(queue.get(key), key):
            yield key, {**rule, "Type": key}


def _attribute(draft: Draft, rule: dict[str, Any], path: str) -> str:
    """The attribute's name; notes what PlayFab does when a player has none."""
    attribute = mapping(rule.get("Attribute"), f"{path}.Attribute")
    name = text(attribute.get("Path"), f"{path}.Attribute.Path")
    if attribute.get("Source") == "PlayerEntity":
        draft.dropped(f"{path}.Attribute.Source", f"the ticket brings {name}: nothing is read from a player's profile")
    if rule.get("AttributeNotSpecifiedBehavior") == "MatchAny":
        draft.approximated(
            f"{path}.AttributeNotSpecifiedBehavior", f"players bring {name}; without it they do not meet those who do"
        )
    elif rule.get("DefaultAttributeValue") is not None:
        default = rule["DefaultAttributeValue"]
        draft.dropped(
            f"{path}.DefaultAttributeValue", f"players bring {name}: let the client send {default!r} where it has none"
        )
    if rule.get("Weight") not in (None, 0, 1):
        draft.dropped(f"{path}.Weight", "hard rules count alike in a match's quality; soft ones have a weight")
    return name


def _common(draft: Draft, rule: dict[str, Any], path: str) -> dict[str, Any]:
    optional = rule.get("SecondsUntilOptional")
    if not optional:
        return {}
    return {"optionalAfter": seconds(number(optional, f"{path}.SecondsUntilOptional", least=0))}


def _expansion(rule: dict[str, Any], path: str) -> tuple[dict[str, Any], dict[str, Any], float]:
    """(linear, custom, seconds between two expansions); one of the two is empty."""
    given = mapping(rule.get("Expansion"), f"{path}.Expansion")
    # In the API's own form only its keys say which it is.
    kind = given.get("Type", "Custom" if any(key.endswith("Overrides") for key in given) else "Linear")
    linear = given if kind == "Linear" else mapping(rule.get("LinearExpansion"), f"{path}.LinearExpansion")
    custom = given if kind == "Custom" else mapping(rule.get("CustomExpansion"), f"{path}.CustomExpansion")
    if given and not linear and not custom:
        raise ImportFailed(f"{path}.Expansion.Type: {given.get('Type')!r} is none of Linear, Custom")
    if not linear and not custom:
        return {}, {}, 0.0
    every_s = (custom or linear).get("SecondsBetweenExpansions")
    return ({} if custom else linear), custom, number(every_s, f"{path}.SecondsBetweenExpansions", least=1, most=1e6)


def _overrides(custom: dict[str, Any], path: str, key: str) -> list[Any]:
    """A custom expansion's values, as they are or as {Value}."""
    given = custom.get(key)
    if given is not None and not isinstance(given, list):
        raise ImportFailed(f"{path}.{key}: a list is wanted")
    return [value.get("Value") if isinstance(value, dict) else value for value in given or []]


def _steps(draft: Draft, rule: dict[str, Any], path: str, key: str, overrides: str) -> tuple[float, list[Step]]:
    """A rule's limit and its expansions. A custom one's first value holds from the start, each further one an interval longer."""
    first = number(rule.get(key), f"{path}.{key}", least=0)
    linear, custom, every_s = _expansion(rule, path)
    if custom:
        given = _overrides(custom, path, overrides)
        if None in given:
            draft.approximated(f"{path}.{overrides}", "where a value is missing the one before stays")
        values = [
            (index, number(value, f"{path}.{overrides}[{index}]", least=0))
            for index, value in enumerate(given)
            if value is not None
        ]
        start = values.pop(0)[1] if values and values[0][0] == 0 else first
        return start, [(every_s * index, value) for index, value in values]
    if not linear:
        return first, []
    delta = number(linear.get("Delta"), f"{path}.Delta", least=0)
    limit = number(linear.get("Limit", first), f"{path}.Limit", least=0)
    steps: list[Step] = []
    while delta and (steps[-1][1] if steps else first) < limit and len(steps) < _MOST_STEPS:
        count = len(steps) + 1
        steps.append((every_s * count, round(min(limit, first + delta * count), 9)))
    return first, steps


def _string_equality(draft: Draft, rule: dict[str, Any], path: str) -> None:
    common = _common(draft, rule, path)
    linear, custom, every_s = _expansion(rule, path)
    enabled = [value is True for value in _overrides(custom, path, "EnabledOverrides")]
    if linear or False in enabled:
        last = max((index for index, on in enumerate(enabled) if on), default=-1) + 1
        if enabled[:last].count(False):
            draft.approximated(f"{path}.Expansion", "the rule holds until it is off for good")
        off_s = every_s * last
        if last < len(enabled) and off_s < number(rule.get("SecondsUntilOptional") or 1e9, path):
            common = {"optionalAfter": seconds(off_s)}
    draft.rule("equal", attribute=_attribute(draft, rule, path), **common)


def _difference(draft: Draft, rule: dict[str, Any], path: str) -> None:
    limit, steps = _steps(draft, rule, path, "Difference", "DifferenceOverrides")
    merge = str(rule.get("MergeFunction", "Average"))
    if merge not in _AGGREGATES:
        raise ImportFailed(f"{path}.MergeFunction: {merge!r} is none of {', '.join(_AGGREGATES)}")
    aggregate = _AGGREGATES[merge] if draft.spec["party"]["max"] > 1 else ""
    name = _attribute(draft, rule, path)
    draft.rule(
        "difference", attribute=name, max=limit, aggregate=aggregate, expand=expand(steps), **_common(draft, rule, path)
    )


def _match_total(draft: Draft, rule: dict[str, Any], path: str) -> None:
    raise NoEqual("sums over a match are not asked for; where every player brings 1, set a team's min and waitForFull")


def _set_intersection(draft: Draft, rule: dict[str, Any], path: str) -> None:
    first = whole(rule.get("MinIntersectionSize"), f"{path}.MinIntersectionSize", least=0, most=64)
    linear, custom, every_s = _expansion(rule, path)
    values = _overrides(custom, path, "MinIntersectionSizeOverrides")
    sizes = [
        whole(value, f"{path}.MinIntersectionSizeOverrides[{index}]", most=64) for index, value in enumerate(values)
    ] or [first]
    if linear:
        delta = whole(linear.get("Delta"), f"{path}.Delta", least=1)
        sizes = [*range(first, 0, -delta), 0]
    steps = [(every_s * index, size) for index, size in enumerate(sizes) if index]
    name = _attribute(draft, rule, path)
    draft.rule("intersection", attribute=name, min=sizes[0], expand=expand(steps, "min"), **_common(draft, rule, path))


def _region(draft: Draft, rule: dict[str, Any], path: str) -> None:
    limit, steps = _steps(draft, rule, path, "MaxLatency", "MaxLatencyOverrides")
    draft.dropped(
        f"{path}.Path",
        f"round trips stand in a player's latencies, by region, not in {rule.get('Path', 'an attribute')!r}",
    )
    draft.rule(
        "latency", max=milliseconds(limit), expand=expand(steps, show=milliseconds), **_common(draft, rule, path)
    )


def _team_size(draft: Draft, rule: dict[str, Any], path: str) -> None:
    limit, steps = _steps(draft, rule, path, "Difference", "DifferenceOverrides")
    draft.rule("teamSize", max=limit, expand=expand(steps), **_common(draft, rule, path))


def _team_difference(draft: Draft, rule: dict[str, Any], path: str) -> None:
    limit, steps = _steps(draft, rule, path, "Difference", "DifferenceOverrides")
    name = _attribute(draft, rule, path)
    draft.rule("teamBalance", attribute=name, max=limit, expand=expand(steps), **_common(draft, rule, path))


def _ticket_sizes(draft: Draft, rule: dict[str, Any], path: str) -> None:
    raise NoEqual("large parties are not kept to meet large parties")


_RULES: dict[str, Callable[[Draft, dict[str, Any], str], None]] = {
    "StringEqualityRule": _string_equality,
    "DifferenceRule": _difference,
    "MatchTotalRule": _match_total,
    "SetIntersectionRule": _set_intersection,
    "RegionSelectionRule": _region,
    "TeamSizeBalanceRule": _team_size,
    "TeamDifferenceRule": _team_difference,
    "TeamTicketSizeSimilarityRule": _ticket_sizes,
}
