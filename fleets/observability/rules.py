"""
Recording rules and alerts, as data; files for Prometheus and objects for its operator are made from them.

Owns what an operator is woken for. Two severities: `page`, players suffer now or will within minutes; `ticket`, somebody should look in the daytime. Each alert
says what is wrong in one sentence and what to do first. Thresholds are starting points for games at 30 Hz; a studio changes them where the rules are loaded.
Conventions: level:metric:operations for recorded names (Prometheus' best practices); symptoms rather than causes (Google's SRE book, chapter 6).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

RUNBOOK = "docs/alerts.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A series that is computed ahead, since dashboards and alerts ask for it often."""

    name: str
    query: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Something that somebody should know."""

    name: str
    query: str
    lasting: str
    """For how long it must hold, as Prometheus writes durations."""
    severity: Literal["page", "ticket"]
    summary: str
    """One sentence; `{{ $labels.x }}` and `{{ $value }}` are filled in by Prometheus."""
    action: str
    """What to look at, and do, first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Rules that are evaluated together."""

    name: str
    recordings: Sequence[Recording] = ()
    alerts: Sequence[Alert] = field(default=())


def _quantile(quantile: float, metric: str, by: str, window: str = "5m") -> str:
    return f"histogram_quantile({quantile}, sum by ({by}, le) (rate({metric}_bucket[{window}])))"


def _share(part: str, whole: str, by: str, window: str = "5m") -> str:
    return f"sum by ({by}) (rate({part}[{window}])) / sum by ({by}) (rate({whole}[{window}]))"


_OURS = '{job=~".*warmfleet.*"}'

PLAYERS = Group(
    name="warmfleet-players",
    recordings=(
        Recording(
            name="queue_region:warmfleet_ticket_wait_seconds:p95_5m",
            query=_quantile(0.95, "warmfleet_ticket_wait_seconds", "queue, region"),
        ),
        Recording(
            name="queue:warmfleet_ticket_wait_seconds:p95_5m",
            query=_quantile(0.95, "warmfleet_ticket_wait_seconds", "queue"),
        ),
        Recording(
            name="queue:warmfleet_tickets_timed_out:ratio_rate5m",
            query=_share(
                "warmfleet_tickets_timed_out_total", 'warmfleet_tickets_created_total{outcome="made"}', "queue"
            ),
        ),
        Recording(
            name="fleet:warmfleet_client_rtt_seconds:p95_5m",
            query=_quantile(0.95, "warmfleet_client_rtt_seconds", "fleet"),
        ),
        Recording(
            name="fleet:warmfleet_datagrams_lost:ratio_rate5m",
            query="sum by (fleet) (rate(warmfleet_datagrams_lost_total[5m])) / "
            "(sum by (fleet) (rate(warmfleet_datagrams_received_total[5m])) + sum by (fleet) (rate(warmfleet_datagrams_lost_total[5m])))",
        ),
    ),
    alerts=(
        Alert(
            name="WarmfleetWaitsAreLong",
            query="queue:warmfleet_ticket_wait_seconds:p95_5m > 60",
            lasting="10m",
            severity="page",
            summary="One ticket in twenty of queue {{ $labels.queue }} waits {{ $value | humanizeDuration }} or longer for a match.",
            action="Look at the queue's depth and at why tickets stay unmatched (the console, or GET /v1/tickets/{id}/explanation): too few players at this "
            "hour want wider `expand` steps; a full pool with few proposals wants a look at the matching cycle.",
        ),
        Alert(
            name="WarmfleetTicketsTimeOut",
            query="queue:warmfleet_tickets_timed_out:ratio_rate5m > 0.05",
            lasting="10m",
            severity="page",
            summary="{{ $value | humanizePercentage }} of the tickets of queue {{ $labels.queue }} find no match in time.",
            action="As for long waits. Where the queue has several fleets, check that each of them has rooms.",
        ),
        Alert(
            name="WarmfleetMatchesFindNoServer",
            query=_share('warmfleet_matches_total{outcome="returned"}', "warmfleet_matches_total", "queue") + " > 0.01",
            lasting="5m",
            severity="page",
            summary="{{ $value | humanizePercentage }} of the matches of queue {{ $labels.queue }} get no server and go back to the queue.",
            action="`warmfleet status --why`: a fleet at its `max`, servers that fail to start, or an Agones that does not answer.",
        ),
        Alert(
            name="WarmfleetPlayersAreFar",
            query="fleet:warmfleet_client_rtt_seconds:p95_5m > 0.25",
            lasting="15m",
            severity="ticket",
            summary="One client in twenty of fleet {{ $labels.fleet }} has a round trip of {{ $value | humanizeDuration }} or more.",
            action="Compare regions: players sent far away want a stricter `latency` rule or a fleet nearer to them; all at once want a look at the network.",
        ),
        Alert(
            name="WarmfleetPacketsAreLost",
            query="fleet:warmfleet_datagrams_lost:ratio_rate5m > 0.03",
            lasting="10m",
            severity="ticket",
            summary="{{ $value | humanizePercentage }} of what UDP clients of fleet {{ $labels.fleet }} send never comes.",
            action="`warmfleet doctor node` for socket buffers and connection tables; the provider's status page for the rest.",
        ),
    ),
)

GAME_SERVERS = Group(
    name="warmfleet-game-servers",
    recordings=(
        Recording(
            name="fleet:warmfleet_tick_lateness_seconds:p99_5m",
            query=_quantile(0.99, "warmfleet_tick_lateness_seconds", "fleet"),
        ),
        Recording(
            name="fleet:warmfleet_tick_duration_seconds:p99_5m",
            query=_quantile(0.99, "warmfleet_tick_duration_seconds", "fleet"),
        ),
        Recording(
            name="fleet:warmfleet_ticks_over_budget:ratio_rate5m",
            query=_share("warmfleet_ticks_over_budget_total", "warmfleet_tick_duration_seconds_count", "fleet"),
        ),
        Recording(
            name="fleet:warmfleet_checkpoints_failed:ratio_rate5m",
            query=_share(
                'warmfleet_checkpoints_total{outcome=~"game_failed|store_away"}', "warmfleet_checkpoints_total", "fleet"
            ),
        ),
    ),
    alerts=(
        Alert(
            name="WarmfleetTicksAreLate",
            query="fleet:warmfleet_tick_lateness_seconds:p99_5m > 0.01",
            lasting="10m",
            severity="ticket",
            summary="One tick in a hundred of fleet {{ $labels.fleet }} begins {{ $value | humanizeDuration }} late or later.",
            action="`warmfleet doctor node`: CPUs shared with others, or throttled. If ticks are long as well, it is the game.",
        ),
        Alert(
            name="WarmfleetTicksAreDropped",
            query="sum by (fleet) (rate(warmfleet_ticks_dropped_total[5m])) > 0.1",
            lasting="5m",
            severity="page",
            summary="Matches of fleet {{ $labels.fleet }} run in slow motion: {{ $value | humanize }} ticks a second are given up.",
            action="Fewer `rooms` a server, or more `cpu`; `slow_tick` in the logs names sessions.",
        ),
        Alert(
            name="WarmfleetGamesFail",
            query="sum by (fleet) (increase(warmfleet_games_failed_total[10m])) > 0",
            lasting="0m",
            severity="ticket",
            summary="{{ $value | humanize }} matches of fleet {{ $labels.fleet }} ended in ten minutes because the game raised.",
            action="`game_raised` in the logs has the traceback. During a rollout: `warmfleet rollout abort`.",
        ),
        Alert(
            name="WarmfleetCheckpointsFail",
            query="fleet:warmfleet_checkpoints_failed:ratio_rate5m > 0.05",
            lasting="5m",
            severity="page",
            summary="{{ $value | humanizePercentage }} of the checkpoints of fleet {{ $labels.fleet }} are not kept: a lost server would now cost progress.",
            action="`game_does_not_save` in the logs is the game's; `checkpoint_failed` is the session store's.",
        ),
        Alert(
            name="WarmfleetServersStandStill",
            query="sum by (fleet) (increase(warmfleet_stalls_total[15m])) > 3",
            lasting="0m",
            severity="ticket",
            summary="Game servers of fleet {{ $labels.fleet }} stood still for a second or more {{ $value | humanize }} times in 15 minutes.",
            action="CPU throttling (a limit below the request), swap, or a game that blocks.",
        ),
    ),
)

FLEETS = Group(
    name="warmfleet-fleets",
    recordings=(
        Recording(
            name="fleet:warmfleet_allocations_cold:ratio_rate15m",
            query=_share(
                'warmfleet_allocations_total{temperature="cold"}', "warmfleet_allocations_total", "fleet", "15m"
            ),
        ),
    ),
    alerts=(
        Alert(
            name="WarmfleetShelfIsEmpty",
            query='max by (fleet) (warmfleet_shelf_rooms{what="claimable"}) == 0 and max by (fleet) (warmfleet_shelf_waiters) > 0',
            lasting="1m",
            severity="page",
            summary="Fleet {{ $labels.fleet }} has had no room to claim for a minute, and matches wait.",
            action="`warmfleet status --why`: is it at its `max`, do servers fail to start, does Agones answer?",
        ),
        Alert(
            name="WarmfleetStartsAreCold",
            query="fleet:warmfleet_allocations_cold:ratio_rate15m > 0.02",
            lasting="15m",
            severity="ticket",
            summary="{{ $value | humanizePercentage }} of the matches of fleet {{ $labels.fleet }} waited for a server to start.",
            action="`warmfleet simulate` with the recorded demand; a larger `shelf`, a `schedule` for the evening, or a smaller `coldStartChance`.",
        ),
        Alert(
            name="WarmfleetFleetIsAtItsMax",
            query="max by (fleet) (warmfleet_autoscaler_limited) == 1",
            lasting="10m",
            severity="ticket",
            summary="Fleet {{ $labels.fleet }} may not have as many servers as its players want.",
            action="Raise `warm.max`, and the cluster's own maximum of nodes with it.",
        ),
        Alert(
            name="WarmfleetAutoscalerIsBlind",
            query='sum by (fleet) (increase(warmfleet_autoscaler_decisions_total{how="blind"}[5m])) > 0',
            lasting="5m",
            severity="ticket",
            summary="The autoscaler does not see the demand for fleet {{ $labels.fleet }}; it takes nothing away meanwhile.",
            action="`demand_unknown` in its logs: the session store.",
        ),
        Alert(
            name="WarmfleetServersFailToStart",
            query="max by (fleet) (warmfleet_fleet_starts_failed) >= 3",
            lasting="1m",
            severity="page",
            summary="{{ $value | humanize }} starts of servers of fleet {{ $labels.fleet }} failed in a row.",
            action="`warmfleet status` shows the reason and the last lines of the log.",
        ),
        Alert(
            name="WarmfleetServersDoNotGetReady",
            query='max by (fleet) (warmfleet_fleet_servers{state="other"}) > 0 '
            'and max by (fleet) (warmfleet_fleet_servers{state="Ready"}) == 0',
            lasting="15m",
            severity="ticket",
            summary="Servers of fleet {{ $labels.fleet }} have been on their way for 15 minutes, and none is Ready.",
            action="`kubectl describe gameserver`: an image that is not pulled, no node with room, a sidecar that is another server's.",
        ),
        Alert(
            name="WarmfleetServersAreLost",
            query='sum(increase(warmfleet_sessions_moved_total{why="lost"}[10m])) > 5',
            lasting="0m",
            severity="ticket",
            summary="{{ $value | humanize }} matches lost their server in ten minutes, and go on elsewhere.",
            action="Crashes of one version want `warmfleet rollout undo`; crashes on one node want it drained.",
        ),
        Alert(
            name="WarmfleetNobodyKeepsTheShelf",
            query="sum by (fleet) (warmfleet_keeper_leads) < 1",
            lasting="1m",
            severity="page",
            summary="No allocator keeps the shelf of fleet {{ $labels.fleet }}: rooms run out, and lost matches are not moved.",
            action="The allocator's pods and logs (`keeper_waits`).",
        ),
        Alert(
            name="WarmfleetBackendFails",
            query=_share(
                'warmfleet_backend_calls_total{outcome="unavailable"}', "warmfleet_backend_calls_total", "backend"
            )
            + " > 0.1",
            lasting="5m",
            severity="page",
            summary="{{ $value | humanizePercentage }} of the calls to {{ $labels.backend }} fail: no new servers reach the shelf.",
            action="Agones' allocator and the API server; claims go on from the shelf as long as it lasts.",
        ),
        Alert(
            name="WarmfleetCertificateExpires",
            query="warmfleet_backend_certificate_expiry_timestamp_seconds > 0 and warmfleet_backend_certificate_expiry_timestamp_seconds - time() < 7 * 86400",
            lasting="1h",
            severity="ticket",
            summary="The allocation client's certificate expires within a week.",
            action="Renew the Secret; it is taken up without a restart.",
        ),
    ),
)

PLATFORM = Group(
    name="warmfleet-platform",
    recordings=(
        Recording(
            name="queue:warmfleet_matching_cycle_seconds:p95_5m",
            query=_quantile(0.95, "warmfleet_matching_cycle_seconds", "queue"),
        ),
        Recording(
            name="warmfleet_store_ping_seconds:p99_5m", query=_quantile(0.99, "warmfleet_store_ping_seconds", "job")
        ),
    ),
    alerts=(
        Alert(
            name="WarmfleetNobodyDirectsAQueue",
            query="sum by (queue) (warmfleet_director_leads) < 1",
            lasting="30s",
            severity="page",
            summary="No director makes matches of queue {{ $labels.queue }}.",
            action="The directors' pods and logs (`director_waits`).",
        ),
        Alert(
            name="WarmfleetMatchingIsSlow",
            query="queue:warmfleet_matching_cycle_seconds:p95_5m > 2",
            lasting="10m",
            severity="ticket",
            summary="A look at the waiting tickets of queue {{ $labels.queue }} takes {{ $value | humanizeDuration }}.",
            action="Split the queue by an attribute that all its matches are equal in, or give the director more CPU.",
        ),
        Alert(
            name="WarmfleetMatchingFails",
            query="sum by (queue) (increase(warmfleet_matching_failures_total[10m])) > 0",
            lasting="0m",
            severity="page",
            summary="The matching process of queue {{ $labels.queue }} died or took too long {{ $value | humanize }} times in ten minutes.",
            action="The director's logs; a match function of the studio's own is the first suspect.",
        ),
        Alert(
            name="WarmfleetStoreIsAway",
            query="max by (job) (warmfleet_store_up) < 1",
            lasting="30s",
            severity="page",
            summary="No service of {{ $labels.job }} reaches the session store; running matches go on, nothing new begins.",
            action="Valkey's pod, its failover, the network policy between.",
        ),
        Alert(
            name="WarmfleetStoreIsSlow",
            query="warmfleet_store_ping_seconds:p99_5m > 0.05",
            lasting="10m",
            severity="ticket",
            summary="One answer in a hundred of the session store takes {{ $value | humanizeDuration }} or longer.",
            action="SLOWLOG GET; CPU of Valkey's one thread; a disk that `appendfsync` waits for.",
        ),
        Alert(
            name="WarmfleetStoreFillsUp",
            query="max(warmfleet_store_memory_bytes) / (max(warmfleet_store_memory_max_bytes) > 0) > 0.85",
            lasting="10m",
            severity="ticket",
            summary="The session store uses {{ $value | humanizePercentage }} of the memory that it may.",
            action="Raise `maxmemory` before it refuses writes; MEMORY USAGE of the largest checkpoints.",
        ),
        Alert(
            name="WarmfleetStoreEvicts",
            query="max(delta(warmfleet_store_evicted_keys[10m])) > 0",
            lasting="0m",
            severity="page",
            summary="The session store threw {{ $value | humanize }} keys away for want of memory: those are sessions and tickets.",
            action="`maxmemory-policy noeviction`, at once; then more memory.",
        ),
        Alert(
            name="WarmfleetEventsAreDead",
            query='sum by (sink) (increase(warmfleet_events_relayed_total{outcome=~"dead|expired"}[10m])) > 0',
            lasting="0m",
            severity="ticket",
            summary="{{ $value | humanize }} events did not get to {{ $labels.sink }} in ten minutes: refused, not taken in twelve tries, or trimmed before.",
            action="`sink_waits` and `events_dead` in the logs of `events` have the reason; it is in the streams `… events:dead:SINK` for 30 days.",
        ),
        Alert(
            name="WarmfleetProcessIsAway",
            query=f"up{_OURS} == 0",
            lasting="2m",
            severity="ticket",
            summary="{{ $labels.job }} at {{ $labels.instance }} does not tell its metrics.",
            action="Is it gone, or does a network policy forbid to ask?",
        ),
        Alert(
            name="WarmfleetDescriptorsRunOut",
            query=f"process_open_fds{_OURS} / process_max_fds{_OURS} > 0.8",
            lasting="5m",
            severity="ticket",
            summary="{{ $labels.job }} at {{ $labels.instance }} uses {{ $value | humanizePercentage }} of its file descriptors.",
            action="A higher limit, if it has so many clients; else a leak.",
        ),
    ),
)

GROUPS = (PLAYERS, GAME_SERVERS, FLEETS, PLATFORM)


def rule_groups() -> dict[str, Any]:
    """The groups as a rule file of Prometheus has them; also the `spec` of a PrometheusRule."""
    return {"groups": [_group(group) for group in GROUPS]}


def alerts() -> tuple[Alert, ...]:
    """Every alert."""
    return tuple(alert for group in GROUPS for alert in group.alerts)


def recordings() -> tuple[Recording, ...]:
    """Every recorded series."""
    return tuple(recording for group in GROUPS for recording in group.recordings)


def _group(group: Group) -> Mapping[str, Any]:
    recorded = [{"record": recording.name, "expr": recording.query} for recording in group.recordings]
    raised = [
        {
            "alert": alert.name,
            "expr": alert.query,
            "for": alert.lasting,
            "labels": {"severity": alert.severity},
            "annotations": {
                "summary": alert.summary,
                "description": alert.action,
                "runbook_url": f"{RUNBOOK}#{alert.name.lower()}",
            },
        }
        for alert in group.alerts
    ]
    return {"name": group.name, "rules": [*recorded, *raised]}
