"""Metrics over HTTP, on real sockets."""

import asyncio

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gameserver.exposition import MetricsServer

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def registry() -> CollectorRegistry:
    made = CollectorRegistry()
    Counter("drops", "Drops.", registry=made).inc(3)
    Histogram("wait_seconds", "Waits.", ["queue"], registry=made).labels("a").observe(0.2, {"trace_id": "f" * 32})
    return made


async def test_both_formats_are_whole() -> None:
    """What is served in pieces reads as one page, with exemplars where the format has them."""
    async with MetricsServer(host="127.0.0.1", port=0, registry=registry()) as server, httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{server.port}/metrics"
        plain = await client.get(url)
        modern = await client.get(url, headers={"Accept": OPENMETRICS})
    assert plain.headers["content-type"].startswith("text/plain")
    assert {family.name for family in parse_text(plain.text)} >= {"drops", "wait_seconds"}
    assert modern.headers["content-type"].startswith("application/openmetrics-text")
    families = {family.name: family for family in parse_openmetrics(modern.text)}
    assert set(families) == {"drops", "wait_seconds"}
    assert any(sample.exemplar for sample in families["wait_seconds"].samples)
    assert modern.text.count("# EOF") == 1


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"GET /metrics?x=1 HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 "),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 404 "),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"HTTP/1.1 405 "),
        (b"\xff\x00nonsense\r\n\r\n", b"HTTP/1.1 405 "),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", b""),
        (b"", b""),
    ],
)
async def test_other_requests_get_little(request_: bytes, answer: bytes) -> None:
    """One path, one method, small requests; nobody's mistake ends the server."""
    async with MetricsServer(host="127.0.0.1", port=0, registry=registry()) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request_)
        writer.write_eof()
        try:
            assert (await reader.read()).startswith(answer)
        except ConnectionResetError:
            assert answer == b""
        writer.close()
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{server.port}/metrics")).status_code == 200


async def test_a_port_that_is_taken_costs_the_metrics_alone() -> None:
    """The second server of a port runs without."""
    async with MetricsServer(host="127.0.0.1", port=0) as first:
        async with MetricsServer(host="127.0.0.1", port=first.port) as second:
            assert second.port == 0
