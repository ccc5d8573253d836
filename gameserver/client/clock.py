"""
The server's clock as a client knows it: which tick it is there, at any moment here.

Owns what Pongs say; pure, times are arguments. docs/protocol.md "Clock" is the specification; `js/connection.js` does the same.
"""

from dataclasses import dataclass

_SAMPLES = 8
"""Pongs among which the one with the shortest round trip sets the clock."""
_SLACK_S = 0.05
"""What two samples may disagree by, beyond what their round trips leave open: drift, and the server's ticks coming late."""
_LONGEST_S = 60.0
"""A longer round trip is a machine that slept in between, or a clock that was set."""


@dataclass(frozen=True, slots=True)
class _Sample:
    rtt_s: float
    tick: float
    """The server's, at `at_s`."""
    at_s: float


class ServerClock:
    """The clock of one connection."""

    def __init__(self, tick_rate_hz: int) -> None:
        self._rate_hz = tick_rate_hz
        self._samples: list[_Sample] = []
        self.rtt_s = 0.0
        """Round trip, smoothed; 0 before the first Pong."""
        self.jitter_s = 0.0
        """Mean difference of neighbouring round trips, smoothed. Source: RFC 3550, 6.4.1."""

    def pong(self, client_ms: int, server_tick: int, newest_tick: int, now_s: float) -> None:
        """
        Take a Pong in.

        Args:
            client_ms: as sent in Ping: `now_s` × 1000 of then, modulo 2³².
            server_tick: tick × 256, modulo 2³²; `newest_tick`, of the newest snapshot, says the rest.
        """
        rtt_s = ((int(now_s * 1000) - client_ms) & 0xFFFFFFFF) / 1000
        if rtt_s > _LONGEST_S:
            self._samples.clear()  # whatever the clock was, it is not that any more
            return
        if not self.rtt_s:
            self.rtt_s = rtt_s
        else:
            self.jitter_s += (abs(rtt_s - self.rtt_s) - self.jitter_s) / 8
            self.rtt_s += 0.2 * (rtt_s - self.rtt_s)
        sent = server_tick / 256
        whole = sent + 2**24 * round((newest_tick - sent) / 2**24)
        sample = _Sample(rtt_s, whole + rtt_s / 2 * self._rate_hz, now_s)
        # Two samples that cannot both be true: a clock was set, here or there, and the newer one is of after that.
        self._samples = [old for old in self._samples if self._agree(old, sample)][1 - _SAMPLES :]
        self._samples.append(sample)

    def tick(self, now_s: float) -> float | None:
        """The server's tick with its fraction; None before the first Pong."""
        if not self._samples:
            return None
        best = min(self._samples, key=lambda sample: sample.rtt_s)
        return best.tick + (now_s - best.at_s) * self._rate_hz

    def _agree(self, old: _Sample, new: _Sample) -> bool:
        apart_s = (new.tick - old.tick) / self._rate_hz - (new.at_s - old.at_s)
        return abs(apart_s) <= (old.rtt_s + new.rtt_s) / 2 + _SLACK_S
