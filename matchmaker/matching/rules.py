"""
The rules, one by one: do these tickets obey them now? Pure, and as plain as docs/rules.md, whose words it follows.

`check` is the judge: every match that is proposed obeys it, however it was found. What finds matches fast lives elsewhere
(`matching.scan`, `matching.exact`) and is held to this page by the tests.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import assert_never

from gameserver.sessions.model import FleetName, PlayerId
from matchmaker.model import (
    Age,
    Aggregate,
    Attribute,
    BatchDistanceRule,
    ComparisonRule,
    DifferenceRule,
    EqualRule,
    InSetRule,
    IntersectionRule,
    LatencyRule,
    Limit,
    Operation,
    QueueConfig,
    Reference,
    Rule,
    Team,
    TeamBalanceRule,
    TeamSizeRule,
    Ticket,
    TicketPlayer,
)

Teams = Sequence[Sequence[Ticket]]
_NONE = Limit(value=0.0)
"""The limit of rules that are obeyed or not."""


def value_of(player: TicketPlayer, attribute: str) -> Attribute | None:
    """A player's attribute; `skill[tank]` is the number `tank` of the attribute `skill`. None when there is none."""
    if attribute.endswith("]") and "[" in attribute:
        name, _, key = attribute[:-1].partition("[")
        numbers = player.attributes.get(name)
        return numbers.get(key) if isinstance(numbers, Mapping) else None
    return player.attributes.get(attribute)


def values_of(player: TicketPlayer, attribute: str) -> tuple[str | float, ...]:
    """A player's attribute as a list: a single value is a list of one, no value an empty one."""
    value = value_of(player, attribute)
    if value is None or isinstance(value, Mapping):
        return ()
    return value if isinstance(value, tuple) else (value,)


def number(ticket: Ticket, attribute: str, aggregate: Aggregate) -> float | None:
    """A party's number: aggregated over its players; None when one of them has none."""
    numbers = _numbers([ticket], attribute)
    if numbers is None:
        return None
    match aggregate:
        case Aggregate.MIN:
            return min(numbers)
        case Aggregate.MAX:
            return max(numbers)
        case Aggregate.MEAN:
            return math.fsum(numbers) / len(numbers)


def check(queue: QueueConfig, teams: Teams, now_s: float) -> str:
    """The first rule that a match breaks, in words; empty when it obeys them all. Soft rules are not asked."""
    tickets = [ticket for team in teams for ticket in team]
    broken = _misfit(queue, teams, now_s) or strangers(queue, tickets, now_s)
    return broken or next(filter(None, (broken_rule(queue, rule, teams, now_s) for rule in queue.rules)), "")


def agree(queue: QueueConfig, tickets: Sequence[Ticket], now_s: float) -> bool:
    """Whether tickets could be in one match, however they are dealt into teams: every rule but those about teams and about the match's mean."""
    if strangers(queue, tickets, now_s):
        return False
    return not any(broken_rule(queue, rule, (tickets,), now_s) for rule in queue.rules if is_pairwise(rule))


def is_pairwise(rule: Rule) -> bool:
    """Whether a rule may be asked of any tickets, and not only of a whole match dealt into teams."""
    if isinstance(rule, DifferenceRule):
        return rule.to is Reference.PAIR
    return not isinstance(rule, TeamBalanceRule | TeamSizeRule)


def quality(queue: QueueConfig, teams: Teams, now_s: float) -> float:
    """
    How good a match is, from 0 to 1.

    1 minus the weighted mean of its rules' badness. A rule that measures something is as bad as the measure's share of the loosest limit that the
    rule ever has (at most 1); a soft rule that is only obeyed or not is 0 or 1 bad; a hard one of that kind does not count. Weight: the soft rule's
    own, else 1. A latency rule counts when it is soft or minimises.
    """
    whole, bad = 0.0, 0.0
    for rule in queue.rules:
        badness = _badness(queue, rule, teams, now_s)
        if badness is not None:
            whole += rule.weight or 1.0
            bad += (rule.weight or 1.0) * badness
    return 1.0 - bad / whole if whole else 1.0


def regions_of(queue: QueueConfig, tickets: Sequence[Ticket], now_s: float) -> dict[str, float] | None:
    """Region → worst round trip of the tickets' players, for regions that the latency rule allows; None without such a rule."""
    rule = next((rule for rule in queue.rules if isinstance(rule, LatencyRule)), None)
    if rule is None:
        return None
    worst: dict[str, float] = {region: 0.0 for region in queue.regions.values() if region}
    common = None if rule.age is Age.OWN else allowed(rule, tickets, now_s)
    for ticket in tickets:
        limit = _bound(rule, now_s - ticket.created_at_s) if common is None else common
        for region in tuple(worst):
            slowest = max(player.latencies_ms.get(region, math.inf) for player in ticket.players)
            if slowest > limit and not rule.weight:
                del worst[region]
            else:
                worst[region] = max(worst[region], slowest)
    return worst


def fleets_for(queue: QueueConfig, tickets: Sequence[Ticket], now_s: float) -> tuple[FleetName, ...]:
    """The fleets that a match may run on, best first: by the slowest player's round trip, else in the queue's order."""
    regions = regions_of(queue, tickets, now_s)
    if regions is None:
        return queue.fleets
    near = [fleet for fleet in queue.fleets if queue.regions.get(fleet, "") in regions]
    return tuple(sorted(near, key=lambda fleet: regions[queue.regions[fleet]]))


def roles_of(team: Team, players: Sequence[TicketPlayer], attribute: str) -> dict[PlayerId, str] | None:
    """
    Who takes which of a team's roles; None when a role's place stays empty.

    Args:
        attribute: the players' role, or list of roles that they take.
    """
    places = [role.name for role in team.roles for _ in range(role.players)]
    willing = [values_of(player, attribute) for player in players]
    seated: dict[int, int] = {}  # place → player

    def seat(place: int, seen: set[int]) -> bool:
        """Give a place a player, moving others to other places where that helps (an augmenting path)."""
        for index, roles in enumerate(willing):
            if index in seen or places[place] not in roles:
                continue
            seen.add(index)
            held = next((other for other, holder in seated.items() if holder == index), None)
            if held is None or seat(held, seen):
                if held is not None and seated.get(held) == index:
                    del seated[held]
                seated[place] = index
                return True
        return False

    if not all(seat(place, set()) for place in range(len(places))):
        return None
    return {players[index].id: places[place] for place, index in seated.items()}


def allowed(rule: Rule, tickets: Sequence[Ticket], now_s: float) -> float:
    """The limit that a rule puts on these tickets now; infinite when it is not asked any more."""
    ages_s = [now_s - ticket.created_at_s for ticket in tickets]
    match rule.age:
        case Age.OWN:
            return min(_bound(rule, age_s) for age_s in ages_s)
        case Age.NEWEST:
            return _bound(rule, min(ages_s))
        case Age.OLDEST:
            return _bound(rule, max(ages_s))


def obeys(rule: InSetRule | ComparisonRule, player: TicketPlayer) -> bool:
    """Whether a player obeys a rule about everyone alone (not a comparison without a constant)."""
    if isinstance(rule, InSetRule):
        return bool(set(values_of(player, rule.attribute)) & set(rule.values))
    return _compares(rule, [player])


def limit_of(rule: Rule) -> Limit:
    """A rule's limit as an upper one: a minimum of common values counts below zero, and what is obeyed or not has the limit 0."""
    match rule:
        case EqualRule() | InSetRule() | ComparisonRule():
            return _NONE
        case IntersectionRule(minimum=minimum, expand=expand):
            steps = tuple(type(step)(after_s=step.after_s, limit=-step.limit) for step in expand)
            return Limit(value=-minimum, expand=steps)
        case _:
            return rule.limit


def broken_rule(queue: QueueConfig, rule: Rule, teams: Teams, now_s: float) -> str:
    """In which words a match breaks a hard rule; empty when it obeys it."""
    if rule.weight:
        return ""
    tickets = [ticket for team in teams for ticket in team]
    if isinstance(rule, LatencyRule):
        return "" if regions_of(queue, tickets, now_s) else "no region is near enough to everyone"
    if isinstance(rule, InSetRule) or (isinstance(rule, ComparisonRule) and rule.value is not None):
        asked = [
            ticket
            for ticket in tickets
            if allowed(rule, (ticket,) if rule.age is Age.OWN else tickets, now_s) < math.inf
        ]
        return _words(rule, 0.0) if not all(obeys(rule, player) for t in asked for player in t.players) else ""
    limit = allowed(rule, tickets, now_s)
    return _words(rule, limit) if _measure(queue, rule, tickets, teams) > limit else ""


def _bound(rule: Rule, age_s: float) -> float:
    return math.inf if age_s >= rule.optional_after_s else limit_of(rule).at(age_s)


def _misfit(queue: QueueConfig, teams: Teams, now_s: float) -> str:
    """Whether the teams are full enough, and their roles filled."""
    if len(teams) != len(queue.teams):
        return "the teams are not full"
    ages_s = [now_s - ticket.created_at_s for team in teams for ticket in team]
    patient = max(ages_s, default=0.0) < min(queue.wait_for_full_s, queue.max_wait_s)
    for team, tickets in zip(queue.teams, teams, strict=True):
        size = sum(len(ticket.players) for ticket in tickets)
        if not (team.players if patient else team.fewest) <= size <= team.players:
            return "the teams are not full"
    for team, tickets in zip(queue.teams, teams, strict=True):
        if team.roles and roles_of(team, [p for t in tickets for p in t.players], queue.role_attribute) is None:
            return f"the roles of team {team.name} are not filled"
    return ""


def strangers(queue: QueueConfig, tickets: Sequence[Ticket], now_s: float) -> str:
    """Whether somebody would meet a player whom they blocked, or avoid."""
    home = {player.id: index for index, ticket in enumerate(tickets) for player in ticket.players}
    for index, ticket in enumerate(tickets):
        shy = now_s - ticket.created_at_s < queue.avoid_for_s
        for player in ticket.players:
            if any(home.get(other, index) != index for other in player.blocked):
                return "a player is blocked by another"
            if shy and any(home.get(other, index) != index for other in player.avoided):
                return "a player is avoided by another"
    return ""


def _measure(queue: QueueConfig, rule: Rule, tickets: Sequence[Ticket], teams: Teams) -> float:
    """What a rule's limit is a limit of; infinite when a player lacks what it takes."""
    players = [player for ticket in tickets for player in ticket.players]
    match rule:
        case DifferenceRule(attribute=attribute):
            values = [number(ticket, attribute, rule.aggregate or queue.aggregate) for ticket in tickets]
            known = [value for value in values if value is not None]
            if len(known) < len(values):
                return math.inf
            if rule.to is Reference.PAIR:
                return max(known) - min(known)
            sizes = [len(ticket.players) for ticket in tickets]
            mean = math.fsum(value * size for value, size in zip(known, sizes, strict=True)) / sum(sizes)
            return max(abs(value - mean) for value in known)
        case BatchDistanceRule(attribute=attribute):
            numbers = _numbers(tickets, attribute)
            return math.inf if numbers is None else max(numbers) - min(numbers)
        case EqualRule(attribute=attribute):
            return math.inf if len({_hashable(value_of(player, attribute)) for player in players}) > 1 else 0.0
        case InSetRule():
            return 0.0 if all(obeys(rule, player) for player in players) else math.inf
        case IntersectionRule(attribute=attribute):
            sets = [set(_words_of(value_of(player, attribute))) for player in players]
            return -float(len(set.intersection(*sets)))
        case TeamBalanceRule(attribute=attribute, by_sum=by_sum):
            dealt = [_numbers(team, attribute) for team in teams if team or by_sum]
            if any(numbers is None for numbers in dealt):
                return math.inf
            powers = [math.fsum(ns) / (1 if by_sum else len(ns)) for ns in dealt if ns is not None]
            return max(powers) - min(powers)
        case TeamSizeRule():
            sizes = [sum(len(ticket.players) for ticket in team) for team in teams]
            return float(max(sizes) - min(sizes))
        case ComparisonRule():
            return 0.0 if _compares(rule, players) else math.inf
        case LatencyRule():
            return min((regions_of(queue, tickets, 0.0) or {}).values(), default=math.inf)
        case _:
            assert_never(rule)


def _badness(queue: QueueConfig, rule: Rule, teams: Teams, now_s: float) -> float | None:
    tickets = [ticket for team in teams for ticket in team]
    if isinstance(rule, LatencyRule):
        if not rule.weight and not rule.minimise:
            return None
        measure = min((regions_of(queue, tickets, now_s) or {}).values(), default=math.inf)
    elif isinstance(rule, EqualRule | InSetRule | ComparisonRule | IntersectionRule):
        if not rule.weight:
            return None
        return 1.0 if _measure(queue, rule, tickets, teams) > allowed(rule, tickets, now_s) else 0.0
    else:
        measure = _measure(queue, rule, tickets, teams)
    loosest = limit_of(rule).loosest
    return min(1.0, measure / loosest) if loosest > 0 else float(measure > 0)


_COMPARES: dict[Operation, Callable[[float, float], bool]] = {
    Operation.LESS: lambda a, b: a < b,
    Operation.AT_MOST: lambda a, b: a <= b,
    Operation.AT_LEAST: lambda a, b: a >= b,
    Operation.MORE: lambda a, b: a > b,
}


def _compares(rule: ComparisonRule, players: Iterable[TicketPlayer]) -> bool:
    values = [_hashable(value_of(player, rule.attribute)) for player in players]
    if rule.value is None:
        distinct = len(set(values))
        return distinct == (len(values) if rule.operation is Operation.UNEQUAL else 1)
    if rule.operation is Operation.EQUAL:
        return all(value == rule.value for value in values)
    if rule.operation is Operation.UNEQUAL:
        return all(value != rule.value for value in values)
    compare, constant = _COMPARES[rule.operation], rule.value
    return isinstance(constant, float | int) and all(
        isinstance(value, float | int) and compare(value, constant) for value in values
    )


def _words(rule: Rule, limit: float) -> str:
    match rule:
        case DifferenceRule(attribute=attribute):
            return f"{attribute} differs {'from its mean ' if rule.to is Reference.MEAN else ''}by more than {limit:g}"
        case BatchDistanceRule(attribute=attribute):
            return f"the players' {attribute} differs by more than {limit:g}"
        case EqualRule(attribute=attribute):
            return f"{attribute} is not the same"
        case InSetRule(attribute=attribute):
            return f"{attribute} is none of those wanted"
        case IntersectionRule(attribute=attribute):
            return f"{attribute} has fewer than {-limit:g} in common"
        case TeamBalanceRule(attribute=attribute):
            return f"the teams' {attribute} differs by more than {limit:g}"
        case TeamSizeRule():
            return f"the teams' sizes differ by more than {limit:g}"
        case ComparisonRule(attribute=attribute, operation=operation, value=value):
            if value is None:
                return (
                    f"{attribute} is not {'different' if operation is Operation.UNEQUAL else 'the same'} for everyone"
                )
            return f"{attribute} is not {operation.value} {value}"
        case LatencyRule():
            return "no region is near enough to everyone"
        case _:
            assert_never(rule)


def _numbers(tickets: Iterable[Ticket], attribute: str) -> list[float] | None:
    values = [value_of(player, attribute) for ticket in tickets for player in ticket.players]
    numbers = [float(value) for value in values if isinstance(value, float | int)]
    return numbers if len(numbers) == len(values) and numbers else None


def _hashable(value: Attribute | None) -> object:
    return tuple(sorted(value.items())) if isinstance(value, Mapping) else value


def _words_of(value: Attribute | None) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else ()
