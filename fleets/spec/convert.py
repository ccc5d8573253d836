"""From the YAML's models to the words of the packages below."""

import hashlib
from datetime import time
from typing import assert_never

from allocator.model import FleetPolicy, Strategy
from fleets.autoscaler.policy import FleetAim
from fleets.autoscaler.schedule import DAYS, Schedule
from fleets.spec.fleet import FleetSpec, ScheduleBody
from fleets.spec.queue import Difference, Equal, Intersection, Latency, QueueSpec, RuleBody, TeamBalance
from gameserver.sessions.model import FleetName
from matchmaker.model import (
    DifferenceRule,
    EqualRule,
    IntersectionRule,
    LatencyRule,
    Limit,
    QueueConfig,
    QueueName,
    Rule,
    Step,
    Team,
    TeamBalanceRule,
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
        teams=tuple(Team(name=team.name, players=team.players) for team in spec.teams),
        rules=tuple(_rule(rule) for rule in spec.rules),
        regions={fleet: region for fleet, region in regions.items() if fleet in spec.fleets},
        party_max=spec.party.max,
        aggregate=spec.party.aggregate,
        ticket_timeout_s=spec.ticket_timeout,
        max_tickets=spec.max_tickets,
        options=dict(spec.options),
        acceptance_s=spec.acceptance.timeout if spec.acceptance else 0.0,
        leave_steps_s=tuple(spec.leaving.steps) if spec.leaving else (),
        leave_policy=spec.leaving.policy if spec.leaving else "",
    )


def version_of(fleet: FleetSpec) -> str:
    """Changes when what runs in the fleet's servers changes."""
    return hashlib.sha256(fleet.spec.server.model_dump_json().encode()).hexdigest()[:8]


def _rule(rule: RuleBody) -> Rule:
    match rule:
        case Difference():
            return DifferenceRule(attribute=rule.attribute, limit=_limit(rule))
        case Latency():
            return LatencyRule(limit=_limit(rule))
        case Equal():
            return EqualRule(attribute=rule.attribute)
        case Intersection():
            return IntersectionRule(attribute=rule.attribute, minimum=rule.min)
        case TeamBalance():
            return TeamBalanceRule(attribute=rule.attribute, limit=_limit(rule))
        case _:
            assert_never(rule)


def _limit(rule: Difference | Latency | TeamBalance) -> Limit:
    return Limit(value=rule.max, expand=tuple(Step(after_s=step.after, limit=step.max) for step in rule.expand))
