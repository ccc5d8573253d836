"""
The client's side of netcode: from a connect token to payloads.

Source: STANDARD.md "Client State Machine". The servers of the token are tried in turn, each for the token's timeout; a server that is full or silent is passed
over. The last one's failure is the connection's.
"""

from collections import deque
from enum import IntEnum
from typing import NamedTuple

from gameserver.protocol.netcode import packets as p
from gameserver.protocol.netcode.addresses import Address
from gameserver.protocol.netcode.crypto import make_cipher
from gameserver.protocol.netcode.elapsed import Elapsed
from gameserver.protocol.netcode.tokens import BadConnectToken, ConnectToken, read_connect_token

MAX_RECEIVED = 4096
"""Events that may wait; a payload beyond them is lost, as on the way."""


class ClientState(IntEnum):
    """The standard's states and numbers: negative ones are failures."""

    CONNECT_TOKEN_EXPIRED = -6
    INVALID_CONNECT_TOKEN = -5
    CONNECTION_TIMED_OUT = -4
    CONNECTION_RESPONSE_TIMED_OUT = -3
    CONNECTION_REQUEST_TIMED_OUT = -2
    CONNECTION_DENIED = -1
    DISCONNECTED = 0
    SENDING_CONNECTION_REQUEST = 1
    SENDING_CONNECTION_RESPONSE = 2
    CONNECTED = 3


class StateChanged(NamedTuple):
    """The connection is in another state; one of 0 or less is its last."""

    state: ClientState


class Received(NamedTuple):
    """A payload, each at most once, in any order."""

    payload: bytes


ClientEvent = StateChanged | Received

_TIMED_OUT = {
    ClientState.SENDING_CONNECTION_REQUEST: ClientState.CONNECTION_REQUEST_TIMED_OUT,
    ClientState.SENDING_CONNECTION_RESPONSE: ClientState.CONNECTION_RESPONSE_TIMED_OUT,
    ClientState.CONNECTED: ClientState.CONNECTION_TIMED_OUT,
}


class NetcodeClient:
    """One attempt to connect, and the connection; made anew for the next."""

    def __init__(self, connect_token: bytes, now_s: float) -> None:
        """A bad token shows as the state INVALID_CONNECT_TOKEN."""
        self._events: deque[ClientEvent] = deque()
        self._out: list[tuple[Address, bytes]] = []
        self.state = ClientState.DISCONNECTED
        self.index = 0
        """Slot on the server, once connected."""
        self.max_clients = 0
        self.server: Address = ("", 0)
        """The server that is tried, or connected to."""
        self.servers: tuple[Address, ...] = ()
        self._elapsed = Elapsed(now_s)
        """What timeouts and intervals go by; moves on in `receive` and `data_to_send`. All times below are its, but for `now_s`."""
        try:
            token = read_connect_token(connect_token)
        except BadConnectToken:
            self._become(ClientState.INVALID_CONNECT_TOKEN)
            return
        self._token: ConnectToken = token
        self.servers = token.servers
        self._send_cipher = make_cipher(token.client_to_server_key)
        self._read_cipher = make_cipher(token.server_to_client_key)
        self._associated = p.associated_data(token.protocol_id)
        self._expires_at_s = float(token.expires_unix_s - token.created_unix_s)
        self._request = p.encode_request(
            p.Request(
                protocol_id=token.protocol_id,
                expires_unix_s=token.expires_unix_s,
                nonce=token.nonce,
                private=token.private,
            )
        )
        self._challenge = b""
        self.sequence = 0
        """Of the next packet. One count for all servers that are tried: they share the key, so no number may come twice."""
        self._attempt = -1
        self._try_next()

    def receive(self, data: bytes, address: Address, now_s: float) -> None:
        """Take any datagram in; never raises."""
        time_s = self._elapsed.advance(now_s)
        if self.state <= ClientState.DISCONNECTED or address != self.server:
            return
        opened = p.unseal(data, self._reader, self._associated, p.CLIENT_READS)
        if opened is None:
            return
        connected = self.state is ClientState.CONNECTED
        match opened.kind:
            case p.PAYLOAD if connected:
                self._heard_at_s = time_s
                if len(self._events) < MAX_RECEIVED:
                    self._events.append(Received(opened.body))
            case p.KEEP_ALIVE if connected:
                self._heard_at_s = time_s
            case p.KEEP_ALIVE if self.state is ClientState.SENDING_CONNECTION_RESPONSE:
                self._heard_at_s = time_s
                self.index, self.max_clients = p.decode_keep_alive(opened.body)
                self._become(ClientState.CONNECTED)
            case p.CHALLENGE if self.state is ClientState.SENDING_CONNECTION_REQUEST:
                self._heard_at_s = time_s
                self._challenge = opened.body  # it goes back as it is
                self._due_at_s = time_s
                self._become(ClientState.SENDING_CONNECTION_RESPONSE)
            case p.DENIED if not connected:
                self._fail(ClientState.CONNECTION_DENIED)
            case p.DISCONNECT if connected:
                self._become(ClientState.DISCONNECTED)
            case _:
                pass  # not the time for it

    def next_event(self) -> ClientEvent | None:
        """Hand over the oldest event; None when there is none."""
        return self._events.popleft() if self._events else None

    def send(self, payload: bytes) -> None:
        """
        Send a payload of 1 to 1,200 bytes; nothing is sent while not connected.

        Raises: ValueError for a payload of another size.
        """
        if not 1 <= len(payload) <= p.MAX_PAYLOAD_BYTES:
            raise ValueError(f"a payload of {len(payload)} bytes: 1 to {p.MAX_PAYLOAD_BYTES} are wanted")
        if self.state is ClientState.CONNECTED:
            self._send(p.PAYLOAD, payload)

    def disconnect(self) -> None:
        """End the connection, or the attempt."""
        if self.state is ClientState.CONNECTED:
            for _ in range(p.DISCONNECT_PACKETS):
                self._send(p.DISCONNECT, b"")
        if self.state > ClientState.DISCONNECTED:
            self._become(ClientState.DISCONNECTED)

    def data_to_send(self, now_s: float) -> list[tuple[Address, bytes]]:
        """What waits to be sent; silence of the server is noticed here."""
        time_s = self._elapsed.advance(now_s)
        if self.state > ClientState.DISCONNECTED:
            self._check_timeouts(time_s)
        if self.state > ClientState.DISCONNECTED and time_s >= self._due_at_s:
            match self.state:
                case ClientState.SENDING_CONNECTION_REQUEST:
                    self._out.append((self.server, self._request))
                    self._due_at_s = time_s + p.SEND_INTERVAL_S
                case ClientState.SENDING_CONNECTION_RESPONSE:
                    self._send(p.RESPONSE, self._challenge)
                case _:
                    self._send(p.KEEP_ALIVE, p.encode_keep_alive(0, 0))
        out, self._out = self._out, []
        return out

    def next_timer_s(self) -> float | None:
        """When `data_to_send` must be called though nothing happens; None for no more."""
        return self._elapsed.outside_s(self._due_at_s) if self.state > ClientState.DISCONNECTED else None

    def _send(self, kind: int, body: bytes) -> None:
        self._out.append((self.server, p.seal(kind, self.sequence, body, self._send_cipher, self._associated)))
        self.sequence += 1
        self._due_at_s = self._elapsed.time_s + p.SEND_INTERVAL_S

    def _check_timeouts(self, time_s: float) -> None:
        if self.state is not ClientState.CONNECTED and time_s >= self._expires_at_s:
            self._become(ClientState.CONNECT_TOKEN_EXPIRED)
        elif 0 < self._token.timeout_s < time_s - self._heard_at_s:
            if self.state is ClientState.CONNECTED:
                self._become(ClientState.CONNECTION_TIMED_OUT)
            else:
                self._fail(_TIMED_OUT[self.state])

    def _fail(self, state: ClientState) -> None:
        """This server will not have us: the next one, or the end."""
        if self._attempt + 1 < len(self._token.servers):
            self._try_next()
        else:
            self._become(state)

    def _try_next(self) -> None:
        self._attempt += 1
        self.server = self._token.servers[self._attempt]
        self._reader = p.Reader(self._read_cipher)
        self._heard_at_s = self._due_at_s = self._elapsed.time_s
        self._become(ClientState.SENDING_CONNECTION_REQUEST)

    def _become(self, state: ClientState) -> None:
        self.state = state
        self._events.append(StateChanged(state))
