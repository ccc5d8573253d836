"""
Rule sets that no match can ever obey. Pure; `warmfleet validate` refuses them.

Two looks: at one player, whether any value of an attribute lets its ticket in (`matching.wants`) and obeys every rule about it; and at a whole match, whether
its sizes, its sums, and who must differ or be the same go together. Where it cannot tell it is silent: nothing that it finds could ever be obeyed.
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from matchmaker.matching.rules import limit_of
from matchmaker.model import (
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
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Impossible:
    """Why no match can ever be made."""

    rule: int | None
    """The rule that is one too many, from 0; None: it is not about one."""
    message: str


def impossible(queue: QueueConfig) -> Iterator[Impossible]:
    """Every reason found, in the order of the rules."""
    if queue.match_function and not queue.match_function_checked:
        return
    values: dict[str, _Values] = {}
    for index, rule in enumerate(queue.rules):
        if rule.weight:
            continue
        for why in itertools.chain(_of_one_player(queue, rule, values), _of_a_match(queue, rule, values)):
            yield Impossible(rule=index, message=f"no match can ever obey it: {why}")
            break
    for why in itertools.chain(_of_the_roles(queue, values), _of_the_pool(queue)):
        yield Impossible(rule=None, message=why)


# ---- one player's value ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Values:
    """What a player's attribute may still be."""

    types: frozenset[AttributeType] = frozenset(AttributeType)
    low: float = -math.inf
    high: float = math.inf
    only: frozenset[str | float] | None = None
    """Numbers and words: none but these. Lists are not in it."""
    but: frozenset[str | float] = frozenset()
    """None of these."""

    def of(self, types: Iterable[AttributeType]) -> "_Values":
        return replace(self, types=self.types & set(types))

    def among(self, some: Iterable[str | float]) -> "_Values":
        return replace(self, only=frozenset(some) if self.only is None else self.only & set(some))

    @property
    def single(self) -> frozenset[str | float] | None:
        """The numbers and words that are left; None when they cannot be counted."""
        number, word = AttributeType.NUMBER in self.types, AttributeType.STRING in self.types
        if self.only is not None:
            fits = (v for v in self.only if (word if isinstance(v, str) else number and self.low <= v <= self.high))
            return frozenset(fits) - self.but
        if word or (number and self.low < self.high):
            return None
        return frozenset({self.low}) - self.but if number and self.low == self.high else frozenset()

    @property
    def listed(self) -> bool:
        """Whether it may be a list or a map."""
        return bool(self.types & {AttributeType.STRING_LIST, AttributeType.NUMBER_MAP})

    @property
    def none(self) -> bool:
        """Whether no value is left."""
        return self.single == frozenset() and not self.listed


def _of_one_player(queue: QueueConfig, rule: Rule, values: dict[str, _Values]) -> Iterator[str]:
    """Whether a rule and those before it leave a player any value; notes what they leave in `values`."""
    if isinstance(rule, LatencyRule | TeamSizeRule):
        return
    name, bracket, _ = rule.attribute.partition("[")
    if queue.attributes and name not in queue.attributes:
        yield f"attributes declares no {name!r}, so no player brings it"
        return
    declared = queue.attributes.get(name)
    wanted = {AttributeType.NUMBER_MAP} if bracket else _demanded(rule)
    if declared is not None and declared not in wanted:
        kinds = " or ".join(kind.value for kind in AttributeType if kind in wanted)
        yield f"{name} is declared a {declared.value}, and the rule wants a {kinds}"
        return
    whole = values.get(name, _known(queue, name))
    if bracket:
        values[name] = whole.of(wanted)
    before = values.get(rule.attribute, _known(queue, rule.attribute))
    after = before.of(_demanded(rule))
    if _asked(queue, rule):
        after = _obeying(after, rule)
    values[rule.attribute] = after
    if (after.none and not before.none) or (bracket and values[name].none and not whole.none):
        yield f"no {rule.attribute} obeys it and those before"


def _known(queue: QueueConfig, attribute: str) -> _Values:
    if "[" in attribute or (queue.ratings is not None and queue.ratings.attribute == attribute):
        return _Values(types=frozenset({AttributeType.NUMBER}))
    declared = queue.attributes.get(attribute)
    return _Values() if declared is None else _Values(types=frozenset({declared}))


def _demanded(rule: Rule) -> frozenset[AttributeType]:
    """The types of which the API wants one before a ticket may wait."""
    match rule:
        case DifferenceRule() | BatchDistanceRule() | TeamBalanceRule():
            return frozenset({AttributeType.NUMBER})
        case IntersectionRule():
            return frozenset({AttributeType.STRING_LIST})
        case ComparisonRule(operation=operation, value=value):
            if operation is Operation.EQUAL and isinstance(value, str):
                return frozenset({AttributeType.STRING})
            if operation not in (Operation.EQUAL, Operation.UNEQUAL):
                return frozenset({AttributeType.NUMBER})
        case _:
            pass
    return frozenset(AttributeType)


def _obeying(values: _Values, rule: Rule) -> _Values:
    match rule:
        case InSetRule(values=some):
            # A list obeys it by one of its words, and another such rule by another.
            lists = {AttributeType.STRING_LIST} if any(isinstance(value, str) for value in some) else set()
            return values.of({AttributeType.NUMBER, AttributeType.STRING, *lists}).among(some)
        case ComparisonRule(value=None):
            return values
        case ComparisonRule(operation=Operation.UNEQUAL, value=value) if value is not None:
            return replace(values, but=values.but | {value})
        case ComparisonRule(operation=Operation.EQUAL, value=value) if value is not None:
            return values.of({AttributeType.NUMBER, AttributeType.STRING}).among({value})
        case ComparisonRule(operation=operation, value=float() | int() as value):
            if operation in (Operation.MORE, Operation.AT_LEAST):
                low = math.nextafter(value, math.inf) if operation is Operation.MORE else float(value)
                return replace(values, low=max(values.low, low))
            high = math.nextafter(value, -math.inf) if operation is Operation.LESS else float(value)
            return replace(values, high=min(values.high, high))
        case _:
            return values


# ---- a whole match -----------------------------------------------------------------------------------------------------


def _of_a_match(queue: QueueConfig, rule: Rule, values: dict[str, _Values]) -> Iterator[str]:
    if not _asked(queue, rule):
        return
    sizes = _sizes(queue)
    match rule:
        case TeamSizeRule():
            fewer = max(least for least, _ in sizes) - min(most for _, most in sizes)
            if fewer > _loosest(queue, rule):
                yield f"the teams' sizes differ by {fewer} at least"
        case LatencyRule():
            if _loosest(queue, rule) <= 0:
                yield "no round trip is 0 ms"
        case TeamBalanceRule(by_sum=True, attribute=attribute) if len(sizes) > 1:
            yield from _alike_and_apart(queue, attribute, values[attribute])
            low, high = values[attribute].low, values[attribute].high
            sums = [(min(least * low, most * low), max(least * high, most * high)) for least, most in sizes]
            apart = max(one[0] - other[1] for one in sums for other in sums)
            if apart > _loosest(queue, rule):
                yield f"the teams' sums of {attribute} differ by {apart:g} at least"
        case _:
            yield from _alike_and_apart(queue, rule.attribute, values[rule.attribute])


def _alike_and_apart(queue: QueueConfig, attribute: str, values: _Values) -> Iterator[str]:
    """Whether every player's value must be another, and cannot be."""
    ours = [r for r in queue.rules if not r.weight and _asked(queue, r) and getattr(r, "attribute", "") == attribute]
    players = sum(least for least, _ in _sizes(queue))
    if players < 2 or not any(_apart(rule) for rule in ours):
        return
    if any(isinstance(rule, EqualRule) or _among(rule, Operation.EQUAL) for rule in ours):
        yield f"every player's {attribute} is to be another, and all the same"
    elif any(_together(queue, rule) for rule in ours):
        yield f"every player's {attribute} is to be another, and none to differ"
    elif values.single is not None and not values.listed and len(values.single) < players:
        yield f"every one of {players} players or more is to have another {attribute}, and there are {len(values.single)}"


def _apart(rule: Rule) -> bool:
    return _among(rule, Operation.UNEQUAL)


def _among(rule: Rule, operation: Operation) -> bool:
    return isinstance(rule, ComparisonRule) and rule.value is None and rule.operation is operation


def _together(queue: QueueConfig, rule: Rule) -> bool:
    """Whether players' numbers may not differ at all; those of one party, or team, may where only its own number counts."""
    match rule:
        case BatchDistanceRule():
            alone = True
        case DifferenceRule():
            alone = queue.party_max == 1
        case TeamBalanceRule():
            alone = all(team.players == 1 for team in queue.teams)
        case _:
            return False
    return alone and _loosest(queue, rule) <= 0


def _of_the_roles(queue: QueueConfig, values: dict[str, _Values]) -> Iterator[str]:
    wanted = list(dict.fromkeys(role.name for team in queue.teams for role in team.roles))
    if not wanted:
        return
    attribute = queue.role_attribute
    if queue.attributes and attribute not in queue.attributes:
        yield f"teams: attributes declares no {attribute!r}, so no player takes a role"
        return
    found = values.get(attribute, _known(queue, attribute))
    lists, words = AttributeType.STRING_LIST in found.types, AttributeType.STRING in found.types
    for role in wanted:
        if not lists and (not words or (found.single is not None and role not in found.single) or role in found.but):
            yield f"teams: nobody can take the role {role}: no player's {attribute} may say so"
    one = any(isinstance(rule, EqualRule) and rule.attribute == attribute for rule in queue.rules if _hard(queue, rule))
    if one and not lists and len(wanted) > 1:
        yield f"teams: {' and '.join(wanted)} are different roles, and a rule wants one {attribute} of everyone"


def _of_the_pool(queue: QueueConfig) -> Iterator[str]:
    tickets = sum(math.ceil(least / queue.party_max) for least, _ in _sizes(queue))
    if queue.max_tickets < tickets:
        yield f"maxTickets: {queue.max_tickets} may wait, and a match takes {tickets}"


# ---- until tickets time out --------------------------------------------------------------------------------------------


def _timeout_s(queue: QueueConfig) -> float:
    return queue.ticket_timeout_s or math.inf


def _asked(queue: QueueConfig, rule: Rule) -> bool:
    """Whether it is asked for as long as any ticket waits."""
    return rule.optional_after_s >= _timeout_s(queue)


def _hard(queue: QueueConfig, rule: Rule) -> bool:
    return not rule.weight and _asked(queue, rule)


def _loosest(queue: QueueConfig, rule: Rule) -> float:
    """The largest that its limit is while any ticket waits."""
    limit, timeout_s = limit_of(rule), _timeout_s(queue)
    reached = [step.limit for step in limit.expand if step.after_s < timeout_s]
    return max(limit.value, *reached, limit.at(timeout_s) if limit.linear else limit.value)


def _sizes(queue: QueueConfig) -> list[tuple[int, int]]:
    """Of each team the fewest and the most players that it ever starts with."""
    patient = min(queue.wait_for_full_s, queue.max_wait_s) >= _timeout_s(queue)
    return [(team.players if patient else team.fewest, team.players) for team in queue.teams]
