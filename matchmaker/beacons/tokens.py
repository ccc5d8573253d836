"""
Latency tokens: a beacon's signed word on a player's round trip to its region.

`base64url(body + Ed25519 signature)`; the body is version (1), the key's id (8), the round trip in µs (4), when it was issued in Unix seconds (4), a nonce
(8), then the region and the player, each with its length (1). Signed with the region's own key, of which the matchmaker knows the public half: a beacon that
falls into wrong hands lies about its own region only.
"""

import base64
import binascii
import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gameserver.sessions.model import PlayerId

LIFETIME_S = 600.0
"""A round trip may be measured before a session of play; routes change by the hour, not by the minute."""
_EARLY_S = 30.0
"""A beacon's clock may be so much ahead."""
_VERSION = 1
_HEAD = struct.Struct("<B8sII8s")
_SIGNATURE_SIZE = 64
_LONGEST = 480


class LatencyRefused(Exception):
    """A token is no proof; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredLatency:
    """What a token says."""

    player: PlayerId
    region: str
    rtt_ms: float


class LatencySigner:
    """Signs for one region."""

    def __init__(self, region: str, private_key: bytes) -> None:
        """`private_key`: the 32 bytes of an Ed25519 key. Raises ValueError for a region of more than 64 bytes."""
        if not 0 < len(region.encode()) <= 64:
            raise ValueError(f"region {region!r}: 1 to 64 bytes are wanted")
        self.region = region
        self._key = Ed25519PrivateKey.from_private_bytes(private_key)
        public = self._key.public_key().public_bytes_raw()
        self._key_id = _key_id(public)
        self.public_key = base64.urlsafe_b64encode(public).rstrip(b"=").decode()
        """What the matchmaker verifies with."""

    def sign(self, player: str, rtt_s: float, now_s: float, nonce: bytes) -> str:
        """A token. `now_s`: Unix seconds; `nonce`: 8 bytes."""
        rtt_us = min(round(rtt_s * 1e6), 0xFFFFFFFF)
        body = _HEAD.pack(_VERSION, self._key_id, rtt_us, int(now_s), nonce) + _text(self.region) + _text(player)
        return base64.urlsafe_b64encode(body + self._key.sign(body)).rstrip(b"=").decode()


class LatencyVerifier:
    """Checks tokens with the regions' public keys."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        """`keys`: region to public key, base64url. Raises ValueError for a bad one."""
        self._keys: dict[bytes, tuple[str, Ed25519PublicKey]] = {}
        for region, text in keys.items():
            raw = _unbase64(text)
            if raw is None or len(raw) != 32:
                raise ValueError(f"region {region}: its key is 32 bytes in base64url")
            self._keys[_key_id(raw)] = (region, Ed25519PublicKey.from_public_bytes(raw))

    def verify(self, token: str, player: str, now_s: float) -> MeasuredLatency:
        """Read a player's token. `now_s`: Unix seconds. Raises LatencyRefused."""
        raw = _unbase64(token) if len(token) <= _LONGEST else None
        if raw is None or len(raw) < _HEAD.size + 2 + _SIGNATURE_SIZE:
            raise LatencyRefused("is no latency token")
        body, signature = raw[:-_SIGNATURE_SIZE], raw[-_SIGNATURE_SIZE:]
        version, key_id, rtt_us, issued_s, _ = _HEAD.unpack_from(body)
        region, key = self._keys.get(key_id, ("", None))
        if version != _VERSION or key is None:
            raise LatencyRefused("is signed with an unknown key")
        try:
            key.verify(signature, body)
        except InvalidSignature:
            raise LatencyRefused("its signature is wrong") from None
        named, measured_for = _texts(body[_HEAD.size :])
        if named != region:
            raise LatencyRefused(f"region {named} is not its key's")
        if measured_for != player:
            raise LatencyRefused("was measured for another player")
        if not issued_s - _EARLY_S <= now_s < issued_s + LIFETIME_S:
            raise LatencyRefused("has expired: measure again")
        return MeasuredLatency(player=PlayerId(player), region=region, rtt_ms=rtt_us / 1000)

    def latencies_ms(self, tokens: Sequence[str], player: str, now_s: float) -> dict[str, float]:
        """Region to round trip, the best of each. Raises LatencyRefused."""
        found: dict[str, float] = {}
        for index, token in enumerate(tokens):
            try:
                measured = self.verify(token, player, now_s)
            except LatencyRefused as why:
                raise LatencyRefused(f"latencyTokens[{index}] {why}") from None
            # A client can add delay and not remove it: the shortest is the nearest to the truth.
            found[measured.region] = min(measured.rtt_ms, found.get(measured.region, measured.rtt_ms))
        return found


def _key_id(public: bytes) -> bytes:
    return hashlib.sha256(b"warmfleet latency " + public).digest()[:8]


def _text(text: str) -> bytes:
    raw = text.encode()
    return bytes([len(raw)]) + raw


def _texts(raw: bytes) -> tuple[str, str]:
    """The two strings of a body whose signature is right."""
    size = raw[0]
    return raw[1 : 1 + size].decode(), raw[2 + size :].decode()


def _unbase64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        return None
