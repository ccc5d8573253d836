"""
What events cost: written with real decisions, and read and passed on by a relay.

`python -m bench.events [--quick] [--json FILE]`. Tickets are queued in the batches in which a busy API queues them, with events kept and without, in turns;
the difference in Valkey's CPU time (`INFO cpu`), and in this process', is the events'. Then a relay reads all of them and hands them to a sink that takes all.
"""

import asyncio
import statistics
import time
from collections.abc import Sequence
from typing import Any

import uvloop

from bench.allocator.claims import valkey
from bench.report import Report, arguments
from gameserver.sessions.client import StoreClient, connect
from gameserver.sessions.model import PlayerId
from matchmaker.events.model import Event
from matchmaker.events.relay import Relay, queue_prefix
from matchmaker.model import QueueName, TicketPlayer
from matchmaker.store import TicketStore

COMMAND = "python -m bench.events"
BATCH = 100
QUEUE = QueueName("ranked")


class Counts:
    """A sink that takes everything."""

    name = "counts"

    def __init__(self, wanted: int) -> None:
        self.events = 0
        self.all = asyncio.Event()
        self._wanted = wanted

    async def send(self, events: Sequence[Event]) -> None:
        """Take them."""
        self.events += len(events)
        if self.events >= self._wanted:
            self.all.set()


async def cpu_s(client: StoreClient) -> float:
    """Of the Valkey server so far, user and system."""
    info: Any = await client.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


async def tickets(client: StoreClient, count: int, name: str) -> tuple[float, float]:
    """CPU seconds per ticket, of Valkey and of this process."""
    store = TicketStore(client)
    before, begun = await cpu_s(client), time.process_time()
    for start in range(0, count, BATCH):
        some = [
            (
                TicketPlayer(
                    id=PlayerId(f"{name}-{n}"),
                    attributes={"rating": 1500.0, "mode": "ranked"},
                    latencies_ms={"eu": 20.0},
                ),
            )
            for n in range(start, start + BATCH)
        ]
        await asyncio.gather(*(store.create(QUEUE, party, idempotency="", max_tickets=10_000_000) for party in some))
    return (await cpu_s(client) - before) / count, (time.process_time() - begun) / count


async def measure(report: Report, url: str, *, quick: bool) -> None:
    """Fill the report."""
    client = connect(url)
    count, rounds = (2000, 2) if quick else (20_000, 5)
    prefix, sink = queue_prefix(QUEUE), Counts(count * rounds)
    without, kept, ours = [], [], []
    for turn in range(rounds):
        await client.delete(f"{prefix}events:keep")
        plain = await tickets(client, count, f"a{turn}")
        await Relay(client, prefix, None).hold()
        told = await tickets(client, count, f"b{turn}")
        without.append(plain[0])
        kept.append(told[0] - plain[0])
        ours.append(told[1] - plain[1])
    event_s = max(statistics.median(kept), 1e-9)
    report.add("ticket queued, events off", statistics.median(without) * 1e6, "µs of Valkey")
    report.add("one event more", event_s * 1e6, "µs of Valkey")
    report.add("one event more, spread of rounds", (max(kept) - min(kept)) * 1e6, "µs of Valkey")
    report.add("one event more", statistics.median(ours) * 1e6, "µs of the API")
    report.add("events to the stream", 1 / event_s, "1/s per core", goal=20_000, at_least=True)
    relay = Relay(client, prefix, sink)
    begun, total = time.process_time(), count * rounds
    running = asyncio.create_task(relay.run())
    await sink.all.wait()
    report.add("events relayed", total / (time.process_time() - begun), "1/s per core of the relay")
    running.cancel()
    await asyncio.wait([running])
    await client.aclose()


def main() -> None:
    """Measure on a Valkey of its own."""
    options = arguments(__doc__)
    report = Report(f"{COMMAND} --quick" if options.quick else COMMAND)
    with valkey() as url, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure(report, url, quick=options.quick))
    report.finish(options.json)


if __name__ == "__main__":
    main()
