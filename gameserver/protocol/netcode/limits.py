"""What strangers may cost: rate limits of handshakes, and the memory of used connect tokens. Both are bounded and take the clock as an argument."""

from collections.abc import Hashable
from dataclasses import dataclass

from gameserver.protocol.netcode.addresses import network_of

_MAX_HOSTS = 4096


@dataclass(slots=True)
class _Bucket:
    """A token bucket."""

    credit: float
    at_s: float

    def take(self, rate_per_s: float, burst: float, now_s: float) -> bool:
        self.credit = min(burst, self.credit + max(0.0, now_s - self.at_s) * rate_per_s)
        self.at_s = now_s
        if self.credit < 1.0:
            return False
        self.credit -= 1.0
        return True


class HandshakeLimits:
    """
    How many connection requests are looked into, per client address and in all.

    A forged request costs about 5 µs and one with a valid token 20 µs, so the defaults bound a flood to 1 to 4 % of a core. An IPv6 client is
    its /64: it has as many addresses in there as it likes. Hosts beyond the table's bound push out the oldest; the limit in all still holds.
    """

    def __init__(self, *, per_s: float = 2000.0, per_host_per_s: float = 200.0, burst_s: float = 2.0) -> None:
        """`burst_s`: how many seconds' worth may come at once."""
        self._per_s = per_s
        self._per_host_per_s = per_host_per_s
        self._burst_s = burst_s
        self._all = _Bucket(per_s * burst_s, 0.0)
        self._hosts: dict[Hashable, _Bucket] = {}

    def allow(self, host: str, now_s: float) -> bool:
        """Take one request of a host, or refuse it."""
        key = network_of(host)
        bucket = self._hosts.get(key)
        if bucket is None:
            if len(self._hosts) >= _MAX_HOSTS:
                del self._hosts[next(iter(self._hosts))]
            bucket = self._hosts[key] = _Bucket(self._per_host_per_s * self._burst_s, now_s)
        # The host first: one that floods must not use up what is for all.
        return bucket.take(self._per_host_per_s, self._per_host_per_s * self._burst_s, now_s) and self._all.take(
            self._per_s, self._per_s * self._burst_s, now_s
        )


class UsedTokens:
    """
    Connect tokens seen, by their MAC: each serves one address, and one connection.

    Source: STANDARD.md lets the same address use its token again. Here a token is spent once its client has connected: a second connection
    would encrypt other packets with the nonces of the first, and a recording of the first could be played to it. A full
    table of unexpired tokens refuses new ones, since to forget one is to let it be used again.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: dict[bytes, tuple[Hashable, int]] = {}
        """MAC to (the address it serves, or None once it is spent; its expiry)."""
        self._purge_at_s = 0.0
        """Nothing in the table expires before."""
        self._forgotten_s = 0
        """The latest expiry that was forgotten: a clock that is set back must not bring such a token to life again."""

    def admit(self, mac: bytes, peer: Hashable, expires_unix_s: int, now_unix_s: float) -> bool:
        """Whether this address may go on with the token; remembers it."""
        known = self._seen.get(mac)
        if known is not None:
            return known[0] == peer
        if expires_unix_s <= self._forgotten_s:
            return False
        if len(self._seen) >= self._limit:
            if now_unix_s >= self._purge_at_s:
                gone = [expiry for _, expiry in self._seen.values() if expiry <= now_unix_s]
                self._forgotten_s = max([self._forgotten_s, *gone])
                self._seen = {mac: entry for mac, entry in self._seen.items() if entry[1] > now_unix_s}
                self._purge_at_s = min((expiry for _, expiry in self._seen.values()), default=0)
            if len(self._seen) >= self._limit:
                return False
        self._seen[mac] = (peer, expires_unix_s)
        return True

    def spend(self, mac: bytes) -> None:
        """Its client has connected: nobody may use it any more."""
        if mac in self._seen:
            self._seen[mac] = (None, self._seen[mac][1])
