"""
Who may look at the console, and who may act: whoever is not known may nothing.

An operator's or a viewer's token, as `warmfleet up` makes them and Secrets hold them; or a person's own token of the studio's identity provider, whose claim
`warmfleet_role` says which of the two it is.
"""

import hmac
import math
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from fastapi import HTTPException

from allocator.api.problems import Problem
from matchmaker.api.auth import SignedTokens

ROLE_CLAIM = "warmfleet_role"


class Role(StrEnum):
    """What somebody may do."""

    VIEWER = "viewer"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Who looks."""

    role: Role
    name: str
    """For the others, when it acts."""
    until_s: float = math.inf
    """Unix seconds."""


class Access:
    """Everybody who may look."""

    def __init__(self, *, operator: str, viewer: str = "", people: SignedTokens | None = None) -> None:
        """`viewer`: "" when there is no such token."""
        self._tokens = {Role.OPERATOR: operator, Role.VIEWER: viewer}
        self._people = people

    async def visitor(self, authorization: str) -> Visitor:
        """Whose an Authorization header is. Raises HTTPException 401, 403."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise _unknown("a bearer token is wanted: `warmfleet console` prints an address with one")
        for role, known in self._tokens.items():
            if known and hmac.compare_digest(token.encode(), known.encode()):
                return Visitor(role=role, name=f"the {role}'s token")
        if self._people is None:
            raise _unknown("this token is not known here: `warmfleet console` prints an address with one that is")
        try:
            claims = await self._people.claims(token)
        except Problem as problem:
            raise _unknown(problem.detail) from None
        return Visitor(role=_role(claims.get(ROLE_CLAIM)), name=str(claims["sub"])[:64], until_s=float(claims["exp"]))


def _role(claim: Any) -> Role:
    """Of a claim: one word, or a list of them."""
    words = claim if isinstance(claim, list) else [claim]
    for role in (Role.OPERATOR, Role.VIEWER):
        if role.value in words:
            return role
    raise HTTPException(HTTPStatus.FORBIDDEN, f"the token's {ROLE_CLAIM} is neither viewer nor operator")


def _unknown(detail: str) -> HTTPException:
    return HTTPException(HTTPStatus.UNAUTHORIZED, detail, headers={"WWW-Authenticate": "Bearer"})
