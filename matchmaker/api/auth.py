"""
Who asks: players with a bearer JWT whose `sub` is the player's id.

HS256 with a shared secret. Development tokens are issued by the same secret, under `warmfleet up` only.
"""

import time
from collections import OrderedDict
from http import HTTPStatus

import jwt

from gameserver.sessions.model import PlayerId
from matchmaker.api.problems import Problem

_ALGORITHM = "HS256"
_DEVELOPMENT_LIFETIME_S = 24 * 3600
MAX_PLAYER_ID = 64


class PlayerTokens:
    """Verifies (and, for development, issues) players' tokens."""

    def __init__(self, secret: bytes) -> None:
        """`secret`: 32 bytes or more."""
        self._secret = secret

    def player(self, authorization: str) -> PlayerId:
        """The player that an Authorization header names. Raises Problem 401."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise _unauthorized("a bearer token is wanted: Authorization: Bearer <JWT>")
        try:
            claims = jwt.decode(
                token.strip(), self._secret, algorithms=[_ALGORITHM], options={"require": ["sub", "exp"]}
            )
        except jwt.InvalidTokenError as error:
            raise _unauthorized(f"the token is not valid: {error}") from None
        player = claims["sub"]
        if not isinstance(player, str) or not 1 <= len(player) <= MAX_PLAYER_ID:
            raise _unauthorized(f"the token's sub is no player id: 1 to {MAX_PLAYER_ID} characters are wanted")
        return PlayerId(player)

    def issue(self, player: PlayerId) -> str:
        """A development token."""
        now = int(time.time())
        claims = {"sub": player, "iat": now, "exp": now + _DEVELOPMENT_LIFETIME_S}
        return jwt.encode(claims, self._secret, algorithm=_ALGORITHM)


class RateLimit:
    """A token bucket per player: `burst` at once, `per_s` in the long run."""

    def __init__(self, *, per_s: float, burst: float, max_players: int = 100_000) -> None:
        self._per_s = per_s
        self._burst = burst
        self._max_players = max_players
        self._buckets: OrderedDict[PlayerId, tuple[float, float]] = OrderedDict()

    def spend(self, player: PlayerId, now_s: float) -> None:
        """Count one request. Raises Problem 429 with Retry-After."""
        credit, at_s = self._buckets.pop(player, (self._burst, now_s))
        credit = min(self._burst, credit + (now_s - at_s) * self._per_s) - 1.0
        self._buckets[player] = (max(credit, -1.0), now_s)
        if len(self._buckets) > self._max_players:
            self._buckets.popitem(last=False)
        if credit < 0:
            wait_s = max(1, round(-credit / self._per_s + 0.5))
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"more than {self._per_s:g} requests a second",
                kind="rate-limit",
                headers={"Retry-After": str(wait_s)},
            )


def _unauthorized(detail: str) -> Problem:
    return Problem(HTTPStatus.UNAUTHORIZED, detail, kind="unauthorized", headers={"WWW-Authenticate": "Bearer"})
