"""
What is done to a running session from outside: by a studio's service, an operator, the REST API.

Notes a decision in the session's record, whichever server plays it; that server hears of it at once over its inbox, and with every heartbeat. So a note
outlives the server: the next one that the session moves to is told the same.
"""

from pathlib import Path

from gameserver.sessions.client import StoreClient
from gameserver.sessions.library import FunctionLibrary
from gameserver.sessions.model import PlayerId, SessionId, fleet_of
from gameserver.sessions.valkey import session_key

MAX_REASON_LENGTH = 200
"""Characters of a reason: it is shown to the player."""


class SessionControl:
    """Sessions of every fleet, by one store."""

    def __init__(self, client: StoreClient) -> None:
        self._functions = FunctionLibrary(client, Path(__file__).with_name("sessions.lua"))

    async def kick(self, session: SessionId, player: PlayerId, reason: str = "removed from the match") -> bool:
        """
        Remove a player, or a spectator, from a session for good; idempotent, the first reason stays.

        Its connection is closed with the code `kicked` within a heartbeat (1 s), mostly at once; until then and afterwards no seat token lets it back in. The
        game is told as of anyone who leaves.

        Returns: False when the session has ended or was never there. Raises: StoreUnavailable (ask again), ValueError for a reason that is too long.
        """
        if len(reason) > MAX_REASON_LENGTH:
            raise ValueError(f"a reason of {len(reason)} characters: {MAX_REASON_LENGTH} are shown at most")
        prefix = f"wf:{{{fleet_of(session)}}}:"
        reply = await self._functions.call("session_kick", [session_key(session)], session, player, reason, prefix)
        return bool(reply == b"OK")
