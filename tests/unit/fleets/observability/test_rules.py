"""Rules and alerts: valid, about metrics that exist, firing when they should and silent when they should not."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from promtool import needs_promtool

from fleets.observability.catalog import series
from fleets.observability.queries import labels, names
from fleets.observability.rules import GROUPS, alerts, recordings, rule_groups
from fleets.rollout.prometheus import COMPLETION, JITTER

TARGET = {"job", "instance", "fleet", "pod"}
"""Labels that scraping adds: `fleet` to the series of game servers."""


def rising(series_: str, per_minute: float) -> tuple[str, str]:
    return series_, f"0+{per_minute}x60"


def steady(series_: str, value: float) -> tuple[str, str]:
    return series_, f"{value}x60"


def buckets(metric: str, labels_: str, slow_from: float, *, share: float) -> list[tuple[str, str]]:
    """A histogram in which `share` of 1,000 observations a minute lie above `slow_from`, below twice that."""
    return [
        rising(f'{metric}_bucket{{{labels_},le="{slow_from:g}"}}', 1000 * (1 - share)),
        rising(f'{metric}_bucket{{{labels_},le="{2 * slow_from:g}"}}', 1000),
        rising(f'{metric}_bucket{{{labels_},le="+Inf"}}', 1000),
    ]


F, Q, W = 'fleet="a"', 'queue="q"', 'job="warmfleet",instance="x"'

FIRING: dict[str, list[tuple[str, str]]] = {
    "WarmfleetWaitsAreLong": buckets("warmfleet_ticket_wait_seconds", f'{Q},region="eu"', 60, share=0.1),
    "WarmfleetTicketsTimeOut": [
        rising(f"warmfleet_tickets_timed_out_total{{{Q}}}", 6),
        rising(f'warmfleet_tickets_created_total{{{Q},outcome="made"}}', 100),
    ],
    "WarmfleetMatchesFindNoServer": [
        rising(f'warmfleet_matches_total{{{Q},outcome="returned"}}', 2),
        rising(f'warmfleet_matches_total{{{Q},outcome="assigned"}}', 98),
    ],
    "WarmfleetPlayersAreFar": buckets("warmfleet_client_rtt_seconds", F, 0.3, share=0.1),
    "WarmfleetPacketsAreLost": [
        rising(f"warmfleet_datagrams_lost_total{{{F}}}", 5),
        rising(f"warmfleet_datagrams_received_total{{{F}}}", 95),
    ],
    "WarmfleetTicksAreLate": buckets("warmfleet_tick_lateness_seconds", F, 0.02, share=0.05),
    "WarmfleetTicksAreDropped": [rising(f"warmfleet_ticks_dropped_total{{{F}}}", 10)],
    "WarmfleetGamesFail": [rising(f"warmfleet_games_failed_total{{{F}}}", 1)],
    "WarmfleetCheckpointsFail": [
        rising(f'warmfleet_checkpoints_total{{{F},outcome="store_away"}}', 10),
        rising(f'warmfleet_checkpoints_total{{{F},outcome="written"}}', 90),
    ],
    "WarmfleetServersStandStill": [rising(f"warmfleet_stalls_total{{{F}}}", 1)],
    "WarmfleetShelfIsEmpty": [
        steady(f'warmfleet_shelf_rooms{{{F},what="claimable"}}', 0),
        steady(f"warmfleet_shelf_waiters{{{F}}}", 2),
    ],
    "WarmfleetStartsAreCold": [
        rising(f'warmfleet_allocations_total{{{F},temperature="cold"}}', 5),
        rising(f'warmfleet_allocations_total{{{F},temperature="shelf"}}', 95),
    ],
    "WarmfleetFleetIsAtItsMax": [steady(f"warmfleet_autoscaler_limited{{{F}}}", 1)],
    "WarmfleetAutoscalerIsBlind": [rising(f'warmfleet_autoscaler_decisions_total{{{F},how="blind"}}', 30)],
    "WarmfleetServersFailToStart": [steady(f"warmfleet_fleet_starts_failed{{{F}}}", 4)],
    "WarmfleetServersDoNotGetReady": [
        steady(f'warmfleet_fleet_servers{{{F},state="other"}}', 2),
        steady(f'warmfleet_fleet_servers{{{F},state="Ready"}}', 0),
    ],
    "WarmfleetServersAreLost": [rising('warmfleet_sessions_moved_total{why="lost"}', 1)],
    "WarmfleetNobodyKeepsTheShelf": [steady(f"warmfleet_keeper_leads{{{F}}}", 0)],
    "WarmfleetBackendFails": [
        rising('warmfleet_backend_calls_total{backend="agones",call="allocate",outcome="unavailable"}', 20),
        rising('warmfleet_backend_calls_total{backend="agones",call="allocate",outcome="ok"}', 80),
    ],
    "WarmfleetCertificateExpires": [steady("warmfleet_backend_certificate_expiry_timestamp_seconds", 6 * 86400)],
    "WarmfleetNobodyDirectsAQueue": [steady(f"warmfleet_director_leads{{{Q}}}", 0)],
    "WarmfleetMatchingIsSlow": buckets("warmfleet_matching_cycle_seconds", Q, 3, share=0.2),
    "WarmfleetMatchingFails": [rising(f"warmfleet_matching_failures_total{{{Q}}}", 1)],
    "WarmfleetStoreIsAway": [steady(f"warmfleet_store_up{{{W}}}", 0)],
    "WarmfleetStoreIsSlow": buckets("warmfleet_store_ping_seconds", W, 0.1, share=0.05),
    "WarmfleetStoreFillsUp": [
        steady("warmfleet_store_memory_bytes", 9e8),
        steady("warmfleet_store_memory_max_bytes", 1e9),
    ],
    "WarmfleetStoreEvicts": [rising("warmfleet_store_evicted_keys", 5)],
    "WarmfleetEventsAreDead": [rising('warmfleet_events_relayed_total{sink="kafka",outcome="dead"}', 2)],
    "WarmfleetProcessIsAway": [steady(f"up{{{W}}}", 0)],
    "WarmfleetDescriptorsRunOut": [
        steady(f"process_open_fds{{{W}}}", 900),
        steady(f"process_max_fds{{{W}}}", 1000),
    ],
}

HEALTHY: list[tuple[str, str]] = [
    *buckets("warmfleet_ticket_wait_seconds", f'{Q},region="eu"', 5, share=0.01),
    rising(f"warmfleet_tickets_timed_out_total{{{Q}}}", 1),
    rising(f'warmfleet_tickets_created_total{{{Q},outcome="made"}}', 100),
    rising(f'warmfleet_matches_total{{{Q},outcome="returned"}}', 0),
    rising(f'warmfleet_matches_total{{{Q},outcome="assigned"}}', 50),
    *buckets("warmfleet_client_rtt_seconds", F, 0.05, share=0.2),
    rising(f"warmfleet_datagrams_lost_total{{{F}}}", 1),
    rising(f"warmfleet_datagrams_received_total{{{F}}}", 999),
    *buckets("warmfleet_tick_lateness_seconds", F, 0.0005, share=0.05),
    rising(f"warmfleet_ticks_dropped_total{{{F}}}", 1),
    rising(f"warmfleet_games_failed_total{{{F}}}", 0),
    rising(f'warmfleet_checkpoints_total{{{F},outcome="store_away"}}', 1),
    rising(f'warmfleet_checkpoints_total{{{F},outcome="written"}}', 99),
    rising(f"warmfleet_stalls_total{{{F}}}", 0),
    steady(f'warmfleet_shelf_rooms{{{F},what="claimable"}}', 3),
    steady(f"warmfleet_shelf_waiters{{{F}}}", 0),
    # Empty for want of demand: nobody waits.
    steady('warmfleet_shelf_rooms{fleet="idle",what="claimable"}', 0),
    steady('warmfleet_shelf_waiters{fleet="idle"}', 0),
    rising(f'warmfleet_allocations_total{{{F},temperature="cold"}}', 0),
    rising(f'warmfleet_allocations_total{{{F},temperature="shelf"}}', 100),
    steady(f"warmfleet_autoscaler_limited{{{F}}}", 0),
    rising(f'warmfleet_autoscaler_decisions_total{{{F},how="blind"}}', 0),
    steady(f"warmfleet_fleet_starts_failed{{{F}}}", 0),
    rising('warmfleet_sessions_moved_total{why="lost"}', 0.1),
    # One starts while others are Ready.
    steady(f'warmfleet_fleet_servers{{{F},state="other"}}', 1),
    steady(f'warmfleet_fleet_servers{{{F},state="Ready"}}', 2),
    # One of two replicas leads.
    steady(f'warmfleet_keeper_leads{{{F},pod="1"}}', 0),
    steady(f'warmfleet_keeper_leads{{{F},pod="2"}}', 1),
    steady(f'warmfleet_director_leads{{{Q},pod="1"}}', 1),
    steady(f'warmfleet_director_leads{{{Q},pod="2"}}', 0),
    rising('warmfleet_backend_calls_total{backend="agones",call="allocate",outcome="ok"}', 80),
    # Not a client with a certificate.
    steady("warmfleet_backend_certificate_expiry_timestamp_seconds", 0),
    *buckets("warmfleet_matching_cycle_seconds", Q, 0.1, share=0.01),
    rising(f"warmfleet_matching_failures_total{{{Q}}}", 0),
    steady(f"warmfleet_store_up{{{W}}}", 1),
    *buckets("warmfleet_store_ping_seconds", W, 0.001, share=0.001),
    steady("warmfleet_store_memory_bytes", 9e8),
    # Without a limit nothing fills up.
    steady("warmfleet_store_memory_max_bytes", 0),
    steady("warmfleet_store_evicted_keys", 5),
    rising('warmfleet_events_relayed_total{sink="kafka",outcome="sent"}', 500),
    rising('warmfleet_events_relayed_total{sink="kafka",outcome="retried"}', 5),
    steady(f"up{{{W}}}", 1),
    steady('up{job="somebody-elses"}', 0),
    steady(f"process_open_fds{{{W}}}", 100),
    steady(f"process_max_fds{{{W}}}", 1000),
]  # fmt: skip


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump(rule_groups(), sort_keys=False))
    return path


def promtool(*arguments: object) -> str:
    result = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@needs_promtool
def test_promtool_accepts_the_rules(rules: Path) -> None:
    """With every lint it has."""
    assert f"{len(alerts()) + len(recordings())} rules found" in promtool(
        "check", "rules", "--lint=all", "--lint-fatal", rules
    )


def test_every_alert_has_a_case_here() -> None:
    """An alert that nobody has seen fire is a hope."""
    assert set(FIRING) == {alert.name for alert in alerts()}
    assert len({alert.name for alert in alerts()}) == len(alerts())


@needs_promtool
def test_each_alert_fires_when_it_should(rules: Path, tmp_path: Path) -> None:
    """Alone, on the series of its case, after as long as it says."""
    cases = [case(series_, {name}) for name, series_ in FIRING.items()]
    promtool("test", "rules", written(tmp_path, rules, cases))


@needs_promtool
def test_no_alert_fires_on_a_healthy_day(rules: Path, tmp_path: Path) -> None:
    """All of them, on the series of a system that is well."""
    promtool("test", "rules", written(tmp_path, rules, [case(HEALTHY, set())]))


def case(series_: list[tuple[str, str]], firing: set[str]) -> dict[str, Any]:
    """ALERTS holds what fires, whatever its labels and annotations."""
    expected = [{"labels": json_labels(name), "value": 1} for name in sorted(firing)]
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series_],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": "55m" if "WarmfleetCertificateExpires" not in firing else "61m",
                "exp_samples": expected,
            }
        ],
    }


def json_labels(name: str) -> str:
    return f"{{alertname={json.dumps(name)}}}"


def written(folder: Path, rules: Path, cases: list[dict[str, Any]]) -> Path:
    path = folder / "tests.yml"
    path.write_text(yaml.safe_dump({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": cases}))
    return path


@pytest.mark.parametrize("rule", [*recordings(), *alerts()], ids=lambda rule: rule.name)
def test_rules_name_what_exists(rule: Any) -> None:
    """Series and labels are those of the catalogue, or recorded by a rule."""
    known = series()
    recorded = {recording.name for recording in recordings()}
    asked = set(names(rule.query))
    assert asked
    assert asked <= known.keys() | recorded
    have = set().union(*(known.get(name, frozenset({"queue", "region", "fleet"})) for name in asked))
    assert labels(rule.query) <= have | TARGET


@pytest.mark.parametrize("query", [JITTER, COMPLETION])
def test_a_rollout_asks_for_what_exists(query: str) -> None:
    """What decides on an abort is told by game servers."""
    asked = query.format(pods='pod="f"', window="5m")
    assert set(names(asked)) <= series().keys()


def test_alerts_speak_of_labels_that_they_have() -> None:
    """A summary with a hole is no help at night."""
    for group in GROUPS:
        for alert in group.alerts:
            used = set(re.findall(r"\$labels\.(\w+)", alert.summary))
            recorded = {recording.name: recording.query for recording in recordings()}
            query = alert.query + "".join(text for name, text in recorded.items() if name in alert.query)
            assert used <= labels(query) | {"job", "instance"}, alert.name
            assert alert.summary.endswith(".")
            assert alert.action.endswith(".") or alert.action.endswith("?")


def test_names_are_read_out_of_queries() -> None:
    """Functions, keywords, labels, strings and numbers are no series."""
    query = 'sum by (a, le) (rate(x_total{b=~"c.*", d!="e f"}[5m])) / on (g) group_left (h) (z:y:w offset 1h > bool 1e3) and inf'
    assert list(names(query)) == ["x_total", "z:y:w"]
    assert labels(query) == {"a", "le", "b", "d", "g", "h"}
