"""
Why a ticket still waits: who else does, which rule stands between them, and when that relaxes. Pure.

Judged by the rules themselves (`matching.rules`), ticket by ticket: what holds between this ticket and each of the others. Names no other player.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from matchmaker.matching.rules import (
    agree,
    broken_rule,
    is_pairwise,
    limit_of,
    number,
    strangers,
)
from matchmaker.model import (
    BatchDistanceRule,
    ComparisonRule,
    DifferenceRule,
    EqualRule,
    InSetRule,
    IntersectionRule,
    LatencyRule,
    QueueConfig,
    Rule,
    TeamBalanceRule,
    TeamSizeRule,
    Ticket,
)

MOST_LOOKED_AT = 256
"""Of the others: a few milliseconds' work."""


class Verdict(StrEnum):
    """What a ticket waits for."""

    FEW_PLAYERS = "few-players"
    """Not enough of them wait in the queue, whatever the rules say."""
    RULE = "rule"
    """Enough wait, but a rule keeps too many of them away."""
    TEAMS = "teams"
    """Enough fit one by one; together, in teams and roles, they do not yet, or the director has not looked since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How one hard rule stands between the ticket and the others."""

    index: int
    """In the queue's rules, from 0."""
    title: str
    """Its type and attribute."""
    limit: float | None
    """Now, at the ticket's age; None where the rule has none, or is not asked any more."""
    next_limit: float | None
    relaxes_in_s: float | None
    """When the limit changes, or the rule is asked no more; 0 while it changes evenly; None: never."""
    fits: int
    """Others that the rule lets meet the ticket now."""
    fits_next: int
    """The same once it has relaxed."""
    alone: int
    """Others whom this rule keeps away, and no other one."""
    nearest: float | None
    """The smallest difference to another ticket, where the rule is about one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a ticket still waits."""

    verdict: Verdict
    detail: str
    """The same in a sentence."""
    waiting: int
    """Other tickets in the queue."""
    looked_at: int
    """Of these; the counts below are of them."""
    wanted_players: int
    """That a match takes at least besides the ticket's own."""
    candidates: int
    """Others that fit by every rule that can be asked of two tickets."""
    candidate_players: int
    blocked: int
    """Others who hold or are held off by a block list."""
    rules: tuple[Standing, ...]
    blocking: int | None = None
    """The rule to blame, by its index."""


def explain(queue: QueueConfig, ticket: Ticket, others: Sequence[Ticket], now_s: float, *, waiting: int) -> Explanation:
    """
    Say why `ticket` waits.

    Args:
        others: tickets that wait, this one not among them; the nearest by the first difference rule are looked at if they are many.
        now_s: the store's clock, Unix seconds.
        waiting: how many others there are in all.
    """
    near = _nearest(queue, ticket, others)
    candidates = [other for other in near if agree(queue, (ticket, other), now_s)]
    asked = [(index, rule) for index, rule in enumerate(queue.rules) if not rule.weight and is_pairwise(rule)]
    broken = [{index for index, rule in asked if _apart(queue, rule, ticket, other, now_s)} for other in near]
    standings = tuple(_standing(queue, index, rule, ticket, near, broken, now_s) for index, rule in asked)
    found = Explanation(
        verdict=Verdict.TEAMS,
        detail="",
        waiting=waiting,
        looked_at=len(near),
        wanted_players=max(0, queue.fewest - len(ticket.players)),
        candidates=len(candidates),
        candidate_players=sum(len(other.players) for other in candidates),
        blocked=sum(bool(strangers(queue, (ticket, other), now_s)) for other in near),
        rules=standings,
    )
    return _judged(found, sum(len(other.players) for other in near))


def _judged(found: Explanation, players: int) -> Explanation:
    wanted = found.wanted_players
    if found.candidate_players >= wanted:
        detail = f"{found.candidates} of {found.looked_at} others fit one by one; a match of them is looked for"
        return replace(found, verdict=Verdict.TEAMS, detail=detail)
    to_blame = max(found.rules, key=lambda rule: (rule.alone, -rule.fits), default=None)
    if (players < wanted and found.looked_at == found.waiting) or to_blame is None or to_blame.fits == found.looked_at:
        away = f", {found.blocked} are held off by block lists" if found.blocked else ""
        detail = f"a match takes {wanted} more players, {players} wait{away}"
        return replace(found, verdict=Verdict.FEW_PLAYERS, detail=detail)
    detail = f"{to_blame.title} lets {to_blame.fits} of {found.looked_at} others meet it"
    if to_blame.relaxes_in_s is not None:
        when = "is relaxing now" if not to_blame.relaxes_in_s else f"relaxes in {to_blame.relaxes_in_s:.1f} s"
        detail += f"; it {when}, then {to_blame.fits_next} do"
    return replace(found, verdict=Verdict.RULE, detail=detail, blocking=to_blame.index)


def _standing(
    queue: QueueConfig,
    index: int,
    rule: Rule,
    ticket: Ticket,
    near: Sequence[Ticket],
    broken: Sequence[set[int]],
    now_s: float,
) -> Standing:
    age_s = max(0.0, now_s - ticket.created_at_s)
    limit = limit_of(rule)
    after_s = min(limit.relaxes_after_s(age_s), rule.optional_after_s if rule.optional_after_s > age_s else math.inf)
    then_s = now_s + (after_s - age_s) if after_s < math.inf else now_s
    fits = sum(index not in some for some in broken)
    return Standing(
        index=index,
        title=title(rule),
        limit=_shown(rule, age_s),
        next_limit=_shown(rule, after_s) if after_s < math.inf else None,
        relaxes_in_s=after_s - age_s if after_s < math.inf else None,
        fits=fits,
        fits_next=sum(not _apart(queue, rule, ticket, other, then_s) for other in near) if then_s > now_s else fits,
        alone=sum(some == {index} for some in broken),
        nearest=_gap(queue, rule, ticket, near),
    )


_TITLES = {
    DifferenceRule: "difference",
    BatchDistanceRule: "batchDistance",
    LatencyRule: "latency",
    EqualRule: "equal",
    InSetRule: "inSet",
    IntersectionRule: "intersection",
    TeamBalanceRule: "teamBalance",
    TeamSizeRule: "teamSize",
    ComparisonRule: "comparison",
}


def title(rule: Rule) -> str:
    """A rule's type, as its YAML has it, and its attribute."""
    attribute = "" if isinstance(rule, LatencyRule | TeamSizeRule) else rule.attribute
    return f"{_TITLES[type(rule)]} {attribute}".rstrip()


def _apart(queue: QueueConfig, rule: Rule, ticket: Ticket, other: Ticket, now_s: float) -> bool:
    return bool(broken_rule(queue, rule, ((ticket, other),), now_s))


def _shown(rule: Rule, age_s: float) -> float | None:
    """A rule's limit as its YAML has it."""
    if isinstance(rule, EqualRule | InSetRule | ComparisonRule) or age_s >= rule.optional_after_s:
        return None
    return abs(limit_of(rule).at(age_s))


def _gap(queue: QueueConfig, rule: Rule, ticket: Ticket, near: Sequence[Ticket]) -> float | None:
    if not isinstance(rule, DifferenceRule | BatchDistanceRule):
        return None
    mine = _number(queue, rule, ticket)
    theirs = [_number(queue, rule, other) for other in near]
    return None if mine is None else min((abs(mine - value) for value in theirs if value is not None), default=None)


def _number(queue: QueueConfig, rule: DifferenceRule | BatchDistanceRule, ticket: Ticket) -> float | None:
    own = rule.aggregate if isinstance(rule, DifferenceRule) else None
    return number(ticket, rule.attribute, own or queue.aggregate)


def _nearest(queue: QueueConfig, ticket: Ticket, others: Sequence[Ticket]) -> Sequence[Ticket]:
    if len(others) <= MOST_LOOKED_AT:
        return others
    rule = next((rule for rule in queue.rules if isinstance(rule, DifferenceRule)), None)
    mine = None if rule is None else _number(queue, rule, ticket)
    if rule is None or mine is None:
        return others[:MOST_LOOKED_AT]

    def gap(other: Ticket) -> float:
        value = _number(queue, rule, other)
        return math.inf if value is None else abs(mine - value)

    return sorted(others, key=gap)[:MOST_LOOKED_AT]
