"""
Forming matches: oldest first, from the nearest neighbours, each one judged by every rule before it is proposed.

Pure and deterministic. Tickets are grouped by their values of the `equal` rules and sorted by the attribute of the first difference rule; the
oldest ticket looks outwards from its own place for the nearest tickets that fit, so nobody starves while a match exists near it.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from matchmaker.matching.rules import agree, check, fleets_for, number
from matchmaker.model import DifferenceRule, EqualRule, Proposal, QueueConfig, TeamBalanceRule, Ticket

_Row = tuple[float, str, Ticket]
"""Sorting value, ticket id (so that equal values have an order), ticket."""
_LOOK = 64
"""Neighbours that a ticket tries per cycle; the others it meets in later cycles, as the nearest ones leave."""


def form_matches(queue: QueueConfig, pool: Sequence[Ticket], now_s: float) -> list[Proposal]:
    """
    Propose matches from the tickets that wait; no ticket is in two of them.

    Args:
        pool: any order, ids unique.
        now_s: Unix seconds, the clock of `Ticket.created_at_s`.
    Returns: the proposals, those of the oldest tickets first.
    """
    difference = next((rule for rule in queue.rules if isinstance(rule, DifferenceRule)), None)
    equal = [rule.attribute for rule in queue.rules if isinstance(rule, EqualRule)]
    groups: dict[tuple[object, ...], list[_Row]] = defaultdict(list)
    for ticket in pool:
        value = number(ticket, difference.attribute, queue.aggregate) if difference else ticket.created_at_s
        if value is not None:
            key = tuple(ticket.players[0].attributes.get(attribute) for attribute in equal)
            groups[key].append((value, ticket.id, ticket))
    proposals = [proposal for group in groups.values() for proposal in _from_group(queue, sorted(group), now_s)]
    proposals.sort(key=lambda proposal: min((ticket.created_at_s, ticket.id) for ticket in proposal.tickets))
    return proposals


def _from_group(queue: QueueConfig, group: list[_Row], now_s: float) -> Iterator[Proposal]:
    used: set[str] = set()
    for place in sorted(range(len(group)), key=lambda i: (group[i][2].created_at_s, group[i][1])):
        if group[place][1] in used:
            continue
        proposal = _around(queue, group, place, used, now_s)
        if proposal is not None:
            used.update(ticket.id for ticket in proposal.tickets)
            yield proposal


def _around(queue: QueueConfig, group: list[_Row], place: int, used: set[str], now_s: float) -> Proposal | None:
    """Gather the nearest tickets that fit until the teams are full."""
    seed = group[place][2]
    chosen = [seed]
    room = sorted((team.players for team in queue.teams), reverse=True)
    if not _fill(room, len(seed.players)):
        return None
    for ticket in _neighbours(group, place, used):
        if not any(room):
            break
        trial = list(room)
        if _fill(trial, len(ticket.players)) and agree(queue, [*chosen, ticket], now_s):
            chosen.append(ticket)
            room = trial
    if any(room):
        return None
    teams = _split(queue, chosen)
    if teams is None or check(queue, teams, now_s):
        return None
    return Proposal(teams=teams, fleets=fleets_for(queue, chosen, now_s))


def _neighbours(group: list[_Row], place: int, used: set[str]) -> Iterator[Ticket]:
    """Unused tickets by distance from the one at `place`, nearest first, `_LOOK` at most."""
    low, high, value, seen = place - 1, place + 1, group[place][0], 0
    while seen < _LOOK and (low >= 0 or high < len(group)):
        take_low = high >= len(group) or (low >= 0 and value - group[low][0] <= group[high][0] - value)
        ticket = group[low if take_low else high][2]
        low, high = (low - 1, high) if take_low else (low, high + 1)
        if ticket.id not in used:
            seen += 1
            yield ticket


def _fill(room: list[int], size: int) -> bool:
    """Take `size` places of one team, the fullest that has them; False when none has."""
    fitting = [i for i, left in enumerate(room) if left >= size]
    if not fitting:
        return False
    room[min(fitting, key=lambda i: room[i])] -= size
    return True


def _split(queue: QueueConfig, tickets: Sequence[Ticket]) -> tuple[tuple[Ticket, ...], ...] | None:
    """Deal tickets into teams: larger parties first, then the strongest, each to the weakest team that has the places."""
    rule = next((rule for rule in queue.rules if isinstance(rule, DifferenceRule | TeamBalanceRule)), None)
    attribute = rule.attribute if rule else ""
    strength = {
        ticket.id: (number(ticket, attribute, queue.aggregate) or 0.0) * len(ticket.players) for ticket in tickets
    }
    teams: list[list[Ticket]] = [[] for _ in queue.teams]
    room = [team.players for team in queue.teams]
    power = [0.0] * len(teams)
    for ticket in sorted(tickets, key=lambda t: (-len(t.players), -strength[t.id], t.id)):
        fitting = [i for i, left in enumerate(room) if left >= len(ticket.players)]
        if not fitting:
            return None
        index = min(fitting, key=lambda i: (power[i] / max(1, queue.teams[i].players), i))
        teams[index].append(ticket)
        room[index] -= len(ticket.players)
        power[index] += strength[ticket.id]
    return tuple(tuple(team) for team in teams)
