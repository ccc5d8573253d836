"""Measure round trips at the regions' beacons (`GET /v1/regions`), for a ticket's `latencyTokens`."""

import asyncio
import base64
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import httpx

from gameserver.protocol.beacons import Cookie, Hello, Measure, Token, decode, encode

SAMPLES = 5
"""The shortest of so many round trips is kept."""
_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One region's answer."""

    region: str
    rtt_ms: float
    """As the beacon saw it."""
    token: str
    """For a ticket's `latencyTokens`."""


async def measure_regions(
    regions: Iterable[Mapping[str, Any]], player: str, *, samples: int = SAMPLES, timeout_s: float = _TIMEOUT_S
) -> list[Measured]:
    """
    Measure all regions at once: over UDP where a beacon has it, else over HTTP.

    Args: regions: as `GET /v1/regions` lists them. player: its id, as the ticket will have it.
    Returns: the nearest first; regions that did not answer are not in it.
    """
    found = await asyncio.gather(*(_measure(region, player, samples, timeout_s) for region in regions))
    return sorted((one for one in found if one is not None), key=lambda one: one.rtt_ms)


async def _measure(region: Mapping[str, Any], player: str, samples: int, timeout_s: float) -> Measured | None:
    best: Measured | None = None
    if region.get("udp"):
        host, _, port = str(region["udp"]).rpartition(":")
        best = await _over_udp(str(region["region"]), host.strip("[]"), int(port), player, samples, timeout_s)
    if best is None and region.get("http"):
        best = await _over_http(str(region["http"]), player, samples, timeout_s)
    return best


class _Client(asyncio.DatagramProtocol):
    """Sends each cookie back in the moment in which it comes: no task is woken in between, which would be measured, too."""

    def __init__(self, player: str) -> None:
        self.tokens: asyncio.Queue[tuple[str, float]] = asyncio.Queue(64)
        self._player = player
        self._sent_s: dict[bytes, float] = {}
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)  # asyncio's own is none by its class

    def hello(self) -> None:
        nonce = secrets.token_bytes(8)
        self._sent_s[nonce] = asyncio.get_running_loop().time()
        self._send(encode(Hello(nonce)))

    def datagram_received(self, data: bytes, addr: Any) -> None:
        match decode(data):
            case Cookie(nonce, cookie) if nonce in self._sent_s:
                self._send(encode(Measure(nonce, cookie, self._player)))
                self._sent_s[nonce] = asyncio.get_running_loop().time()
            case Token(nonce, token) if nonce in self._sent_s and not self.tokens.full():
                self.tokens.put_nowait((token, asyncio.get_running_loop().time() - self._sent_s.pop(nonce)))

    def error_received(self, exc: Exception) -> None:
        pass  # nobody there: the deadline says so

    def _send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.sendto(data)


async def _over_udp(region: str, host: str, port: int, player: str, samples: int, timeout_s: float) -> Measured | None:
    loop, client = asyncio.get_running_loop(), _Client(player)
    try:
        transport, _ = await loop.create_datagram_endpoint(lambda: client, remote_addr=(host, port))
    except OSError:
        return None
    best: Measured | None = None
    try:
        for _ in range(samples):
            client.hello()
            try:
                async with asyncio.timeout(timeout_s):
                    token, _ = await client.tokens.get()
            except TimeoutError:
                if best is None:
                    return None
                continue
            rtt_ms = rtt_of(token)
            if best is None or rtt_ms < best.rtt_ms:
                best = Measured(region=region, rtt_ms=rtt_ms, token=token)
    finally:
        transport.close()
    return best


async def _over_http(url: str, player: str, samples: int, timeout_s: float) -> Measured | None:
    best: Measured | None = None
    async with httpx.AsyncClient(base_url=url, timeout=timeout_s, trust_env=False) as http:
        for _ in range(samples):
            nonce = base64.urlsafe_b64encode(secrets.token_bytes(8)).decode().rstrip("=")
            try:
                given = (await http.get("/v1/beacon", params={"nonce": nonce})).raise_for_status().json()
                query = {"nonce": nonce, "cookie": given["cookie"], "player": player}
                body = (await http.get("/v1/beacon", params=query)).raise_for_status().json()
            except (httpx.HTTPError, ValueError, KeyError):
                continue
            if best is None or body["rttMs"] < best.rtt_ms:
                best = Measured(region=body["region"], rtt_ms=float(body["rttMs"]), token=body["token"])
    return best


def rtt_of(token: str) -> float:
    """The round trip that a token says, in ms, unverified: for the player's own eyes. Raises ValueError."""
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    if len(raw) < 13:
        raise ValueError("no latency token")
    return int.from_bytes(raw[9:13], "little") / 1000
