"""
Who asks, and how often.

Players come with a bearer JWT whose `sub` is the player's id: HS256 with a shared secret, or an asymmetric signature by a key of the studio's JWKS.
The studio's own services come with an API key, of which only a hash is kept here. Development tokens are issued by the shared secret, under
`warmfleet up` only.
"""

import asyncio
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from http import HTTPStatus
from typing import Any

import httpx
import jwt
import structlog

from allocator.api.problems import Problem
from gameserver.sessions.model import PlayerId
from matchmaker import metrics
from matchmaker.buckets import Buckets

log = structlog.get_logger(__name__)

_ALGORITHM = "HS256"
_ASYMMETRIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_DEVELOPMENT_LIFETIME_S = 24 * 3600
_REMEMBERED = 50_000
"""Tokens that were verified and have not expired: a signature is checked once."""
_MAX_TOKEN = 8192
MAX_PLAYER_ID = 64


class Role(StrEnum):
    """What a caller may do."""

    PLAYER = "player"
    """Queue itself (and its party), and see its own tickets."""
    BACKEND = "backend"
    """The studio's service: queue any player, see every ticket, ask for backfill, report results."""
    OPERATOR = "operator"
    """Everything, and pause, drain and requeue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks."""

    role: Role
    player: PlayerId | None = None
    """Of a player."""
    key: str = ""
    """The name of an API key."""
    priority: str = ""
    """From a player's token: the queue's priority that its tickets have."""

    @property
    def name(self) -> str:
        """For its rate limit and its idempotency keys."""
        return self.player if self.player is not None else f"key {self.key}"

    def is_in(self, players: Iterable[str]) -> bool:
        """Whether it may act for a party."""
        return self.player is None or self.player in players


class ApiKeys:
    """The studio's services' keys."""

    def __init__(self, keys: Mapping[str, tuple[str, Role]] | None = None) -> None:
        """`keys`: SHA-256 of each key in hex → (its name, its role)."""
        self._keys = dict(keys or {})

    @classmethod
    def parse(cls, text: str) -> "ApiKeys":
        """Read `name:role:sha256, …`, as settings have it. Raises ValueError that names the entry, never its hash."""
        keys = {}
        for entry in filter(None, (part.strip() for part in text.split(","))):
            name, _, rest = entry.partition(":")
            role, _, digest = rest.partition(":")
            if role not in (Role.BACKEND, Role.OPERATOR) or len(digest) != 64:
                raise ValueError(f"API key {name!r}: name:backend|operator:<SHA-256 of the key in hex> is wanted")
            keys[digest.lower()] = (name, Role(role))
        return cls(keys)

    def find(self, token: str) -> Caller | None:
        """Whose key it is. A hash is looked up, so that comparing takes no time that tells anything."""
        if not self._keys:
            return None
        found = self._keys.get(hashlib.sha256(token.encode()).hexdigest())
        return None if found is None else Caller(role=found[1], key=found[0])


@dataclass
class Jwks:
    """
    The studio's public keys, fetched from its identity provider: kept, renewed, and asked for again when a token names an unknown one.

    A provider that is away changes nothing for the keys that are known.
    """

    url: str
    fetch: Callable[[str], Awaitable[bytes]] | None = None
    """For tests."""
    fresh_s: float = 600.0
    again_s: float = 10.0
    """Between two attempts: tokens with made-up key ids must not make us hammer the provider."""
    _keys: dict[str, jwt.PyJWK] = field(default_factory=dict)
    _fetched_at_s: float = float("-inf")
    _tried_at_s: float = float("-inf")
    _busy: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def key(self, kid: str, now_s: float) -> jwt.PyJWK | None:
        """The key that a token names; None when the provider has none such. `now_s`: monotonic."""
        if now_s - self._fetched_at_s > self.fresh_s or kid not in self._keys:
            async with self._busy:
                stale = now_s - self._fetched_at_s > self.fresh_s or kid not in self._keys
                if stale and now_s - self._tried_at_s >= self.again_s:
                    self._tried_at_s = now_s
                    await self._renew(now_s)
        return self._keys.get(kid)

    async def _renew(self, now_s: float) -> None:
        try:
            keys = json.loads(await (self.fetch or _fetch)(self.url))["keys"]
            self._keys = {
                str(key["kid"]): jwt.PyJWK(key)
                for key in keys
                if key.get("kid") and key.get("use", "sig") == "sig" and key.get("kty") in ("RSA", "EC", "OKP")
            }
            self._fetched_at_s = now_s
        except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError, jwt.PyJWTError) as error:
            log.warning("jwks_unavailable", url=self.url, error=f"{type(error).__name__}: {error}")


class SignedTokens:
    """Verifies JWTs: signed with a shared secret, or by a key of an identity provider."""

    def __init__(
        self, secret: bytes = b"", *, jwks: Jwks | None = None, audience: str | None = None, issuer: str | None = None
    ) -> None:
        """
        At least one of `secret` (HS256, 32 bytes or more) and `jwks`.

        Args:
            audience, issuer: what a token's `aud` and `iss` must be; None: anything.
        """
        if not secret and jwks is None:
            raise ValueError("tokens need a shared secret or a JWKS")
        self._secret = secret
        self._jwks = jwks
        self._wanted = {"audience": audience, "issuer": issuer}
        self._options: dict[str, Any] = {"require": ["sub", "exp"], "verify_aud": audience is not None}

    async def claims(self, token: str) -> Mapping[str, Any]:
        """What a token that is valid says; it has `sub` and `exp`. Raises Problem 401."""
        try:
            header = _header(token.partition(".")[0])
            if header.get("alg") == _ALGORITHM and self._secret:
                key: Any = self._secret
                algorithms = [_ALGORITHM]
            elif header.get("alg") in _ASYMMETRIC and self._jwks is not None:
                found = await self._jwks.key(str(header.get("kid")), time.monotonic())
                if found is None:
                    raise unauthorized("the token is not valid: it is signed with a key that the JWKS does not have")
                # The key says which algorithm is right, and never the token alone.
                key, algorithms = found.key, [found.algorithm_name]
            else:
                raise unauthorized("the token is not valid: its algorithm is not accepted here")
            claims: Mapping[str, Any]
            claims = jwt.decode(token, key, algorithms=algorithms, options=self._options, **self._wanted)  # type: ignore[arg-type]
            return claims
        except jwt.PyJWTError as error:
            raise unauthorized(f"the token is not valid: {error}") from None


class PlayerTokens(SignedTokens):
    """Verifies (and, for development, issues) players' tokens."""

    async def verify(self, token: str) -> tuple[Caller, float]:
        """Who the token names, and until when (Unix seconds). Raises Problem 401."""
        claims = await self.claims(token)
        player = claims["sub"]
        if not isinstance(player, str) or not 1 <= len(player) <= MAX_PLAYER_ID or not player.isprintable():
            raise unauthorized(f"the token's sub is no player id: 1 to {MAX_PLAYER_ID} characters are wanted")
        priority = claims.get("priority", "")
        caller = Caller(
            role=Role.PLAYER, player=PlayerId(player), priority=priority if isinstance(priority, str) else ""
        )
        return caller, float(claims["exp"])

    def issue(self, player: PlayerId) -> str:
        """A development token."""
        now = int(time.time())
        claims = {"sub": player, "iat": now, "exp": now + _DEVELOPMENT_LIFETIME_S}
        return jwt.encode(claims, self._secret, algorithm=_ALGORITHM)


class Callers:
    """Everybody who may ask."""

    def __init__(
        self, players: PlayerTokens, keys: ApiKeys, *, player_limit: "RateLimit", key_limit: "RateLimit"
    ) -> None:
        self._players = players
        self._keys = keys
        self._player_limit = player_limit
        self._key_limit = key_limit
        self._verified: OrderedDict[str, tuple[Caller, float]] = OrderedDict()

    async def caller(self, authorization: str, *, role: Role | None = None) -> Caller:
        """
        Who an Authorization header names; counts one request.

        `role`: who is wanted; an operator may do what a backend may. Raises Problem 401, 403, 429.
        """
        caller = await self.identify(authorization)
        limit = self._player_limit if caller.role is Role.PLAYER else self._key_limit
        limit.spend(caller.name, time.monotonic())
        if role is not None and caller.role not in (role, Role.OPERATOR):
            raise Problem(HTTPStatus.FORBIDDEN, f"an API key with the role {role} is wanted", kind="forbidden")
        return caller

    async def identify(self, authorization: str) -> Caller:
        """Who an Authorization header names. Raises Problem 401."""
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > _MAX_TOKEN:
            raise unauthorized("a bearer token is wanted: Authorization: Bearer <JWT or API key>")
        known = self._verified.get(token)
        if known is None or known[1] <= time.time():
            self._verified.pop(token, None)
            key = self._keys.find(token)
            known = (key, float("inf")) if key is not None else await self._players.verify(token)
            self._verified[token] = known
            if len(self._verified) > _REMEMBERED:
                self._verified.popitem(last=False)
        return known[0]


class RateLimit:
    """A token bucket per caller: `burst` at once, `per_s` in the long run."""

    def __init__(self, *, per_s: float, burst: float) -> None:
        self._buckets = Buckets(per_s=per_s, burst=burst)

    def spend(self, caller: str, now_s: float) -> None:
        """Count one request. Raises Problem 429 with Retry-After."""
        if short_s := self._buckets.take(caller, now_s):
            metrics.RATE_LIMITED.inc()
            wait_s = max(1, round(short_s + 0.5))
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"more than {self._buckets.per_s:g} requests a second",
                kind="rate-limit",
                headers={"Retry-After": str(wait_s)},
            )


@lru_cache(maxsize=1024)
def _header(segment: str) -> Mapping[str, Any]:
    """A token's header: the same for all tokens of one issuer's key, so it is read once. Raises jwt.InvalidTokenError."""
    header: Mapping[str, Any] = jwt.get_unverified_header(f"{segment}..")
    return header


async def _fetch(url: str) -> bytes:
    async with httpx.AsyncClient(timeout=5.0) as http:
        reply = await http.get(url)
        reply.raise_for_status()
        if len(reply.content) > 256 * 1024:
            raise ValueError("the JWKS is larger than 256 KiB")
        return reply.content


def unauthorized(detail: str) -> Problem:
    """401."""
    return Problem(HTTPStatus.UNAUTHORIZED, detail, kind="unauthorized", headers={"WWW-Authenticate": "Bearer"})
