"""netcode connect tokens for players' UDP connections: minted with the seat token, for the server where the session is."""

import base64
import ipaddress
import socket

from gameserver.protocol.netcode.tokens import issue_connect_token, protocol_id_of
from gameserver.sessions.model import FleetName


class ConnectTokens:
    """Issues connect tokens with the key that the game servers have."""

    def __init__(self, private_key: bytes) -> None:
        """`private_key`: 32 bytes."""
        self._key = private_key

    def issue(self, fleet: FleetName, host: str, port: int, now_unix_s: float) -> str:
        """A connect token in base64."""
        token = issue_connect_token(
            [(_address(host), port)],
            protocol_id=protocol_id_of(fleet),
            private_key=self._key,
            now_unix_s=int(now_unix_s),
        )
        return base64.b64encode(token).decode()


def _address(host: str) -> str:
    """A connect token names addresses, not names."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)[0][4][0])
