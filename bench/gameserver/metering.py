"""
What metrics and traces that are off cost a loaded room: the same ticks with the metrics as they are, and with them replaced by nothing, interleaved.

Workload A's game with 100 players that send an input every tick, over connections that swallow everything, so that the difference is not lost in the noise of
a network. The share is that of a real server's CPU under the same load, measured beside it.
"""

import statistics
import time
import timeit
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from prometheus_client import Counter, Histogram

from bench.gameserver.swarm import Swarm
from bench.report import Report
from gameserver import metrics, tracing
from gameserver.client.session import ClientSession
from gameserver.member import Member
from gameserver.protocol.messages import CloseCode, SharedSnapshot
from gameserver.room import Room
from gameserver.seats import SeatGrant
from gameserver.sessions.model import PlayerId, ServerName, Session, SessionId, SessionState

_HZ = 30


class _Wire:
    """A connection to a client that only reads what it needs to answer."""

    reliable = True
    peer = "bench"

    def __init__(self) -> None:
        self.client = ClientSession("")
        self.listens = True

    def send(self, message: bytes) -> None:
        if self.listens:
            self.client.receive(message, 0.0)

    def send_snapshot(self, snapshot: SharedSnapshot, ack_input: int) -> bool:
        if self.listens:
            self.client.receive(snapshot.message(ack_input), 0.0)
        return True

    def close(self, code: CloseCode, reason: str = "") -> None:
        pass


PLAYERS = 100


async def measure(report: Report, *, server_cpu: float, quick: bool) -> None:
    """Add the rows; `server_cpu`: of a server with as many players in one room, in cores."""
    cost_us, tick_us = await _measure(rounds=5 if quick else 31, ticks=60 if quick else 150)
    report.add(
        f"metrics' share of a server with {PLAYERS} players", 100 * cost_us * _HZ / 1e6 / server_cpu, "%", goal=2
    )
    report.add("  a tick's metrics", cost_us, "µs")
    report.add("  the tick, without transports", tick_us, "µs")
    off = min(timeit.repeat(_span_off, number=100_000, repeat=5)) / 100_000
    report.add("a span while nobody traces", off * 1e9, "ns")


def _span_off() -> None:
    with tracing.span("x"):
        pass


async def _measure(*, rounds: int, ticks: int) -> tuple[float, float]:
    """What metrics cost a tick, and a whole tick, in µs."""
    session = Session(
        id=SessionId("bench.m"), server=ServerName("b"), room=0, epoch=1, state=SessionState.LIVE, seats=()
    )
    now = 0.0
    room = Room(session, Swarm, seats=PLAYERS, tick_rate_hz=_HZ, store=None, now=lambda: now)
    members = [_join(room, index) for index in range(PLAYERS)]
    inputs = [_inputs(wire, ticks) for wire, _ in members]

    def play() -> float:
        nonlocal now, inputs
        begun_s = time.process_time()
        for tick in range(ticks):
            now += 1 / _HZ
            for (_, member), messages in zip(members, inputs, strict=True):
                room.take_input(member, messages[tick])
            metrics.TICK_LATENESS_SECONDS.observe(0.0001)
            room._tick += 1
            room._step()
            room._note_duration(0.001)
        spent_s = time.process_time() - begun_s
        # Inputs that acknowledge are made outside of what is measured.
        for wire, _ in members:
            wire.listens = True
        room._showing.show(room._audience(None))
        inputs = [_inputs(wire, ticks) for wire, _ in members]
        for wire, _ in members:
            wire.listens = False
        return spent_s

    play()
    costs, wholes = [], []
    for _ in range(rounds):
        measured = play()
        with _nothing_measured():
            bare = play()
        costs.append(1e6 * (measured - bare) / ticks)
        wholes.append(1e6 * measured / ticks)
    return statistics.median(costs), statistics.median(wholes)


def _inputs(wire: _Wire, count: int) -> list[bytes]:
    return [wire.client.send_input({"dx": 1, "dy": -1}) for _ in range(count)]


def _join(room: Room, index: int) -> tuple[_Wire, Member]:
    wire = _Wire()
    grant = SeatGrant(
        player=PlayerId(f"p{index}"), seat=index, team="", session=room.session, server=ServerName("b"), epoch=1
    )
    return wire, room.seat(grant, wire)


@contextmanager
def _nothing_measured() -> Iterator[None]:
    with (
        patch.object(Histogram, "observe", lambda *_: None),
        patch.object(Counter, "inc", lambda *_: None),
        patch("gameserver.room._PROBE_INTERVAL_S", float("inf")),
    ):
        yield
