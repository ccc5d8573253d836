"""Tokens for whoever asks; only ever on a developer's own machine."""

import re
import secrets

from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware

from gameserver.sessions.model import PlayerId
from matchmaker.api.auth import PlayerTokens
from matchmaker.api.schemas import DevelopmentPlayerBody, DevelopmentPlayerRequest


def add(app: FastAPI, players: PlayerTokens) -> None:
    """Add the endpoint."""
    # A page from elsewhere whose name was made to point here (DNS rebinding) must not get tokens.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "::1"])

    @app.post("/v1/dev/players", status_code=201, tags=["development"])
    async def development_player(body: DevelopmentPlayerRequest) -> DevelopmentPlayerBody:
        """A player and a token for it, for whoever asks; the name gets a random end, so that no two share an id."""
        name = re.sub(r"[^\w-]+", "-", body.name).strip("-") or "guest"
        player = PlayerId(f"{name}-{secrets.token_hex(3)}")
        return DevelopmentPlayerBody(player=player, token=players.issue(player))
