"""
A beacon's decisions, without I/O: cookies, round trips, tokens, and who asks too often.

A cookie holds when it was made, and the beacon's own MAC over that, the asker's nonce and address: nothing is kept for it. Whoever sends it back has
received it, so the time in between is a round trip and what the client added to it; an earlier one cannot be made up, and a kept one only grows.
"""

import hashlib
import hmac
import secrets
import struct
import time
from collections.abc import Callable

from gameserver.protocol.beacons import COOKIE_SIZE, NONCE_SIZE, Cookie, Hello, Measure, Token, decode, encode
from matchmaker import metrics
from matchmaker.beacons.tokens import LatencySigner
from matchmaker.buckets import Buckets

LONGEST_RTT_S = 2.0
"""A cookie that comes back later measures nothing that a match could use."""
PER_ADDRESS_S = 20.0
"""Requests a second of one address (of IPv6: one /64), in the long run; four times as many at once. A measurement of five is ten."""
_TIME = struct.Struct("<Q")


class Beacon:
    """One region's."""

    def __init__(
        self,
        signer: LatencySigner,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        per_address_s: float = PER_ADDRESS_S,
    ) -> None:
        self.region = signer.region
        self._signer = signer
        self._clock = clock
        self._wall = wall
        self._secret = secrets.token_bytes(32)
        self._buckets = Buckets(per_s=per_address_s, burst=4 * per_address_s)

    def allows(self, address: str) -> bool:
        """Count a request of an IP address; False when there are too many of it."""
        if self._buckets.take(network(address), self._clock()):
            metrics.BEACON_REQUESTS.labels(self.region, "limited").inc()
            return False
        return True

    def receive(self, data: bytes, address: str) -> bytes | None:
        """The reply to a datagram, never longer than it; None for no reply."""
        request = decode(data)
        if not isinstance(request, Hello | Measure) or not self.allows(address):
            return None
        if isinstance(request, Hello):
            metrics.BEACON_REQUESTS.labels(self.region, "hello").inc()
            return encode(Cookie(request.nonce, self.cookie(request.nonce, address)))
        token = self.measure(request.nonce, request.cookie, address, request.player)
        return None if token is None else encode(Token(request.nonce, token[0]))

    def cookie(self, nonce: bytes, address: str) -> bytes:
        """For a nonce of `NONCE_SIZE` bytes, to be sent back at once."""
        made = _TIME.pack(round(self._clock() * 1e9))
        return made + self._mac(made, nonce, address)

    def measure(self, nonce: bytes, cookie: bytes, address: str, player: str) -> tuple[str, float] | None:
        """A token and the round trip in s, for a cookie that has come back; None for one that is not ours or too old."""
        made, mac = cookie[: _TIME.size], cookie[_TIME.size :]
        genuine = len(cookie) == COOKIE_SIZE and hmac.compare_digest(mac, self._mac(made, nonce, address))
        rtt_s = self._clock() - _TIME.unpack(made)[0] / 1e9 if genuine else -1.0
        if not 0 <= rtt_s <= LONGEST_RTT_S:
            metrics.BEACON_REQUESTS.labels(self.region, "refused").inc()
            return None
        metrics.BEACON_REQUESTS.labels(self.region, "measured").inc()
        return self._signer.sign(player, rtt_s, self._wall(), nonce), rtt_s

    def _mac(self, made: bytes, nonce: bytes, address: str) -> bytes:
        if len(nonce) != NONCE_SIZE:
            return b""
        whole = hmac.new(self._secret, made + nonce + address.encode(), hashlib.sha256).digest()
        return whole[: COOKIE_SIZE - _TIME.size]


def network(address: str) -> str:
    """Whose requests are counted together: an IPv4 address, an IPv6 /64."""
    return ":".join(address.split(":")[:4]) if address.count(":") > 1 and "." not in address else address
