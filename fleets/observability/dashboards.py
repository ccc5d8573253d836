"""
Grafana dashboards, as data: five, each a question that an operator asks; JSON is made from them.

Owns what is shown and by which query. Layout follows from the order; every panel has a unit and says what to look for. A query names the variables
`$fleet` and `$queue`, and `$__rate_interval`, which is Grafana's: four scrapes at least.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

_RATE = "$__rate_interval"
_COLUMNS = 24
_HEIGHT = 8
_STAT_HEIGHT = 4

Shown = Literal["timeseries", "stat", "heatmap"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One picture."""

    title: str
    queries: Mapping[str, str]
    """Legend to PromQL; a legend may name labels, as in `{{fleet}}`."""
    unit: str = "short"
    """Of Grafana: s, bytes, percentunit, reqps, short."""
    told: str = ""
    shown: Shown = "timeseries"
    width: int = 8
    """Of 24 columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """One page."""

    uid: str
    title: str
    told: str
    rows: Mapping[str, Sequence[Panel]]


def _quantiles(metric: str, by: str = "", where: str = "", of: Sequence[float] = (0.5, 0.95, 0.99)) -> dict[str, str]:
    grouped, legend = (f"{by}, le", f" {{{{{by}}}}}") if by else ("le", "")
    return {
        f"p{100 * q:g}{legend}": f"histogram_quantile({q}, sum by ({grouped}) (rate({metric}_bucket{where}[{_RATE}])))"
        for q in of
    }


def _rate(metric: str, by: str, where: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{where}[{_RATE}]))"


def _heatmap(title: str, metric: str, where: str, unit: str, told: str, width: int = 12) -> Panel:
    query = f"sum by (le) (increase({metric}_bucket{where}[{_RATE}]))"
    return Panel(title=title, queries={"{{le}}": query}, unit=unit, told=told, shown="heatmap", width=width)


_FLEET, _QUEUE = '{fleet=~"$fleet"}', '{queue=~"$queue"}'

JOURNEY = Dashboard(
    uid="warmfleet-journey",
    title="Warmfleet: a player's journey",
    told="From the ticket to the match, as players meet it: how long each step takes, and where players are lost on the way.",
    rows={
        "Now": (
            Panel(title="Tickets waiting", queries={"": f"sum(warmfleet_matching_pool_tickets{_QUEUE})"}, shown="stat", width=4),
            Panel(title="Oldest ticket", queries={"": f"max(warmfleet_ticket_oldest_seconds{_QUEUE})"}, unit="s", shown="stat", width=4),
            Panel(title="Matches a minute", queries={"": f'60 * sum(rate(warmfleet_matches_total{{queue=~"$queue",outcome="assigned"}}[{_RATE}]))'}, shown="stat", width=4),
            Panel(title="Players connected", queries={"": f"sum(warmfleet_players_connected{_FLEET})"}, shown="stat", width=4),
            Panel(title="Time out", queries={"": "max(queue:warmfleet_tickets_timed_out:ratio_rate5m)"}, unit="percentunit", shown="stat", width=4),
            Panel(title="Cold starts", queries={"": "max(fleet:warmfleet_allocations_cold:ratio_rate15m)"}, unit="percentunit", shown="stat", width=4),
        ),
        "1. Wait for a match": (
            Panel(title="Wait by queue", queries=_quantiles("warmfleet_ticket_wait_seconds", "queue", _QUEUE, (0.5, 0.95)), unit="s", told="From a ticket's creation to its match."),
            Panel(title="Wait by region, 95 %", queries={"{{queue}} {{region}}": "queue_region:warmfleet_ticket_wait_seconds:p95_5m"}, unit="s"),
            Panel(title="Tickets", queries={"{{queue}} {{outcome}}": _rate("warmfleet_tickets_created_total", "queue, outcome", _QUEUE), "{{queue}} timed out": _rate("warmfleet_tickets_timed_out_total", "queue", _QUEUE)}, unit="reqps"),
        ),
        "2. Get a server": (
            Panel(title="From match to assignment", queries=_quantiles("warmfleet_match_placing_seconds", "queue", _QUEUE, (0.5, 0.99)), unit="s", told="Milliseconds from the shelf; the lead time of a server when it is cold."),
            Panel(title="How warm", queries={"{{temperature}}": _rate("warmfleet_allocations_total", "temperature", _FLEET)}, unit="reqps", told="shelf: claimed at once. buffer: a Ready server had to be allocated. cold: one had to start."),
            Panel(title="How matches end up", queries={"{{queue}} {{outcome}}": _rate("warmfleet_matches_total", "queue, outcome", _QUEUE)}, unit="reqps"),
        ),
        "3. Play": (
            Panel(title="Round trip", queries=_quantiles("warmfleet_client_rtt_seconds", "fleet", _FLEET, (0.5, 0.95)), unit="s"),
            Panel(title="Jitter, 95 %", queries=_quantiles("warmfleet_client_jitter_seconds", "fleet", _FLEET, (0.95,)), unit="s"),
            Panel(title="Loss (UDP)", queries={"{{fleet}}": "fleet:warmfleet_datagrams_lost:ratio_rate5m"}, unit="percentunit"),
        ),
    },
)  # fmt: skip

FLEETS = Dashboard(
    uid="warmfleet-fleets",
    title="Warmfleet: fleets",
    told="Whether there are servers where players want them, how warm, and why the autoscaler decided as it did.",
    rows={
        "Warmth": (
            Panel(title="Shelf", queries={"{{fleet}} {{what}}": f"max by (fleet, what) (warmfleet_shelf_rooms{_FLEET})"}, told="Rooms: claimable now, wanted, in use."),
            Panel(title="Servers by state", queries={"{{fleet}} {{state}}": f"max by (fleet, state) (warmfleet_fleet_servers{_FLEET})"}),
            Panel(title="Matches that wait for a room", queries={"{{fleet}}": f"max by (fleet) (warmfleet_shelf_waiters{_FLEET})"}),
            Panel(title="Time to a server, 99 %", queries=_quantiles("warmfleet_allocation_seconds", "temperature", "", (0.99,)), unit="s"),
            Panel(title="Share of cold starts", queries={"{{fleet}}": "fleet:warmfleet_allocations_cold:ratio_rate15m"}, unit="percentunit"),
            Panel(title="Refused", queries={"{{cause}}": _rate("warmfleet_unallocated_total", "cause")}, unit="reqps"),
        ),
        "Autoscaler": (
            Panel(title="Decision", queries={"{{fleet}} all": f"max by (fleet) (warmfleet_autoscaler_wanted_servers{_FLEET})", "{{fleet}} Ready": f"max by (fleet) (warmfleet_autoscaler_buffer_servers{_FLEET})"}, told="Servers that should be there, and how many of them Ready."),
            Panel(title="What it expects", queries={"{{fleet}} matches until a new server is Ready": f"max by (fleet) (warmfleet_autoscaler_expected_matches{_FLEET})", "{{fleet}} warm rooms that takes": f"max by (fleet) (warmfleet_autoscaler_warm_rooms{_FLEET})"}),
            Panel(title="What it sees", queries={"{{fleet}} free": f"max by (fleet) (warmfleet_autoscaler_free_rooms{_FLEET})", "{{fleet}} waiting": f"max by (fleet) (warmfleet_autoscaler_waiting_matches{_FLEET})", "{{fleet}} live": f"max by (fleet) (warmfleet_autoscaler_live_sessions{_FLEET})"}),
            Panel(title="Lead time", queries={"{{fleet}}": f"max by (fleet) (warmfleet_autoscaler_lead_seconds{_FLEET})"}, unit="s"),
            Panel(title="Decisions", queries={"{{fleet}} {{how}}": _rate("warmfleet_autoscaler_decisions_total", "fleet, how", _FLEET)}, unit="reqps"),
            Panel(title="At its max", queries={"{{fleet}}": f"max by (fleet) (warmfleet_autoscaler_limited{_FLEET})"}),
        ),
        "Recovery": (
            Panel(title="Sessions moved", queries={"{{why}}": _rate("warmfleet_sessions_moved_total", "why")}, unit="reqps"),
            Panel(title="Handed over", queries={"{{fleet}} {{outcome}}": _rate("warmfleet_sessions_handed_over_total", "fleet, outcome", _FLEET)}, unit="reqps"),
            Panel(title="Failed starts in a row", queries={"{{fleet}}": f"max by (fleet) (warmfleet_fleet_starts_failed{_FLEET})"}),
        ),
    },
)  # fmt: skip

MATCHMAKING = Dashboard(
    uid="warmfleet-matchmaking",
    title="Warmfleet: matchmaking",
    told="Whether matches are good and soon enough, and whether the matching keeps up.",
    rows={
        "Queues": (
            Panel(title="Depth", queries={"{{queue}}": f"max by (queue) (warmfleet_matching_pool_tickets{_QUEUE})"}),
            Panel(title="Oldest ticket", queries={"{{queue}}": f"max by (queue) (warmfleet_ticket_oldest_seconds{_QUEUE})"}, unit="s"),
            Panel(title="Share that times out", queries={"{{queue}}": "queue:warmfleet_tickets_timed_out:ratio_rate5m"}, unit="percentunit"),
            Panel(title="Estimates of the wait that were kept", queries={"{{queue}}": f'sum by (queue) (rate(warmfleet_wait_estimates_total{{queue=~"$queue",outcome="kept"}}[{_RATE}])) / sum by (queue) (rate(warmfleet_wait_estimates_total{_QUEUE}[{_RATE}]))'}, unit="percentunit", width=12, told="Tickets are told a time within which nine of ten are matched."),
            Panel(title="Error of the estimates", queries=_quantiles("warmfleet_wait_estimate_error_seconds", "queue", _QUEUE, (0.5, 0.95)), unit="s", width=12),
            _heatmap("Waits", "warmfleet_ticket_wait_seconds", _QUEUE, "s", "Each column is a moment, each row a length of wait."),
            _heatmap("Quality", "warmfleet_matching_quality", _QUEUE, "percentunit", "Of proposed matches; 100 %: every measured rule at its best."),
        ),
        "Matching": (
            Panel(title="Cycle", queries=_quantiles("warmfleet_matching_cycle_seconds", "queue", _QUEUE, (0.5, 0.95)), unit="s"),
            Panel(title="Director's look at its queue, 95 %", queries=_quantiles("warmfleet_director_cycle_seconds", "queue", _QUEUE, (0.95,)), unit="s"),
            Panel(title="Proposals", queries={"{{queue}}": _rate("warmfleet_matching_proposals_total", "queue", _QUEUE)}, unit="reqps"),
            Panel(title="Leaders", queries={"{{queue}}": f"sum by (queue) (warmfleet_director_leads{_QUEUE})"}, told="One each, always."),
            Panel(title="Takeovers, adoptions, failures", queries={"{{queue}} takeovers": _rate("warmfleet_director_takeovers_total", "queue", _QUEUE), "{{queue}} adopted": _rate("warmfleet_matches_adopted_total", "queue", _QUEUE), "{{queue}} failures": _rate("warmfleet_matching_failures_total", "queue", _QUEUE)}, unit="reqps"),
            Panel(title="Backfilled and seated", queries={"{{queue}} backfilled": _rate("warmfleet_backfilled_players_total", "queue", _QUEUE), "{{fleet}} {{outcome}}": _rate("warmfleet_seated_parties_total", "fleet, outcome", _FLEET)}, unit="reqps"),
        ),
        "Ratings, shadows, beacons": (
            Panel(title="Sessions rated", queries={"{{queue}} {{outcome}}": _rate("warmfleet_sessions_rated_total", "queue, outcome", _QUEUE)}, unit="reqps"),
            Panel(title="Shadow queues: waits", queries=_quantiles("warmfleet_shadow_ticket_wait_seconds", "queue", "", (0.5, 0.95)), unit="s", told="What the tickets of a live queue would have waited by other rules."),
            Panel(title="Shadow queues: tickets, beacons", queries={"{{queue}} {{outcome}}": _rate("warmfleet_shadow_tickets_total", "queue, outcome"), "beacon {{region}} {{outcome}}": _rate("warmfleet_beacon_requests_total", "region, outcome")}, unit="reqps"),
        ),
        "API": (
            Panel(title="Followers", queries={"": "sum(warmfleet_ticket_watchers)"}, told="Open event streams, WebSockets and long polls."),
            Panel(title="Cut off, limited", queries={"did not read": "sum(rate(warmfleet_ticket_watchers_dropped_total[$__rate_interval]))", "429": "sum(rate(warmfleet_requests_rate_limited_total[$__rate_interval]))"}, unit="reqps"),
            Panel(title="Left matches", queries={"{{queue}}": _rate("warmfleet_player_offences_total", "queue", _QUEUE)}, unit="reqps"),
        ),
    },
)  # fmt: skip

GAME_SERVERS = Dashboard(
    uid="warmfleet-gameservers",
    title="Warmfleet: inside the game servers",
    told="Whether ticks begin on time and end in time, what clients are sent, and whether matches would survive their server.",
    rows={
        "Ticks": (
            _heatmap("Lateness", "warmfleet_tick_lateness_seconds", _FLEET, "s", "How late ticks begin: a neighbour on the CPU shows as a second band."),
            _heatmap("Duration", "warmfleet_tick_duration_seconds", _FLEET, "s", "How long ticks take."),
            Panel(title="Lateness, 99 %", queries={"{{fleet}}": "fleet:warmfleet_tick_lateness_seconds:p99_5m"}, unit="s"),
            Panel(title="Over budget", queries={"{{fleet}}": "fleet:warmfleet_ticks_over_budget:ratio_rate5m"}, unit="percentunit"),
            Panel(title="Dropped ticks, standstills", queries={"{{fleet}} ticks": _rate("warmfleet_ticks_dropped_total", "fleet", _FLEET), "{{fleet}} standstills": _rate("warmfleet_stalls_total", "fleet", _FLEET)}, unit="reqps"),
        ),
        "Clients": (
            Panel(title="Rooms and players", queries={"{{fleet}} rooms": f"sum by (fleet) (warmfleet_rooms{_FLEET})", "{{fleet}} players": f"sum by (fleet) (warmfleet_players_connected{_FLEET})"}),
            Panel(title="Snapshots", queries={"{{fleet}} sent": _rate("warmfleet_snapshots_sent_total", "fleet", _FLEET), "{{fleet}} skipped": _rate("warmfleet_snapshots_skipped_total", "fleet", _FLEET)}, unit="reqps"),
            Panel(title="Bytes of snapshots", queries={"{{fleet}}": _rate("warmfleet_snapshots_sent_bytes_total", "fleet", _FLEET)}, unit="Bps"),
            Panel(title="Largest snapshot of a tick", queries=_quantiles("warmfleet_snapshot_largest_bytes", "fleet", _FLEET, (0.5, 0.99)), unit="bytes", told="Beyond 1,200 bytes UDP needs several datagrams."),
            Panel(title="Inputs dropped", queries={"{{fleet}}": _rate("warmfleet_inputs_dropped_total", "fleet", _FLEET)}, unit="reqps"),
            Panel(title="Datagrams", queries={"{{fleet}} taken": _rate("warmfleet_datagrams_received_total", "fleet", _FLEET), "{{fleet}} lost": _rate("warmfleet_datagrams_lost_total", "fleet", _FLEET), "{{fleet}} ignored": _rate("warmfleet_datagrams_ignored_total", "fleet", _FLEET), "{{fleet}} unsent": _rate("warmfleet_datagrams_unsent_total", "fleet", _FLEET)}, unit="reqps"),
        ),
        "Matches that survive": (
            Panel(title="Checkpoints", queries={"{{fleet}} {{outcome}}": _rate("warmfleet_checkpoints_total", "fleet, outcome", _FLEET)}, unit="reqps"),
            Panel(title="The game's save(), 99 %", queries=_quantiles("warmfleet_checkpoint_save_seconds", "fleet", _FLEET, (0.99,)), unit="s"),
            Panel(title="Bytes of checkpoints", queries={"{{fleet}}": _rate("warmfleet_checkpoint_bytes_total", "fleet", _FLEET)}, unit="Bps"),
            Panel(title="How rooms end", queries={"{{fleet}} {{outcome}}": _rate("warmfleet_rooms_ended_total", "fleet, outcome", _FLEET)}, unit="reqps"),
            Panel(title="Restored, fenced, failed", queries={"{{fleet}} restored": _rate("warmfleet_rooms_restored_total", "fleet", _FLEET), "{{fleet}} fenced": _rate("warmfleet_rooms_fenced_total", "fleet", _FLEET), "{{fleet}} failed": _rate("warmfleet_games_failed_total", "fleet", _FLEET)}, unit="reqps"),
            Panel(title="Word with the session store, 99 %", queries=_quantiles("warmfleet_heartbeat_seconds", "fleet", _FLEET, (0.99,)), unit="s"),
        ),
    },
)  # fmt: skip

PLATFORM = Dashboard(
    uid="warmfleet-platform",
    title="Warmfleet: platform",
    told="What everything stands on: the session store, Agones, and our own processes.",
    rows={
        "Session store": (
            Panel(title="Answers", queries={"{{job}}": "min by (job) (warmfleet_store_up)"}),
            Panel(title="PING", queries=_quantiles("warmfleet_store_ping_seconds"), unit="s"),
            Panel(title="Commands a second", queries={"": "max(warmfleet_store_commands_per_second)"}, unit="reqps"),
            Panel(title="Memory", queries={"used": "max(warmfleet_store_memory_bytes)", "limit": "max(warmfleet_store_memory_max_bytes)"}, unit="bytes"),
            Panel(title="Connections and replicas", queries={"clients": "max(warmfleet_store_clients)", "replicas": "max(warmfleet_store_replicas)"}),
            Panel(title="Evicted keys, errors", queries={"evicted": "max(warmfleet_store_evicted_keys)", "{{error}}": _rate("warmfleet_store_errors_total", "error")}),
        ),
        "Agones and Kubernetes": (
            Panel(title="Calls", queries={"{{backend}} {{call}} {{outcome}}": _rate("warmfleet_backend_calls_total", "backend, call, outcome")}, unit="reqps"),
            Panel(title="Time of a call, 99 %", queries=_quantiles("warmfleet_backend_seconds", "call", "", (0.99,)), unit="s"),
            Panel(title="Watches, lists anew, failovers", queries={"{{resource}} watches": "sum by (resource) (warmfleet_backend_watches)", "{{resource}} lists": _rate("warmfleet_backend_relists_total", "resource"), "failovers": "sum(rate(warmfleet_backend_failovers_total[$__rate_interval]))"}),
            Panel(title="Shelf keepers", queries={"{{fleet}}": f"sum by (fleet) (warmfleet_keeper_leads{_FLEET})"}, told="One each, always."),
            Panel(title="Servers that others have allocated", queries={"{{fleet}}": f"max by (fleet) (warmfleet_foreign_servers{_FLEET})"}),
            Panel(title="Admission reviews", queries={"{{outcome}}": _rate("warmfleet_admission_reviews_total", "outcome")}, unit="reqps"),
        ),
        "Event stream": (
            Panel(title="Events to sinks", queries={"{{sink}} {{outcome}}": _rate("warmfleet_events_relayed_total", "sink, outcome")}, unit="reqps"),
        ),
        "Processes": (
            Panel(title="CPU, cores", queries={"{{job}} {{instance}}": 'rate(process_cpu_seconds_total{job=~".*warmfleet.*"}[$__rate_interval])'}),
            Panel(title="Memory", queries={"{{job}} {{instance}}": 'process_resident_memory_bytes{job=~".*warmfleet.*"}'}, unit="bytes"),
            Panel(title="File descriptors", queries={"{{job}} {{instance}}": 'process_open_fds{job=~".*warmfleet.*"}'}),
        ),
    },
)  # fmt: skip

DASHBOARDS = (JOURNEY, FLEETS, MATCHMAKING, GAME_SERVERS, PLATFORM)


def queries() -> Iterator[tuple[str, str]]:
    """(where, PromQL) of everything that is shown, variables not filled in."""
    for dashboard in DASHBOARDS:
        for row, panels in dashboard.rows.items():
            for panel in panels:
                for query in panel.queries.values():
                    yield f"{dashboard.uid}: {row}: {panel.title}", query
        for variable in _variables(dashboard):
            if variable["type"] == "query":
                metric, _, label = variable["query"]["query"].removeprefix("label_values(").rstrip(")").partition(", ")
                yield f"{dashboard.uid}: ${variable['name']}", f"count by ({label}) ({metric})"


def filled(query: str) -> str:
    """A query as Grafana sends it, with everything chosen and scrapes of 15 s."""
    return query.replace("$fleet", ".+").replace("$queue", ".+").replace(_RATE, "1m")


def to_json(dashboard: Dashboard) -> dict[str, Any]:
    """As Grafana imports it: the same for the same dashboard."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.told,
        "tags": ["warmfleet"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _variables(dashboard)},
        "links": [{"type": "dashboards", "tags": ["warmfleet"], "title": "Warmfleet", "asDropdown": True}],
        "panels": list(_panels(dashboard)),
    }


def _panels(dashboard: Dashboard) -> Iterator[dict[str, Any]]:
    x = y = row_height = number = 0
    for title, panels in dashboard.rows.items():
        y, x, number = y + row_height, 0, number + 1
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "gridPos": {"h": 1, "w": _COLUMNS, "x": 0, "y": y},
            "panels": [],
        }
        y, row_height = y + 1, 0
        for panel in panels:
            if x + panel.width > _COLUMNS:
                x, y = 0, y + row_height
            row_height, number = _STAT_HEIGHT if panel.shown == "stat" else _HEIGHT, number + 1
            place = {"h": row_height, "w": panel.width, "x": x, "y": y}
            yield {"id": number, "gridPos": place, **_panel(panel)}
            x += panel.width


def _panel(panel: Panel) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    heat = panel.shown == "heatmap"
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.shown == "timeseries":
        defaults["custom"] = {"lineWidth": 1, "fillOpacity": 8, "showPoints": "never", "spanNulls": 60_000}
    options: Mapping[Shown, dict[str, Any]] = {
        "timeseries": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "stat": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "none", "graphMode": "area"},
        "heatmap": {"calculate": False, "yAxis": {"unit": panel.unit}, "color": {"scheme": "Oranges"}},
    }
    return {
        "type": panel.shown,
        "title": panel.title,
        "description": panel.told,
        "datasource": source,
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": source,
                "expr": query,
                "legendFormat": legend,
                "format": "heatmap" if heat else "time_series",
                "exemplar": "_bucket" in query and not heat,
            }
            for index, (legend, query) in enumerate(panel.queries.items())
        ],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options[panel.shown],
    }


def _variables(dashboard: Dashboard) -> list[dict[str, Any]]:
    asked = "".join(query for row in dashboard.rows.values() for panel in row for query in panel.queries.values())
    found: list[dict[str, Any]] = [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    ]
    for name, metric in (("fleet", "warmfleet_shelf_rooms"), ("queue", "warmfleet_director_leads")):
        if f"${name}" in asked:
            query = f"label_values({metric}, {name})"
            found.append(
                {
                    "name": name,
                    "label": name.capitalize(),
                    "type": "query",
                    "datasource": {"type": "prometheus", "uid": "${datasource}"},
                    "query": {"query": query, "refId": name},
                    "multi": True,
                    "includeAll": True,
                    "allValue": ".+",
                    "current": {"text": "All", "value": "$__all"},
                    "refresh": 2,
                    "sort": 1,
                }
            )
    return found
