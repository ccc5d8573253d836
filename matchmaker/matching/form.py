"""
Forming matches: oldest first, from the nearest neighbours, each one judged by every rule before it is proposed.

Pure and deterministic. Tickets are grouped by their values of the `equal` rules and sorted by the attribute of the first difference rule (else
of the first balance rule, else by age); the oldest ticket looks outwards from its own place for the nearest tickets that fit, so nobody starves
while a match exists near it.
"""

import math
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
    sorting = difference or next((rule for rule in queue.rules if isinstance(rule, TeamBalanceRule)), None)
    equal = [rule.attribute for rule in queue.rules if isinstance(rule, EqualRule)]
    groups: dict[tuple[object, ...], list[_Row]] = defaultdict(list)
    for ticket in pool:
        value = number(ticket, sorting.attribute, queue.aggregate) if sorting else ticket.created_at_s
        if value is not None:
            key = tuple(ticket.players[0].attributes.get(attribute) for attribute in equal)
            groups[key].append((value, ticket.id, ticket))
    proposals = [
        proposal for group in groups.values() for proposal in _from_group(queue, difference, sorted(group), now_s)
    ]
    proposals.sort(key=lambda proposal: min((ticket.created_at_s, ticket.id) for ticket in proposal.tickets))
    return proposals


def _from_group(
    queue: QueueConfig, difference: DifferenceRule | None, group: list[_Row], now_s: float
) -> Iterator[Proposal]:
    used: set[str] = set()
    for place in sorted(range(len(group)), key=lambda i: (group[i][2].created_at_s, group[i][1])):
        seed = group[place][2]
        if seed.id in used:
            continue
        reach = difference.limit.at(now_s - seed.created_at_s) if difference else math.inf
        proposal = _around(queue, seed, _neighbours(group, place, used, reach), now_s)
        if proposal is not None:
            used.update(ticket.id for ticket in proposal.tickets)
            yield proposal


def _around(queue: QueueConfig, seed: Ticket, neighbours: Iterator[Ticket], now_s: float) -> Proposal | None:
    """Gather the nearest tickets that fit until the teams are full; the last place goes to the first that makes a match of them."""
    chosen = [seed]
    room = sorted((team.players for team in queue.teams), reverse=True)
    if not _fill(room, len(seed.players)):
        return None
    if not any(room):
        return _proposal(queue, chosen, now_s)
    for ticket in neighbours:
        trial = list(room)
        if not _fill(trial, len(ticket.players)) or not agree(queue, [*chosen, ticket], now_s):
            continue
        if any(trial):
            chosen.append(ticket)
            room = trial
        elif (proposal := _proposal(queue, [*chosen, ticket], now_s)) is not None:
            return proposal
    return None


def _proposal(queue: QueueConfig, tickets: Sequence[Ticket], now_s: float) -> Proposal | None:
    """Tickets that fill the teams as a match, if one of the two ways to deal them obeys every rule."""
    for balanced in (True, False):
        teams = _split(queue, tickets, balanced=balanced)
        if teams is not None and not check(queue, teams, now_s):
            return Proposal(teams=teams, fleets=fleets_for(queue, tickets, now_s))
    return None


def _neighbours(group: list[_Row], place: int, used: set[str], reach: float) -> Iterator[Ticket]:
    """Unused tickets by distance from the one at `place`, nearest first: none beyond `reach`, and `_LOOK` at most."""
    low, high, value, seen = place - 1, place + 1, group[place][0], 0
    while seen < _LOOK:
        below = value - group[low][0] if low >= 0 else math.inf
        above = group[high][0] - value if high < len(group) else math.inf
        if min(below, above) > reach or (low < 0 and high >= len(group)):
            return
        take_low = low >= 0 and below <= above
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


def _split(queue: QueueConfig, tickets: Sequence[Ticket], *, balanced: bool) -> tuple[tuple[Ticket, ...], ...] | None:
    """
    Deal tickets into teams: larger parties first, then the strongest.

    Each goes to the weakest team that has the places when `balanced`, else to the fullest (3, 3, 2, 2, 2 fill two teams of 6 only so).
    """
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
        index = min(fitting, key=lambda i: (power[i] / max(1, queue.teams[i].players) if balanced else room[i], i))
        teams[index].append(ticket)
        room[index] -= len(ticket.players)
        power[index] += strength[ticket.id]
    return tuple(tuple(team) for team in teams)
