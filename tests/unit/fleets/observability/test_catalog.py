"""The catalogue of metrics, and its page."""

import asyncio
import importlib.util
import re
import subprocess
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from promtool import needs_promtool

from fleets.observability.catalog import MODULES, catalog
from gameserver.exposition import exposition

_ROOT = Path(__file__).parents[4]
_IDS = {"session", "player", "ticket", "match", "server", "id", "user", "pod", "instance", "trace_id"}


def test_the_pages_are_current() -> None:
    """docs/metrics.md and docs/alerts.md are what `make metrics` writes."""
    spec = importlib.util.spec_from_file_location("docs_metrics", _ROOT / "docs" / "metrics.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for path, text in module.pages().items():
        assert path.read_text() == text, "run: make metrics"


def test_every_metric_is_in_the_catalogue() -> None:
    """A module that makes metrics elsewhere would be on no page, and in no check."""
    makes = re.compile(r"^[A-Z_]+ = (Counter|Gauge|Histogram|Summary)\(", re.MULTILINE)
    for package in ("gameserver", "allocator", "matchmaker", "fleets"):
        for path in (_ROOT / package).rglob("*.py"):
            name = str(path.relative_to(_ROOT).with_suffix("")).replace("/", ".")
            assert bool(makes.search(path.read_text())) == (name in MODULES), name


@pytest.mark.parametrize("metric", catalog().values(), ids=lambda metric: metric.name)
def test_names_follow_the_fields_rules(metric) -> None:  # type: ignore[no-untyped-def]
    """Our prefix, units in base units, counters as totals, a sentence, and no ids as labels."""
    assert metric.name.startswith("warmfleet_")
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert not re.search(r"_(ms|milliseconds|kb|mb|percent|count|sum|bucket)$", metric.name)
    assert metric.told.endswith(".")
    assert not set(metric.labels) & _IDS


@needs_promtool
def test_promtool_finds_nothing_to_say() -> None:
    """The lint of `promtool check metrics`, on all that a process tells."""
    catalog()
    page, _ = asyncio.run(exposition(REGISTRY, ""))
    ours = b"".join(line for line in page.splitlines(keepends=True) if b"warmfleet_" in line)
    result = subprocess.run(["promtool", "check", "metrics"], input=ours, capture_output=True, check=False)
    assert (result.returncode, result.stdout + result.stderr) == (0, b"")
