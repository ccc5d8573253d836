"""The soak in its short form, and what it makes of leaks and strays."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis

from bench.soak import Series, lasting_mib, main, pattern, processes, strays


def test_a_short_soak_leaves_no_strays(tmp_path: Path) -> None:
    """Matches are played by a whole system, and every key expires or has its owner."""
    assert main(["--quick", "--minutes", "0.2", "--players", "4", "--json", str(tmp_path / "rows.json")]) == 0


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("wf:{arena}:server:arena-x1", "wf:{F}:server:S"),
        ("wf:{arena}:session:arena.m1", "wf:{F}:session:I"),
        ("wf:{arena}:open:duel", "wf:{F}:open:Q"),
        ("wf:q:{duel}:player:ann", "wf:q:{Q}:player:P"),
        ("wf:q:{duel}:ticket:duel.x", "wf:q:{Q}:ticket:I"),
        ("other", "other"),
    ],
)
def test_keys_have_patterns(key: str, named: str) -> None:
    """By which strays are counted."""
    assert pattern(key) == named


def test_strays_are_found(valkey_url: str) -> None:
    """A key that nobody knows, one of a session that does not expire, and one of a server that is not registered."""
    with redis.Redis.from_url(valkey_url, decode_responses=True) as client:
        client.flushall()
        client.sadd("wf:{a}:servers", "there")
        for key in ("wf:{a}:server:there", "wf:{a}:server:gone", "wf:{a}:session:a.m1"):
            client.hset(key, "x", "1")
        client.set("wf:q:{q}:forgotten", 1)
        client.set("wf:q:{q}:ticket:q.1", 1, ex=60)
        counts, found = strays(client)
        client.flushall()
    assert found == {
        "wf:{F}:server:S": ["wf:{a}:server:gone"],
        "wf:{F}:session:I": ["wf:{a}:session:a.m1"],
        "wf:q:{Q}:forgotten": ["wf:q:{q}:forgotten"],
    }
    assert counts["wf:q:{Q}:ticket:I"] == 1


def test_a_slope_is_told_from_a_peak() -> None:
    """A leak of a MiB a minute is 60 an hour; a peak in the middle is nothing."""
    leak, peak = Series(), Series()
    for minute in range(60):
        leak.add(60 * minute, 100 + minute)
        peak.add(60 * minute, 150 if minute == 50 else 100)
    assert leak.growth_per_hour() == pytest.approx(60)
    assert peak.growth_per_hour() == 0


def test_what_stays_is_weighed(valkey_url: str) -> None:
    """Keys that do not expire, and no others."""
    with redis.Redis.from_url(valkey_url, decode_responses=True) as client:
        client.flushall()
        client.set("over", "x" * 2**20, ex=60)
        assert lasting_mib(client) == 0
        client.set("stays", "x" * 2**20)
        assert 1 <= lasting_mib(client) < 1.5
        client.flushall()


def test_a_process_that_has_gone_is_sampled_no_more() -> None:
    """Its number may be another program's by now."""
    me = os.getpid()
    up = SimpleNamespace(process=SimpleNamespace(pid=me), descendants=lambda: [me])
    known = {1: "of before"}
    assert processes(up, SimpleNamespace(pid=1234), known) == {me: f"up {me}", 1234: "valkey"}  # type: ignore[arg-type]
