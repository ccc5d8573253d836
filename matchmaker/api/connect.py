"""netcode connect tokens for players' UDP connections: minted with the seat token, for the server where the session is."""

import asyncio
import base64
import ipaddress
import socket
import time

import structlog

from gameserver.protocol.netcode.tokens import issue_connect_token, protocol_id_of
from gameserver.sessions.model import FleetName

log = structlog.get_logger(__name__)

_LOOKUP_TIMEOUT_S = 2.0
_LOOKUP_KEPT_S = 30.0
_LOOKUPS_KEPT = 10_000
_MAX_ADDRESSES = 32
"""netcode's."""


class ConnectTokens:
    """Issues connect tokens with the key that the game servers have."""

    def __init__(self, private_key: bytes) -> None:
        """`private_key`: 32 bytes."""
        self._key = private_key
        self._found: dict[str, tuple[float, list[str]]] = {}
        """Names of servers: until when they need not be looked up again, and their addresses."""

    async def issue(self, fleet: FleetName, host: str, port: int, now_unix_s: float) -> str | None:
        """A connect token in base64, for every address of the host; None for a name that cannot be looked up now."""
        if not (addresses := await self._addresses(host)):
            return None
        token = issue_connect_token(
            [(address, port) for address in addresses],
            protocol_id=protocol_id_of(fleet),
            private_key=self._key,
            now_unix_s=int(now_unix_s),
        )
        return base64.b64encode(token).decode()

    async def _addresses(self, host: str) -> list[str]:
        """A connect token names addresses, not names."""
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            pass
        until_s, found = self._found.get(host, (0.0, []))
        if time.monotonic() < until_s:
            return found
        try:
            async with asyncio.timeout(_LOOKUP_TIMEOUT_S):
                rows = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_DGRAM)
        except OSError as error:  # and TimeoutError
            log.warning("server_not_looked_up", host=host, error=str(error))
            return found
        found = list(dict.fromkeys(str(row[4][0]) for row in rows))[:_MAX_ADDRESSES]
        if len(self._found) >= _LOOKUPS_KEPT:
            self._found.clear()
        self._found[host] = (time.monotonic() + _LOOKUP_KEPT_S, found)
        return found
