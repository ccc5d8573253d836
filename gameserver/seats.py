"""
Seat tokens: the signed word that lets one player take one seat, once; docs/protocol.md "Seat token" is the specification.

The matchmaker issues them, game servers verify them offline. Issuing and verifying take the time as an argument; a verifier remembers
the nonces of unexpired tokens, and a token names its server, so that none is used twice anywhere.
"""

import base64
import binascii
import hashlib
import secrets
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gameserver.sessions.model import PlayerId, ServerName, SessionId

_VERSION = 1
_HEAD = struct.Struct("<B8sI12sIH")
_SIGNATURE_SIZE = 64
_MAX_TOKEN_SIZE = 1024
DEFAULT_LIFETIME_S = 60.0
"""Long enough to dial a server, short enough that a leaked token is soon worthless."""
_FORGET_EVERY = 256
"""Used tokens to remember at least, before those that have expired are looked for."""


class SeatRefused(Exception):
    """The token does not let its bearer in; the message says why and holds nothing secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeatGrant:
    """What a seat token says."""

    player: PlayerId
    seat: int
    team: str
    session: SessionId
    server: ServerName
    epoch: int
    expires_at_s: int = field(default=0, compare=False)
    """Unix seconds, as the token says; the issuer sets it. Of two tokens for one seat the later one is for whoever has the seat now."""


class SeatIssuer:
    """Signs seat tokens."""

    def __init__(self, private_key: bytes) -> None:
        """`private_key`: the 32 bytes of an Ed25519 key."""
        self._key = Ed25519PrivateKey.from_private_bytes(private_key)
        public = self._key.public_key().public_bytes_raw()
        self._key_id = _key_id(public)
        self.public_key = base64.urlsafe_b64encode(public).rstrip(b"=").decode()
        """For WARMFLEET_SEAT_KEYS."""

    def issue(self, grant: SeatGrant, now_s: float, *, lifetime_s: float = DEFAULT_LIFETIME_S) -> str:
        """Sign a token. `now_s`: Unix seconds."""
        nonce = secrets.token_bytes(12)
        body = _HEAD.pack(_VERSION, self._key_id, int(now_s + lifetime_s), nonce, grant.epoch, grant.seat)
        body += b"".join(_str16(text) for text in (grant.player, grant.team, grant.session, grant.server))
        return base64.urlsafe_b64encode(body + self._key.sign(body)).rstrip(b"=").decode()


class SeatVerifier:
    """Checks the tokens that one server is shown."""

    def __init__(self, public_keys: Iterable[str], server: ServerName) -> None:
        """`public_keys`: base64url, as `SeatIssuer.public_key`; several while keys are rotated. Raises ValueError for a bad one."""
        self._server = server
        self._keys: dict[bytes, Ed25519PublicKey] = {}
        for text in public_keys:
            raw = _unbase64(text)
            if raw is None or len(raw) != 32:
                raise ValueError("a seat key is 32 bytes in base64url")
            self._keys[_key_id(raw)] = Ed25519PublicKey.from_public_bytes(raw)
        self._used: dict[bytes, int] = {}
        """Nonce to expiry."""
        self._forgotten_s = 0
        """The latest expiry that was forgotten: a clock that is set back must not bring such a token to life again."""
        self._forget_at = _FORGET_EVERY

    def verify(self, token: str, now_s: float) -> SeatGrant:
        """Accept a token once. `now_s`: Unix seconds. Raises SeatRefused."""
        raw = _unbase64(token) if len(token) <= _MAX_TOKEN_SIZE else None
        if raw is None or len(raw) < _HEAD.size + _SIGNATURE_SIZE:
            raise SeatRefused("no seat token")
        body, signature = raw[:-_SIGNATURE_SIZE], raw[-_SIGNATURE_SIZE:]
        version, key_id, expiry, nonce, epoch, seat = _HEAD.unpack_from(body)
        key = self._keys.get(key_id)
        if version != _VERSION or key is None:
            raise SeatRefused("signed with an unknown key")
        try:
            key.verify(signature, body)
        except InvalidSignature:
            raise SeatRefused("the signature is wrong") from None
        player, team, session, server = _texts(body, _HEAD.size)
        if server != self._server:
            raise SeatRefused(f"for server {server}, this is {self._server}")
        if expiry <= max(now_s, self._forgotten_s):
            raise SeatRefused("expired")
        if nonce in self._used:
            raise SeatRefused("used before")
        self._remember(nonce, expiry, now_s)
        return SeatGrant(
            player=PlayerId(player),
            seat=seat,
            team=team,
            session=SessionId(session),
            server=ServerName(server),
            epoch=epoch,
            expires_at_s=expiry,
        )

    def _remember(self, nonce: bytes, expiry: int, now_s: float) -> None:
        if len(self._used) >= self._forget_at:  # by their number, since the clock may jump
            self._forgotten_s = max([self._forgotten_s, *(until for until in self._used.values() if until <= now_s)])
            self._used = {used: until for used, until in self._used.items() if until > now_s}
            self._forget_at = 2 * len(self._used) + _FORGET_EVERY
        self._used[nonce] = expiry


def _key_id(public: bytes) -> bytes:
    return hashlib.sha256(public).digest()[:8]


def _str16(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<H", len(raw)) + raw


def _texts(body: bytes, at: int) -> list[str]:
    """The length-prefixed strings of a body whose signature is right."""
    texts = []
    while at < len(body):
        (size,) = struct.unpack_from("<H", body, at)
        texts.append(body[at + 2 : at + 2 + size].decode())
        at += 2 + size
    return texts


def _unbase64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        return None
