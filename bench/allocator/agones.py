"""
The same request answered by Agones' own path, for comparison: its batches instead of a shelf.

Agones' allocation service is stood in for by the tests' fake with the timing of a real one by default (batches of 500 ms, an eventually consistent cache),
reached by the real client over gRPC with mutual TLS.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from allocator.backends.agones import AgonesBackend
from allocator.backends.endpoints import Endpoint
from bench.report import Report
from gameserver.certificates import CertificateFiles
from gameserver.sessions.model import FleetName

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from agones_fake import FakeAgones, Timing

FLEET = FleetName("arena")
TOGETHER = 50


async def _measure(report: Report, folder: Path, lone: int) -> None:
    async with FakeAgones(folder, Timing.real()) as fake:
        await fake.add_fleet(FLEET, ready=lone + TOGETHER)
        pair = fake.certificates.client
        files = CertificateFiles(certificate=pair.certificate, key=pair.key, ca=fake.certificates.ca)
        endpoint = Endpoint(address=fake.grpc_address)
        async with AgonesBackend([endpoint], files=files, cluster=None, namespace="default") as backend:
            took_s = []
            for _ in range(lone):
                begun_s = time.perf_counter()
                assert await backend.allocate(FLEET, labels={}, annotations={}) is not None
                took_s.append(time.perf_counter() - begun_s)
            report.add("Agones' path, batches of 500 ms, 1 caller, p50", statistics.median(took_s) * 1e3, "ms")
            begun_s = time.perf_counter()
            await asyncio.gather(*(backend.allocate(FLEET, labels={}, annotations={}) for _ in range(TOGETHER)))
            rate = TOGETHER / (time.perf_counter() - begun_s)
            report.add(f"Agones' path, {TOGETHER} callers, allocations per second", rate, "1/s")


def measure(report: Report, quick: bool) -> None:
    """Measure one caller and many."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_measure(report, Path(folder), 3 if quick else 20))
