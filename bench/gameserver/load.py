"""
The load: hundreds of players in one process, as cheap as Python can have them.

Run as its own process (`python -m bench.gameserver.load`, a JSON object on standard input), so that its CPU is counted apart and it has a core of its own.
Players are plain sockets under one epoll; inputs are spread evenly over time. What comes is split into messages and counted, and only the newest one is
looked into. After a warm-up it takes the server's CPU time from /proc over a window, and prints what it saw as JSON.
"""

import itertools
import json
import os
import random
import resource
import select
import socket
import struct
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from gameserver.protocol import messages as m
from gameserver.protocol.netcode import packets as p
from gameserver.protocol.netcode.client import ClientState, NetcodeClient
from gameserver.protocol.netcode.crypto import make_cipher
from gameserver.protocol.netcode.tokens import protocol_id_of, read_connect_token

INPUTS_PER_S = 20
_MASK = b"\x5a\xc3\x0f\x96"
_MASKS = int.from_bytes(_MASK * 32, "little")
_INPUT = struct.Struct("<BIIIIBbb")
_TURN = struct.Struct("<BIIIIBbbbbbbbb")
"""Over UDP an input message repeats the ones before."""
_ROOM = memoryview(bytearray(262144))
"""What is read lands here: new memory for each read, given back at once, cost more than all else of the load."""
_TICK_AT = 5
_AT_ONCE = 16
"""Players that join together."""
_SETTLE_S = 0.002
"""Sockets are looked at this often: a player's machine is not slower, and one look serves many players."""


@dataclass
class Seen:
    """What came, since it was last cleared."""

    messages: Counter[int] = field(default_factory=Counter)
    """By their first byte."""
    bytes: int = 0
    """Of messages, without transport headers."""
    lost: int = 0
    """Connections that ended."""


_NUMBER = itertools.count()


class WebSocketPlayer:
    """A WebSocket connection with frames of its own."""

    def __init__(self, port: int, path: str, subprotocol: str, seen: Seen) -> None:
        address = f"127.0.0.{2 + next(_NUMBER) // 500}"  # servers have limits for each
        self.socket = socket.create_connection(("127.0.0.1", port), source_address=(address, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        extra = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        request += f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{extra}\r\n"
        self.socket.sendall(request.encode())
        self._rest = b""
        while b"\r\n\r\n" not in self._rest:
            data = self.socket.recv(4096)
            if not data:
                raise ConnectionError(f"no handshake: {self._rest!r}")
            self._rest += data
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        if b" 101 " not in head:
            raise ConnectionError(f"refused: {head!r}")
        self._seen = seen
        self.newest = b""
        self.alive = True

    def send(self, message: bytes, opcode: int = 2) -> None:
        """Send a message of at most 128 bytes' length, or a longer one slowly."""
        size = len(message)
        if size < 126:
            body = (int.from_bytes(message, "little") ^ (_MASKS & ((1 << 8 * size) - 1))).to_bytes(size, "little")
            self._write(bytes((0x80 | opcode, 0x80 | size)) + _MASK + body)
        else:
            body = bytes(byte ^ _MASK[k & 3] for k, byte in enumerate(message))
            self._write(struct.pack(">BBH", 0x80 | opcode, 0x80 | 126, size) + _MASK + body)

    def read(self) -> None:
        """Take in what has come."""
        try:
            data = bytes(_ROOM[: self.socket.recv_into(_ROOM)])
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end()
            return
        self.take(self._rest + data if self._rest else data)

    def take(self, data: bytes) -> None:
        """Split frames."""
        at, end, seen = 0, len(data), self._seen
        while at + 2 <= end:
            size, start = data[at + 1], at + 2
            if size == 126:
                if at + 4 > end:
                    break
                size, start = data[at + 2] << 8 | data[at + 3], at + 4
            elif size == 127:
                if at + 10 > end:
                    break
                size, start = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
            if start + size > end:
                break
            opcode = data[at] & 15
            at = start + size
            if opcode == 2:
                seen.messages[data[start]] += 1
                seen.bytes += size
                self.got(data, start, size)
            elif opcode == 9:
                self.send(data[start:at], opcode=10)
            elif opcode == 8:
                self._end()
        self._rest = data[at:]

    def got(self, data: bytes, start: int, size: int) -> None:
        """One message."""

    def _write(self, frame: bytes) -> None:
        if self.alive:
            try:
                if self.socket.send(frame) != len(frame):
                    raise BlockingIOError
            except BlockingIOError:
                raise RuntimeError("the server does not read") from None
            except OSError:
                self._end()

    def _end(self) -> None:
        if self.alive:
            self.alive = False
            self._seen.lost += 1

    def poll(self, now_s: float) -> None:
        """Do what is due by the clock: nothing."""

    def leave(self) -> None:
        """Go."""
        self.socket.close()


class Ours(WebSocketPlayer):
    """A Warmfleet player."""

    SNAPSHOT = 0x82

    def __init__(self, port: int, token: str, seen: Seen) -> None:
        super().__init__(port, "/", m.SUBPROTOCOL, seen)
        self._tick = self._seq = 0
        self.send(m.encode(m.Hello(token=token)))
        self.socket.setblocking(False)

    def got(self, data: bytes, start: int, size: int) -> None:
        """Look at a message."""
        if data[start] == 0x82:
            self._tick = int.from_bytes(data[start + _TICK_AT : start + _TICK_AT + 4], "little")

    @property
    def joined(self) -> bool:
        """Whether a snapshot has come."""
        return self._tick > 0

    def input(self, dx: int, dy: int) -> None:
        """Send one."""
        self._seq += 1
        tick = self._tick
        self.send(_INPUT.pack(2, tick, 0, max(tick - 3, 0) << 8, self._seq, 1, dx, dy))


class Colyseus(WebSocketPlayer):
    """A Colyseus player."""

    SNAPSHOT = 15
    _JOIN_ROOM = 10

    def __init__(self, port: int, token: str, seen: Seen) -> None:
        url = f"http://127.0.0.1:{port}/matchmake/joinOrCreate/swarm"
        request = Request(url, data=b"{}", headers={"Content-Type": "application/json"})
        with urlopen(request, timeout=30) as answer:
            seat = json.load(answer)
        self.joined = False
        super().__init__(port, f"/{seat['processId']}/{seat['roomId']}?sessionId={seat['sessionId']}", "", seen)
        self.socket.setblocking(False)
        self.take(self._rest)

    def got(self, data: bytes, start: int, size: int) -> None:
        """Look at a message."""
        if data[start] == self._JOIN_ROOM:
            self.send(bytes((self._JOIN_ROOM,)))
            self.joined = True

    def input(self, dx: int, dy: int) -> None:
        """Send `room.send("input", {dx, dy})`: the type as a string, the rest as MessagePack."""
        self.send(b"\x0d\xa5input\x82\xa2dx\xd0%c\xa2dy\xd0%c" % (dx & 0xFF, dy & 0xFF))


class Udp:
    """A Warmfleet player over netcode."""

    SNAPSHOT = 0x82

    def __init__(self, port: int, token: str, seen: Seen) -> None:
        connect, _, self._seat = token.partition(" ")
        raw = bytes.fromhex(connect)
        known = read_connect_token(raw)
        self._send_cipher = make_cipher(known.client_to_server_key)
        self._reader = p.Reader(make_cipher(known.server_to_client_key))
        self._associated = p.associated_data(protocol_id_of("bench"))
        self._core = NetcodeClient(raw, time.monotonic())
        self._peer = self._core.servers[0]
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.connect(self._peer)
        self.socket.setblocking(False)
        self._seen = seen
        self._unread: list[bytes] = []
        self._sequence = 0
        self._tick = self._seq = 0
        self._hello_at_s = 0.0
        self._turns = (0,) * 8
        self.alive = True

    @property
    def joined(self) -> bool:
        """Whether a snapshot has come."""
        return self._tick > 0

    def poll(self, now_s: float) -> None:
        """Shake hands, and say Hello until a snapshot comes."""
        if self.joined:
            return
        if self._core.state is not ClientState.CONNECTED:
            for _, data in self._core.data_to_send(now_s):
                self.socket.send(data)
        if self._core.state is ClientState.CONNECTED and now_s > self._hello_at_s + 0.2:
            self._hello_at_s = now_s
            self._sequence = max(self._sequence, self._core.sequence)  # the core sends nothing any more
            self._seal(m.encode(m.Hello(token=self._seat)))

    def read(self) -> None:
        """Take in what has come; the newest datagram is decrypted when it is wanted."""
        seen, receive = self._seen, self.socket.recv
        while True:
            try:
                data = receive(2048)
            except BlockingIOError:
                break
            except OSError:
                self.alive, seen.lost = False, seen.lost + 1
                break
            if self._core.state is not ClientState.CONNECTED:
                self._core.receive(data, self._peer, time.monotonic())
            elif data[0] & 15 == p.PAYLOAD:
                seen.messages[0x82] += 1
                seen.bytes += len(data) - 18 - (data[0] >> 4)
                self._unread.append(data)
        if not self.joined:
            self._look()

    def _look(self) -> None:
        """Find the newest tick; what came before it stays encrypted."""
        unread, self._unread = self._unread, []
        for data in reversed(unread):
            opened = p.unseal(data, self._reader, self._associated, p.CLIENT_READS)
            body = b"" if opened is None else opened.body
            if body[:1] == b"\x87" and body[3] == 0:
                body = body[5:]  # the first piece of several holds the snapshot's head
            if body[:1] == b"\x82":
                self._tick = int.from_bytes(body[_TICK_AT : _TICK_AT + 4], "little")
                return

    def input(self, dx: int, dy: int) -> None:
        """Send one, and repeat the three before."""
        self._look()
        self._seq += 1
        tick, view = self._tick, max(self._tick - 3, 0) << 8
        self._turns = (*self._turns[2:], dx, dy)
        if self._seq < 4:
            self._seal(_INPUT.pack(2, tick, 0, view, self._seq, 1, dx, dy))
        else:
            self._seal(_TURN.pack(2, tick, 0, view, self._seq - 3, 4, *self._turns))

    def _seal(self, body: bytes) -> None:
        try:
            self.socket.send(p.seal(p.PAYLOAD, self._sequence, body, self._send_cipher, self._associated))
        except OSError:
            pass  # a datagram lost like any other
        self._sequence += 1

    def leave(self) -> None:
        """Go."""
        self.socket.close()


KINDS: dict[str, Any] = {"websocket": Ours, "colyseus": Colyseus, "udp": Udp}


class Load:
    """Players, and a clock."""

    def __init__(self, kind: str, port: int, tokens: list[str], *, still: float, seed: int) -> None:
        """`still`: the share of players that send inputs but do not move."""
        self.seen = Seen()
        self._rng = random.Random(seed)
        self._kind, self._port, self._tokens, self._still = KINDS[kind], port, tokens, still
        self.players: list[Any] = []
        self._joining: list[Any] = []
        self._by_fd: dict[int, Any] = {}
        self._epoll = select.epoll()
        self.inputs = 0
        self._ways: list[tuple[int, int]] = []
        """Where each player goes."""
        self._turn = 0
        """Whose input comes next."""
        self._paid_s, self._owed = time.monotonic(), 0.0
        """Until when inputs have been sent, and how many are due: both go on from one `serve` to the next, or nobody would act while hundreds join."""

    def connect(self) -> None:
        """Join everyone, a few at a time, serving those who are there already. Raises TimeoutError."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:  # a busy server takes its time for each handshake
            for start in range(0, len(self._tokens), _AT_ONCE):
                coming = [
                    pool.submit(self._kind, self._port, token, self.seen)
                    for token in self._tokens[start : start + _AT_ONCE]
                ]
                while not all(player.done() for player in coming):
                    self.serve(0.004)
                for player in [player.result() for player in coming]:
                    self._ways.append(self._way(len(self.players)))
                    self.players.append(player)
                    self._joining.append(player)
                    self._by_fd[player.socket.fileno()] = player
                    self._epoll.register(player.socket.fileno(), select.EPOLLIN)
                self.serve(0.004)
        give_up_s = time.monotonic() + 30
        while self._joining:
            self.serve(0.1)
            if time.monotonic() > give_up_s:
                raise TimeoutError(f"{len(self._joining)} players did not get in")

    def serve(self, duration_s: float) -> None:
        """Play for so long."""
        players, count = self.players, len(self.players)
        begun_s = now_s = time.monotonic()
        ways = self._ways
        while now_s - begun_s < duration_s:
            self._owed = min(self._owed + (now_s - self._paid_s) * count * INPUTS_PER_S, float(count))
            self._paid_s = now_s
            while self._owed >= 1.0:
                index = self._turn = (self._turn + 1) % count
                if players[index].alive and players[index].joined:
                    if self._rng.random() < 0.02:
                        ways[index] = self._way(index)
                    players[index].input(*ways[index])
                    self.inputs += 1
                self._owed -= 1.0
            for fd, _ in self._epoll.poll(0, max(count, 1)):
                player = self._by_fd[fd]
                player.read()
                if not player.alive:
                    self._epoll.unregister(fd)
            if self._joining:
                self._joining = [player for player in self._joining if not player.joined]
                for player in self._joining:
                    player.poll(now_s)
            time.sleep(_SETTLE_S)
            now_s = time.monotonic()

    def _way(self, index: int) -> tuple[int, int]:
        if index < self._still * len(self._tokens):
            return 0, 0
        return self._rng.choice((-1, 1)) * self._rng.randint(40, 127), self._rng.choice((-1, 1)) * self._rng.randint(
            40, 127
        )

    def close(self) -> None:
        """Let everyone go."""
        for player in self.players:
            player.leave()


def cpu_s(pid: int) -> float:
    """CPU that a process has used, all threads, from its own accounting."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure, as standard input says."""
    order = json.load(sys.stdin)
    load = Load(order["kind"], order["port"], order["tokens"], still=order.get("still", 0.0), seed=order.get("seed", 1))
    load.connect()
    load.serve(order["warm_s"])
    load.seen.messages.clear()
    load.seen.bytes = load.inputs = 0
    own_s = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    before_s, begun_s = cpu_s(order["pid"]), time.monotonic()
    load.serve(order["measure_s"])
    took_s = time.monotonic() - begun_s
    result = {
        "cpu": (cpu_s(order["pid"]) - before_s) / took_s,
        "load_cpu": (sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - own_s) / took_s,
        "snapshots_hz": load.seen.messages[load.players[0].SNAPSHOT] / took_s / len(load.players),
        "bytes_per_client_s": load.seen.bytes / took_s / len(load.players),
        "inputs_hz": load.inputs / took_s / len(load.players),
        "lost": load.seen.lost,
    }
    load.close()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
