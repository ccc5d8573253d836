"""From the YAML's models to the words of the packages below."""

import hashlib
import math
from collections.abc import Iterable
from datetime import time
from typing import Any, assert_never

from allocator.model import FleetPolicy, Strategy
from fleets.autoscaler.policy import FleetAim
from fleets.autoscaler.schedule import DAYS, Schedule
from fleets.spec.fleet import FleetSpec, ScheduleBody
from fleets.spec.queue import (
    BatchDistance,
    Comparison,
    Difference,
    Equal,
    InSet,
    Intersection,
    Latency,
    QueueSpec,
    RuleBody,
    TeamBalance,
    TeamBody,
    TeamSize,
    team_names,
)
from fleets.spec.types import size_bytes
from gameserver.sessions.model import FleetName
from matchmaker.model import (
    BatchDistanceRule,
    ComparisonRule,
    DifferenceRule,
    EqualRule,
    InSetRule,
    IntersectionRule,
    LatencyRule,
    Limit,
    QueueConfig,
    QueueName,
    RatingConfig,
    Role,
    Rule,
    Step,
    Team,
    TeamBalanceRule,
    TeamSizeRule,
)


def to_policy(fleet: FleetSpec) -> FleetPolicy:
    """What the allocator must know of a fleet."""
    server = fleet.spec.server
    return FleetPolicy(
        name=FleetName(fleet.metadata.name),
        rooms=server.rooms,
        shelf=fleet.spec.warm.shelf,
        recycle=server.recycle == "ready",
        seats=server.seats,
        labels=fleet.metadata.labels,
        min=fleet.spec.warm.min,
        max=fleet.spec.warm.max,
        strategy=Strategy(server.strategy),
        weight=fleet.spec.weight,
        region=fleet.metadata.labels.get("region", ""),
        migrate=fleet.spec.disruption.on_drain == "migrate",
        managed=server.game is not None,
    )


def to_secure(fleets: Iterable[FleetSpec]) -> dict[FleetName, str]:
    """The fleets of a cluster whose WebSockets are TLS, and the domain that their servers' names are in; "" for none."""
    return {
        FleetName(fleet.metadata.name): fleet.spec.server.tls.domain or ""
        for fleet in fleets
        if fleet.spec.server.tls is not None
    }


def to_aim(fleet: FleetSpec) -> FleetAim:
    """What the autoscaler must know of a fleet."""
    warm, server = fleet.spec.warm, fleet.spec.server
    return FleetAim(
        rooms=server.rooms,
        shelf=warm.shelf,
        min=warm.min,
        max=warm.max,
        chance=warm.cold_start_chance,
        recycle=server.recycle == "ready",
        idle_to_zero_s=warm.idle_to_zero,
        schedules=tuple(_schedule(schedule) for schedule in warm.schedules),
    )


def _schedule(body: ScheduleBody) -> Schedule:
    return Schedule(
        name=body.name,
        ready=body.ready,
        for_s=body.for_,
        lead_s=body.lead,
        at_s=None if body.at is None else body.at.timestamp(),
        daily=time.fromisoformat(body.daily or "00:00"),
        days=tuple(body.days or DAYS),
        zone=body.timezone,
    )


def to_queue_config(queue: QueueSpec, fleets: tuple[FleetSpec, ...]) -> QueueConfig:
    """What the matchmaker must know of a queue."""
    spec = queue.spec
    regions = {FleetName(fleet.metadata.name): fleet.metadata.labels.get("region", "") for fleet in fleets}
    return QueueConfig(
        name=QueueName(queue.metadata.name),
        fleets=tuple(FleetName(name) for name in spec.fleets),
        teams=tuple(_team(team, name) for team in spec.teams for name in team_names(team)),
        rules=tuple(_rule(rule) for rule in spec.rules),
        attributes=dict(spec.attributes),
        regions={fleet: region for fleet, region in regions.items() if fleet in spec.fleets},
        party_max=spec.party.max,
        aggregate=spec.party.aggregate,
        ticket_timeout_s=spec.ticket_timeout,
        max_tickets=spec.max_tickets,
        options=dict(spec.options),
        role_attribute=spec.role_attribute,
        wait_for_full_s=spec.wait_for_full,
        max_wait_s=math.inf if spec.max_wait is None else spec.max_wait,
        priorities=dict(spec.priorities),
        avoid_for_s=spec.avoid_for,
        match_function=spec.match.function if spec.match else "",
        match_function_limit_s=spec.match.timeout if spec.match else 2.0,
        match_function_memory_bytes=size_bytes(spec.match.memory) if spec.match else 2 << 30,
        match_function_checked=spec.match is None or spec.match.rules == "checked",
        acceptance_s=spec.acceptance.timeout if spec.acceptance else 0.0,
        leave_steps_s=tuple(spec.leaving.steps) if spec.leaving else (),
        signed_latency=spec.latency == "signed",
        backfill=spec.backfill.enabled,
        leave_running=spec.leaving is None or spec.leaving.running,
        leave_policy=spec.leaving.policy if spec.leaving else "",
        ratings=None if spec.ratings is None else RatingConfig(**spec.ratings.model_dump()),
    )


def version_of(fleet: FleetSpec) -> str:
    """Changes when what runs in the fleet's servers changes."""
    return hashlib.sha256(fleet.spec.server.model_dump_json().encode()).hexdigest()[:8]


def _team(team: TeamBody, name: str) -> Team:
    roles = tuple(Role(name=role.name, players=role.players) for role in team.roles)
    return Team(name=name, players=team.players, minimum=team.min or 0, roles=roles)


def _rule(rule: RuleBody) -> Rule:
    common: dict[str, Any] = {
        "age": rule.age,
        "optional_after_s": math.inf if rule.optional_after is None else rule.optional_after,
        "weight": rule.weight or 0.0,
    }
    match rule:
        case Difference():
            to, aggregate = rule.to, rule.aggregate
            return DifferenceRule(attribute=rule.attribute, limit=_limit(rule), to=to, aggregate=aggregate, **common)
        case BatchDistance():
            return BatchDistanceRule(attribute=rule.attribute, limit=_limit(rule), **common)
        case Latency():
            return LatencyRule(limit=_limit(rule), minimise=rule.minimise, **common)
        case Equal():
            return EqualRule(attribute=rule.attribute, **common)
        case InSet():
            return InSetRule(attribute=rule.attribute, values=tuple(rule.values), **common)
        case Intersection():
            steps = tuple(Step(after_s=step.after, limit=step.min) for step in rule.expand)
            return IntersectionRule(attribute=rule.attribute, minimum=rule.min, expand=steps, **common)
        case TeamBalance():
            by_sum = rule.by == "sum"
            return TeamBalanceRule(attribute=rule.attribute, limit=_limit(rule), by_sum=by_sum, **common)
        case TeamSize():
            return TeamSizeRule(limit=_limit(rule), **common)
        case Comparison():
            return ComparisonRule(attribute=rule.attribute, operation=rule.is_, value=rule.value, **common)
        case _:
            assert_never(rule)


def _limit(rule: Difference | BatchDistance | Latency | TeamBalance | TeamSize) -> Limit:
    steps = tuple(Step(after_s=step.after, limit=step.max) for step in rule.expand)
    return Limit(value=rule.max, expand=steps, linear=rule.ramp)
