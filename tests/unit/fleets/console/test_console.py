"""The console's pure parts, and its feed."""

import asyncio
import copy
import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from fleets.cli.top import apply, spark
from fleets.console.feed import MOST_VIEWERS, Feed, TooManyViewers
from fleets.console.pace import Pace
from fleets.console.quantiles import Recent, buckets_in, quantile
from fleets.console.state import difference, happenings
from fleets.console.timelines import Timelines

_ROWS = st.dictionaries(st.sampled_from("abcdef"), st.fixed_dictionaries({"x": st.integers(0, 2), "y": st.none() | st.sampled_from(["", "y"])}))  # fmt: skip
_STATES = st.fixed_dictionaries({"fleets": st.just({}), "servers": st.just({}), "sessions": st.just({}), "queues": st.just({}), "tickets": _ROWS})  # fmt: skip


@given(_STATES, _STATES)
def test_changes_lead_to_the_state_that_they_are_of(before: Any, after: Any) -> None:
    """Whoever has the one state and applies what differs has the other; nothing is told when nothing differs."""
    mine = copy.deepcopy(before)
    apply(mine, orjson.loads(orjson.dumps(difference(before, after))))
    assert mine == after
    assert difference(after, copy.deepcopy(after)) == {}


def fleet(**changed: Any) -> dict[str, Any]:
    return {"failures": 0, "reason": "", "decision": {"replicas": 2, "reasons": ["so"]}, **changed}


def test_what_happens_is_told_once() -> None:
    """Moves, decisions with their reasons, failures, drains, closed queues; nothing at the start."""
    server = {"state": "Allocated", "reason": "", "draining": False}
    before = {
        "fleets": {"f": fleet()},
        "servers": {"s": server},
        "sessions": {"f.m": {"server": "s"}, "f.n": {"server": "s"}, "f.o": {"server": ""}},
        "queues": {"q": {"closed": ""}},
    }
    after = {
        "fleets": {"f": fleet(failures=1, reason="exit code 3", decision={"replicas": 5, "reasons": ["a", "b"]})},
        "servers": {"s": {**server, "state": "Unhealthy", "draining": True}},
        "sessions": {"f.m": {"server": "t"}, "f.n": {"server": ""}, "f.o": {"server": "t"}},
        "queues": {"q": {"closed": "paused"}},
    }
    told = [(event["kind"], event["what"], event["text"]) for event in happenings(before, after)]
    assert told == [
        ("autoscaler", "f", "2 → 5 servers: a; b"),
        ("failure", "f", "exit code 3"),
        ("failure", "s", "is Unhealthy: no reason given"),
        ("drain", "s", "drains"),
        ("recovery", "f.m", "moved from s to t"),
        ("recovery", "f.n", "has lost its server s, and waits for another"),
        ("recovery", "f.o", "moved from its lost server to t"),
        ("queue", "q", "is paused"),
    ]
    assert list(happenings({}, after)) == []
    assert list(happenings(after, after)) == []


def test_quantiles_lie_where_the_observations_are() -> None:
    """Of a histogram's text; the last looks count, and a restart begins anew."""
    registry = CollectorRegistry()
    histogram = Histogram("p_seconds", "p", buckets=(1, 2, 4), registry=registry)
    recent = Recent(3)

    def buckets() -> dict[float, float]:
        return buckets_in(generate_latest(registry).decode().splitlines(), "p_seconds")

    for value in (0.5, 1.5, 1.5, 3.0):
        histogram.observe(value)
    assert buckets() == {1: 1, 2: 3, 4: 4, math.inf: 4}
    assert quantile(0.5, buckets()) == 1.5
    assert quantile(1.0, buckets()) == 4
    assert quantile(0.5, {}) is None
    assert quantile(0.9, {1: 0, math.inf: 5}) == 1
    assert set(recent.note(buckets()).values()) == {0}
    histogram.observe(9.0)
    assert recent.note(buckets()) == {1: 0, 2: 0, 4: 0, math.inf: 1}
    assert recent.note({1: 0, 2: 0, 4: 0, math.inf: 0}) == {}


def test_the_pace_is_the_last_minutes() -> None:
    """Waits as they are told, matches as they are heard; a sample of many, and nothing of what was a minute ago."""
    now = [1000.0]
    pace = Pace(now=lambda: now[0])
    pace.heard({"state": "placing", "match": "m", "tickets": {"duel.a": 2, "duel.b": 2}})
    pace.heard({"state": "assigned", "match": "m", "tickets": {"duel.a": 3, "duel.b": 3}})
    pace.heard({"state": "searching", "tickets": {"duel.c": 2}})
    now[0] += 2.0
    assert pace.matched("duel") == [("duel.a", 2.0), ("duel.b", 2.0)]
    assert pace.matched("duel") == []
    pace.note("duel", [4.0, 1.0, -0.1])
    assert [pace.within("duel", part) for part in (0.0, 0.5, 0.95)] == [0.0, 1.0, 4.0]
    assert (pace.per_minute("duel"), pace.per_minute("ranked"), pace.within("ranked", 0.5)) == (1, 0, None)
    pace.heard({"state": "placing", "tickets": {f"duel.{number}": 2 for number in range(500)}})
    assert len(pace.matched("duel")) == 64
    now[0] += 61.0
    assert (pace.per_minute("duel"), pace.within("duel", 0.5)) == (0, None)


def test_timelines_are_bounded() -> None:
    """The newest tickets are kept, with every change in order."""
    now = iter(range(10**6))
    lines = Timelines(now=lambda: float(next(now)))
    for number in range(20_100):
        lines.heard({"state": "searching", "tickets": {f"duel.{number}": 1}})
    lines.heard({"state": "assigned", "match": "m", "tickets": {"duel.20099": 2}})
    assert lines.of("duel.0") == []
    assert [step["state"] for step in lines.of("duel.20099")] == ["searching", "assigned"]
    assert len(lines.newest()) == 40
    assert lines.newest()["duel.20099"] == {"queue": "duel", "state": "assigned", "since": 20_100.0}


async def test_a_slow_viewer_is_told_all_again() -> None:
    """One that reads gets what changed; one that does not gets the whole state later, and holds nobody up."""
    feed = Feed()
    feed.publish({"tickets": {"a": {"x": 1}}}, {"Players": 1.0}, 1.0)
    quick, slow = feed.watch(), feed.watch()
    for viewer in (quick, slow):
        assert (await anext(viewer)).startswith(b"event: state\n")
    for number in range(20):
        feed.publish({"tickets": {"a": {"x": number}}}, {"Players": None}, 2.0 + number)
        assert (await anext(quick)).startswith(b"event: delta\n")
    async with asyncio.timeout(2):
        while not (told := await anext(slow)).startswith(b"event: state\n"):
            pass
    assert orjson.loads(told.partition(b"data: ")[2])["state"] == {"tickets": {"a": {"x": 19}}}
    await quick.aclose()  # type: ignore[attr-defined]
    await slow.aclose()  # type: ignore[attr-defined]
    assert feed.viewers == 0
    many = [feed.watch() for _ in range(MOST_VIEWERS)]
    for viewer in many:
        await anext(viewer)
    with pytest.raises(TooManyViewers):
        await anext(feed.watch())
    for viewer in many:
        await viewer.aclose()  # type: ignore[attr-defined]


def test_sparks_show_the_newest() -> None:
    """As tall as they are large; nothing where nothing is known."""
    assert spark([0.0, None, 4.0, 8.0]) == "▁ ▅█"
    assert len(spark([1.0] * 500)) == 40
