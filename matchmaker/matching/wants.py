"""What a queue wants to know of a player before its ticket may wait. Pure; the API refuses tickets by it."""

import difflib
from collections.abc import Iterator, Mapping

from matchmaker.matching.rules import value_of
from matchmaker.model import (
    Attribute,
    AttributeType,
    BatchDistanceRule,
    ComparisonRule,
    DifferenceRule,
    EqualRule,
    InSetRule,
    IntersectionRule,
    LatencyRule,
    Operation,
    QueueConfig,
    Rule,
    TeamBalanceRule,
    TeamSizeRule,
    TicketPlayer,
)

_WORDS = {
    AttributeType.NUMBER: "a number",
    AttributeType.STRING: "a string",
    AttributeType.STRING_LIST: "a list of strings",
    AttributeType.NUMBER_MAP: "a map of strings to numbers",
}


def missing(queue: QueueConfig, player: TicketPlayer) -> tuple[str, str] | None:
    """The first thing that keeps a player out: (field, what the queue wants there); None when nothing does."""
    return next(_problems(queue, player), None)


def _problems(queue: QueueConfig, player: TicketPlayer) -> Iterator[tuple[str, str]]:
    for rule in queue.rules:
        if not rule.weight:
            yield from _for_rule(queue, rule, player)
    for name, value in player.attributes.items():
        declared = queue.attributes.get(name)
        if queue.attributes and declared is None:
            near = difflib.get_close_matches(name, queue.attributes, n=1)
            known = ", ".join(queue.attributes)
            yield (
                f"attributes.{name}",
                f"knows no such attribute; there are: {known}{f'; did you mean {near[0]}?' if near else ''}",
            )
        elif declared is not None and type_of(value) is not declared:
            yield f"attributes.{name}", f"wants {_WORDS[declared]}"


def type_of(value: Attribute) -> AttributeType:
    """What a value is."""
    if isinstance(value, str):
        return AttributeType.STRING
    if isinstance(value, tuple):
        return AttributeType.STRING_LIST
    return AttributeType.NUMBER_MAP if isinstance(value, Mapping) else AttributeType.NUMBER


def _for_rule(queue: QueueConfig, rule: Rule, player: TicketPlayer) -> Iterator[tuple[str, str]]:
    match rule:
        case DifferenceRule() | BatchDistanceRule() | TeamBalanceRule():
            if not isinstance(value_of(player, rule.attribute), int | float):
                yield f"attributes.{rule.attribute}", "wants a number"
        case LatencyRule():
            regions = [region for region in dict.fromkeys(queue.regions.values()) if region]
            if regions and not any(region in player.latencies_ms for region in regions):
                yield "latencies", f"wants the round trip to one of its regions, in ms: {', '.join(regions)}"
            elif not player.latencies_ms:
                yield "latencies", "wants the round trip to its regions, in ms"
        case IntersectionRule():
            if not isinstance(value_of(player, rule.attribute), tuple):
                yield f"attributes.{rule.attribute}", "wants a list of strings"
        case EqualRule() | InSetRule():
            if value_of(player, rule.attribute) is None:
                yield f"attributes.{rule.attribute}", "wants a value"
        case ComparisonRule(value=constant, operation=operation):
            value = value_of(player, rule.attribute)
            if operation not in (Operation.EQUAL, Operation.UNEQUAL) and not isinstance(value, int | float):
                yield f"attributes.{rule.attribute}", "wants a number"
            elif value is None:
                yield f"attributes.{rule.attribute}", "wants a value"
            elif operation is Operation.EQUAL and isinstance(constant, str) and not isinstance(value, str):
                yield f"attributes.{rule.attribute}", "wants a string"
        case TeamSizeRule():
            pass
