"""
The server's side of netcode: strangers to clients, clients to payloads.

A stranger costs memory only after it has shown a valid connect token, is answered with less than it sent, and has a slot only after it has answered
from its address. Source: STANDARD.md "Server-Side Connection Process", whose order of checks is kept; where this is stricter: `limits.UsedTokens`.
"""

from collections import deque
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from enum import Enum
from heapq import heappop, heappush
from operator import itemgetter
from typing import Any

from gameserver.protocol.netcode import packets as p
from gameserver.protocol.netcode.addresses import Address
from gameserver.protocol.netcode.crypto import MAC_BYTES, Cipher, make_cipher
from gameserver.protocol.netcode.elapsed import Elapsed
from gameserver.protocol.netcode.limits import HandshakeLimits, UsedTokens
from gameserver.protocol.netcode.rows import Rows
from gameserver.protocol.netcode.tokens import PrivateToken, decrypt_challenge, encrypt_challenge, open_private_token

Peer = Hashable
"""Where a datagram came from, in whatever form its socket has it; `host_of` tells the IP address."""
GLOBAL_SEQUENCE = 1 << 63
"""
Where the numbers of challenges and denials start, each time a server starts: they share a client's key with its own packets, which are numbered
from 0, and no number may be used twice with one key. Source: IMPLEMENTERS.md 3.
"""
MAX_PENDING_S = 30.0
"""Memory of a handshake that does not go on, whatever timeout its token names."""
_OWN_ROWS = 16
_SWEEP_INTERVAL_S = 0.05
"""How often timeouts and keep-alives are looked at; a keep-alive is at most this late."""


class DisconnectReason(Enum):
    """Why a client is gone."""

    TIMED_OUT = "timed out"
    BY_CLIENT = "by the client"
    BY_SERVER = "by the server"


class Client(p.Reader):
    """A client that has a slot, or had one."""

    __slots__ = (
        "client_id", "confirmed", "gone", "number", "peer", "receiver", "send_key", "sent_at_s", "sequence", "slot", "timeout_s",
    )  # fmt: skip

    def __init__(self, pending: "_Pending", *, number: int, slot: int, peer: Peer, time_s: float) -> None:
        super().__init__(pending.read.key)
        self.number = number
        """Which no other client of this server ever has, unlike the slot."""
        self.gone = False
        self.receiver: Callable[[bytes], None] | None = None
        """Where payloads go: for whoever handles the events to set and to call."""
        self.peer = peer
        self.client_id = pending.client_id
        self.send_key = pending.send
        self.sequence = 0
        self.slot = slot
        self.timeout_s = pending.timeout_s
        self.sent_at_s = self.heard_at_s = time_s
        self.confirmed = False
        """Whether it is known to know its slot, since it has said something."""


@dataclass(frozen=True, slots=True)
class Connected:
    """A client has a slot."""

    client: Client
    peer: Peer
    client_id: int
    user_data: bytes


Received = tuple[Client, bytes]
"""A payload, each at most once, in any order. A plain tuple: one is made for every input of every player."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """A client is gone."""

    client: Client
    reason: DisconnectReason


ServerEvent = Connected | Received | Disconnected


@dataclass(slots=True, kw_only=True, eq=False)
class _Pending:
    """A stranger with a valid token, who was sent a challenge."""

    client_id: int
    mac: bytes
    timeout_s: int
    expires_at_s: float
    send: Cipher
    read: p.Reader


class NetcodeServer:
    """Up to `max_clients` connections on one socket."""

    def __init__(
        self,
        *,
        addresses: Collection[Address],
        protocol_id: int,
        private_key: bytes,
        other_keys: Sequence[bytes] = (),
        max_clients: int,
        challenge_key: bytes,
        unix_offset_s: float,
        limits: HandshakeLimits | None = None,
        host_of: Callable[[Any], str] = itemgetter(0),
    ) -> None:
        """
        Begin with no clients.

        Args:
            addresses: this server's own, as connect tokens name them (the public ones).
            other_keys: of tokens that are accepted too, while keys are rotated.
            challenge_key: 32 random bytes, new at every start.
            unix_offset_s: Unix time less `now_s`; may be set anew when the wall clock moves. Only the expiry of tokens depends on it.
            host_of: the IP address of a peer, for the limits; of one as `socket.recvfrom` says it unless told otherwise.
        """
        self.unix_offset_s = unix_offset_s
        self.ignored = 0
        """Datagrams that led to nothing: malformed, forged, replayed, or from strangers."""
        self.received = 0
        """Packets of clients that were taken."""
        self._lost_before = 0
        """Of clients that have gone."""
        self._addresses = frozenset(addresses)
        self._protocol_id = protocol_id
        self._private_keys = (private_key, *other_keys)
        self._max_clients = max_clients
        self._associated = p.associated_data(protocol_id)
        self._challenge_cipher = make_cipher(challenge_key)
        self._challenge_sequence = 0
        self._global_sequence = GLOBAL_SEQUENCE
        self._limits = limits or HandshakeLimits()
        self._used = UsedTokens(8 * max_clients)
        self._max_pending = 4 * max_clients
        self._pending: dict[Peer, _Pending] = {}
        self._free = list(range(max_clients))
        """Slots, a heap: the lowest is taken first, as in the reference."""
        self._number = 0
        self._by_peer: dict[Peer, Client] = {}
        self._ids: set[int] = set()
        self._host_of = host_of
        self._events: deque[ServerEvent] = deque()
        self._out: list[p.Packet] = []
        """Not sealed yet, but numbered."""
        self._own = Rows(_OWN_ROWS)
        """For datagrams that come and go one by one."""
        self._elapsed = Elapsed()
        """What timeouts and keep-alives go by; moves on in `data_to_send`. All times below are its, but for `now_s`."""
        self._sweep_at_s = 0.0

    @property
    def lost(self) -> int:
        """Packets of clients that never came, as far as that is certain by now."""
        return self._lost_before + sum(client.lost for client in self._by_peer.values())

    @property
    def clients(self) -> int:
        """How many are connected."""
        return len(self._by_peer)

    def receive(self, data: bytes, peer: Peer, now_s: float) -> None:
        """Take any datagram in; never raises."""
        self._own.put(data)
        self.receive_rows(self._own, (peer,), (len(data),), now_s)

    def receive_rows(self, rows: Rows, peers: Sequence[Peer], sizes: Sequence[int], now_s: float) -> None:
        """Take in datagrams, one of each size from each peer; never raises. They may be cut at the end of their rows."""
        readers, others, time_s = map(self._by_peer.get, peers), 0, self._elapsed.time_s
        for row, kind, _ in p.unseal_rows(
            rows, sizes, readers, self._associated, p.SERVER_READS, time_s, self._events.append
        ):
            others += 1
            client, data = self._by_peer.get(peers[row]), rows.get(row, sizes[row])
            taken = self._stranger(data, peers[row], now_s) if client is None else self._control(client, kind)
            self.ignored += not taken
        self.received += len(peers) - others

    def next_event(self) -> ServerEvent | None:
        """Hand over the oldest event; None when there is none."""
        return self._events.popleft() if self._events else None

    def send(self, client: Client, payload: bytes, rest: bytes = b"") -> None:
        """
        Send a payload of 1 to 1,200 bytes, in one piece or two; a client that is gone is passed over.

        Raises: ValueError for a payload of another size.
        """
        size = len(payload) + len(rest)
        if not 1 <= size <= p.MAX_PAYLOAD_BYTES:
            raise ValueError(f"a payload of {size} bytes: 1 to {p.MAX_PAYLOAD_BYTES} are wanted")
        if client.gone:
            return
        if not client.confirmed:
            client.confirmed = client.newest >= 0
            if not client.confirmed:
                self._keep_alive(client)
        # As `_send`, without the call: this runs for each client and tick.
        sequence = client.sequence
        client.sequence = sequence + 1
        client.sent_at_s = self._elapsed.time_s
        self._out.append((client.peer, p.PAYLOAD, sequence, payload, rest, client.send_key))

    def disconnect(self, client: Client) -> None:
        """Let a client go; Disconnected follows as an event. One that is gone is passed over."""
        if not client.gone:
            for _ in range(p.DISCONNECT_PACKETS):
                self._send(client, p.DISCONNECT, b"")
            self._forget(client, DisconnectReason.BY_SERVER)

    def data_to_send(self, now_s: float) -> list[tuple[Peer, bytes]]:
        """All that waits to be sent, as (peer, datagram); see `rows_to_send`."""
        out: list[tuple[Peer, bytes]] = []
        while (batch := self.rows_to_send(self._own, now_s))[0]:
            out += [(peer, self._own.get(index, size)) for index, (peer, size) in enumerate(zip(*batch, strict=True))]
        return out

    def rows_to_send(self, rows: Rows, now_s: float) -> tuple[Sequence[Peer], Sequence[int]]:
        """
        Seal what waits to be sent into rows; call again until nothing is left.

        Keep-alives that are due are among it, and clients and handshakes that timed out are given up here.
        Returns: for each row, whom it is for and how long it is.
        """
        time_s = self._elapsed.advance(now_s)
        if time_s >= self._sweep_at_s:
            self._sweep_at_s = time_s + _SWEEP_INTERVAL_S
            self._sweep(time_s)
        if not self._out:
            return (), ()
        packets = self._out[: rows.count]
        del self._out[: rows.count]
        return [packet[0] for packet in packets], p.seal_rows(packets, rows, self._associated)

    def next_timer_s(self) -> float | None:
        """When `data_to_send` must be called though nothing happens; None for not by the clock."""
        waiting = self._by_peer or self._pending or self._events
        return self._elapsed.outside_s(self._sweep_at_s) if waiting else None

    # Clients.

    def _control(self, client: Client, kind: int) -> bool:
        """What a client sends beside payloads; returns whether it led to anything."""
        if kind == p.DISCONNECT:
            self._forget(client, DisconnectReason.BY_CLIENT)
        elif kind == p.KEEP_ALIVE:
            self.received += 1
        return kind in (p.DISCONNECT, p.KEEP_ALIVE)  # the rest is to be ignored, or an answer that came again

    def _send(self, client: Client, kind: int, body: bytes) -> None:
        self._out.append((client.peer, kind, client.sequence, b"", body, client.send_key))
        client.sequence += 1
        client.sent_at_s = self._elapsed.time_s

    def _keep_alive(self, client: Client) -> None:
        self._send(client, p.KEEP_ALIVE, p.encode_keep_alive(client.slot, self._max_clients))

    def _forget(self, client: Client, reason: DisconnectReason) -> None:
        heappush(self._free, client.slot)
        self._lost_before += client.lost
        client.gone = True
        del self._by_peer[client.peer]
        self._ids.discard(client.client_id)
        self._events.append(Disconnected(client, reason))

    def _sweep(self, time_s: float) -> None:
        for client in tuple(self._by_peer.values()):
            if 0 < client.timeout_s < time_s - client.heard_at_s:
                self._forget(client, DisconnectReason.TIMED_OUT)
            elif time_s - client.sent_at_s >= p.SEND_INTERVAL_S:
                self._keep_alive(client)
        for peer, pending in tuple(self._pending.items()):
            if time_s >= pending.expires_at_s:
                del self._pending[peer]

    # Strangers.

    def _stranger(self, data: bytes, peer: Peer, now_s: float) -> bool:
        """A datagram from none of the clients; returns whether it led to anything."""
        return self._request(data, peer, now_s) if data[:1] == b"\0" else self._response(data, peer)

    def _request(self, data: bytes, peer: Peer, now_s: float) -> bool:
        """Answer a connection request with a challenge, or say that the server is full."""
        request = p.decode_request(data)
        unix_s = now_s + self.unix_offset_s
        if request is None or request.protocol_id != self._protocol_id or request.expires_unix_s <= unix_s:
            return False
        if not self._limits.allow(self._host_of(peer), now_s):
            return False
        opened = (open_private_token(request, key) for key in self._private_keys)
        token = next((token for token in opened if token is not None), None)
        if token is None or self._addresses.isdisjoint(token.servers) or token.client_id in self._ids:
            return False
        mac = request.private[-MAC_BYTES:]
        if not self._used.admit(mac, peer, request.expires_unix_s, unix_s):
            return False
        send = make_cipher(token.server_to_client_key)
        if not self._free:
            self._send_global(p.DENIED, b"", peer, send)
            return True
        if peer not in self._pending and len(self._pending) >= self._max_pending:
            return False
        self._pending[peer] = _pending(token, mac, send, self._elapsed.time_s)
        challenge = encrypt_challenge(
            token.client_id, token.user_data, self._challenge_sequence, self._challenge_cipher
        )
        self._send_global(p.CHALLENGE, p.encode_challenge(self._challenge_sequence, challenge), peer, send)
        self._challenge_sequence += 1
        return True

    def _response(self, data: bytes, peer: Peer) -> bool:
        """Give a slot to who answers its challenge."""
        pending = self._pending.get(peer)
        if pending is None or self._elapsed.time_s >= pending.expires_at_s:
            return False
        opened = p.unseal(data, pending.read, self._associated, _RESPONSES)
        if opened is None:
            return False
        sequence, token = p.decode_challenge(opened.body)
        answered = decrypt_challenge(token, sequence, self._challenge_cipher)
        # The id must be that of the token shown at this address: else two tokens could be mixed into a third client.
        if answered is None or answered[0] != pending.client_id or pending.client_id in self._ids:
            return False
        if not self._free:
            self._send_global(p.DENIED, b"", peer, pending.send)
            return True
        del self._pending[peer]
        self._used.spend(pending.mac)
        self._number += 1
        client = Client(pending, number=self._number, slot=heappop(self._free), peer=peer, time_s=self._elapsed.time_s)
        self._by_peer[peer] = client
        self._ids.add(client.client_id)
        self._events.append(Connected(client, peer, client.client_id, answered[1]))
        self._keep_alive(client)
        return True

    def _send_global(self, kind: int, body: bytes, peer: Peer, cipher: Cipher) -> None:
        self._out.append((peer, kind, self._global_sequence, b"", body, cipher))
        self._global_sequence += 1


_RESPONSES = frozenset({p.RESPONSE})


def _pending(token: PrivateToken, mac: bytes, send: Cipher, time_s: float) -> _Pending:
    patience_s = MAX_PENDING_S if token.timeout_s <= 0 else min(float(token.timeout_s), MAX_PENDING_S)
    return _Pending(
        client_id=token.client_id,
        mac=mac,
        timeout_s=token.timeout_s,
        expires_at_s=time_s + patience_s,
        send=send,
        read=p.Reader(make_cipher(token.client_to_server_key)),
    )
