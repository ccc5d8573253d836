"""Dashboards: importable, laid out without holes or overlaps, and about what exists."""

import json

import pytest

from fleets.observability.catalog import catalog, series
from fleets.observability.dashboards import DASHBOARDS, Dashboard, filled, queries, to_json
from fleets.observability.queries import labels, names
from fleets.observability.rules import recordings
from fleets.render.observability import observability
from fleets.spec.platform import PlatformBody

TARGET = {"job", "instance", "fleet"}


@pytest.mark.parametrize(("where", "query"), tuple(queries()), ids=lambda value: value if ": " in value else "")
def test_queries_name_what_exists(where: str, query: str) -> None:
    """Series are in the catalogue or recorded by a rule; labels are theirs."""
    known, recorded = series(), {recording.name: recording.query for recording in recordings()}
    asked = set(names(filled(query)))
    assert asked, where
    assert asked <= known.keys() | recorded.keys()
    have = set().union(*(known[name] if name in known else labels(recorded[name]) for name in asked))
    assert labels(query) <= have | TARGET


def test_every_metric_is_shown_or_alerted_on() -> None:
    """What nobody looks at need not be measured: give a new metric a panel in fleets/observability/dashboards.py, or an alert."""
    shown = {name for _, query in queries() for name in names(filled(query))}
    shown |= {name for recording in recordings() for name in names(recording.query)}
    unseen = {name for name, metric in catalog().items() if not set(metric.series) & shown}
    assert unseen <= {
        "warmfleet_admission_seconds",
        "warmfleet_allocations_waiting",
        "warmfleet_backend_certificate_expiry_timestamp_seconds",  # alerted on
        "warmfleet_heartbeats_total",
        "warmfleet_shelf_servers",
    }


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard.uid)
def test_panels_do_not_overlap(dashboard: Dashboard) -> None:
    """Each place is one panel's; legends tell the series of a panel apart."""
    made = json.loads(json.dumps(to_json(dashboard)))
    taken: set[tuple[int, int]] = set()
    for panel in made["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
    ids = [panel["id"] for panel in made["panels"]]
    assert len(ids) == len(set(ids))
    assert {variable["name"] for variable in made["templating"]["list"]} <= {"datasource", "fleet", "queue"}


def test_a_cluster_gets_them_when_its_platform_says_so() -> None:
    """A PrometheusRule with the operator, ConfigMaps with `dashboards`, nothing by default."""
    assert observability(PlatformBody()) == []
    items = observability(PlatformBody.model_validate({"prometheusOperator": True, "dashboards": True}))
    assert [item["kind"] for item in items] == ["PrometheusRule", *["ConfigMap"] * len(DASHBOARDS)]
    for item in items[1:]:
        assert item["metadata"]["labels"]["grafana_dashboard"] == "1"
        (text,) = item["data"].values()
        assert json.loads(text)["uid"] + "-dashboard" == item["metadata"]["name"]
        assert len(text) < 900_000
