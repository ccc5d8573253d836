"""
The rules, one by one: do these tickets obey them now? Pure.

`check` is the judge: every match that is proposed has passed it whole, however it was found.
"""

from collections.abc import Iterable, Sequence
from typing import assert_never

from gameserver.sessions.model import FleetName
from matchmaker.model import (
    Aggregate,
    DifferenceRule,
    EqualRule,
    IntersectionRule,
    LatencyRule,
    QueueConfig,
    Rule,
    TeamBalanceRule,
    Ticket,
)


def number(ticket: Ticket, attribute: str, aggregate: Aggregate) -> float | None:
    """A party's number: aggregated over its players; None when one of them has none."""
    values = [player.attributes.get(attribute) for player in ticket.players]
    numbers = [value for value in values if isinstance(value, float | int)]
    if len(numbers) < len(values):
        return None
    match aggregate:
        case Aggregate.MIN:
            return min(numbers)
        case Aggregate.MAX:
            return max(numbers)
        case Aggregate.MEAN:
            return sum(numbers) / len(numbers)


def check(queue: QueueConfig, teams: Sequence[Sequence[Ticket]], now_s: float) -> str:
    """The first rule that a match breaks, in words; empty when it obeys them all."""
    if [sum(len(ticket.players) for ticket in team) for team in teams] != [team.players for team in queue.teams]:
        return "the teams are not full"
    return next(filter(None, (_broken(queue, rule, teams, now_s) for rule in queue.rules)), "")


def agree(queue: QueueConfig, tickets: Sequence[Ticket], now_s: float) -> bool:
    """Whether tickets could be in one match, however they are dealt into teams."""
    rules = (rule for rule in queue.rules if not isinstance(rule, TeamBalanceRule))
    return not any(_broken(queue, rule, (tickets,), now_s) for rule in rules)


def regions_of(queue: QueueConfig, tickets: Iterable[Ticket], now_s: float) -> dict[str, float] | None:
    """Region → worst round trip of the tickets' players, for regions within every latency limit; None without a latency rule."""
    rule = next((rule for rule in queue.rules if isinstance(rule, LatencyRule)), None)
    if rule is None:
        return None
    worst: dict[str, float] = {region: 0.0 for region in queue.regions.values() if region}
    for ticket in tickets:
        limit = rule.limit.at(now_s - ticket.created_at_s)
        for region in tuple(worst):
            slowest = max(player.latencies_ms.get(region, float("inf")) for player in ticket.players)
            if slowest > limit:
                del worst[region]
            else:
                worst[region] = max(worst[region], slowest)
    return worst


def fleets_for(queue: QueueConfig, tickets: Iterable[Ticket], now_s: float) -> tuple[FleetName, ...]:
    """The fleets that a match may run on, best first: by the slowest player's round trip, else in the queue's order."""
    regions = regions_of(queue, tickets, now_s)
    if regions is None:
        return queue.fleets
    near = [fleet for fleet in queue.fleets if queue.regions.get(fleet, "") in regions]
    return tuple(sorted(near, key=lambda fleet: regions[queue.regions[fleet]]))


def _broken(queue: QueueConfig, rule: Rule, teams: Sequence[Sequence[Ticket]], now_s: float) -> str:
    tickets = [ticket for team in teams for ticket in team]
    match rule:
        case DifferenceRule(attribute=attribute, limit=limit):
            numbers = [number(ticket, attribute, queue.aggregate) for ticket in tickets]
            known = [value for value in numbers if value is not None]
            allowed = min(limit.at(now_s - ticket.created_at_s) for ticket in tickets)
            if len(known) < len(numbers) or max(known) - min(known) > allowed:
                return f"{attribute} differs by more than {allowed:g}"
        case LatencyRule():
            if not regions_of(queue, tickets, now_s):
                return "no region is near enough to everyone"
        case EqualRule(attribute=attribute):
            if len({player.attributes.get(attribute) for ticket in tickets for player in ticket.players}) > 1:
                return f"{attribute} is not the same"
        case IntersectionRule(attribute=attribute, minimum=minimum):
            sets = [set(_values(player.attributes.get(attribute))) for ticket in tickets for player in ticket.players]
            if len(set.intersection(*sets)) < minimum:
                return f"{attribute} has fewer than {minimum} in common"
        case TeamBalanceRule(attribute=attribute, limit=limit):
            means = [_mean(team, attribute) for team in teams]
            allowed = min(limit.at(now_s - ticket.created_at_s) for ticket in tickets)
            if (
                None in means
                or max(m for m in means if m is not None) - min(m for m in means if m is not None) > allowed
            ):
                return f"the teams' {attribute} differs by more than {allowed:g}"
        case _:
            assert_never(rule)
    return ""


def _values(value: object) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else ()


def _mean(team: Sequence[Ticket], attribute: str) -> float | None:
    values = [player.attributes.get(attribute) for ticket in team for player in ticket.players]
    numbers = [value for value in values if isinstance(value, float | int)]
    return sum(numbers) / len(numbers) if numbers and len(numbers) == len(values) else None
