"""
A UDP socket's system calls: many datagrams in each.

`Datagrams` is what a transport reads and writes. On 64-bit Linux it is `_Batches`: recvmmsg and sendmmsg over arrays that are made once, and which point
into `Rows`, where packets are encrypted and decrypted. A tick's snapshots to hundreds of clients cost one call, and nothing is worked out for each of
them in Python but their lengths. Elsewhere it is recvfrom and sendto.
"""

import ctypes
import errno
import socket
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from gameserver.protocol.netcode.rows import ROW_BYTES, Rows

Peer = Any
"""An address as its socket has it: the bytes of a `struct sockaddr`, or what `socket.recvfrom` says. Equal for equal addresses; `host` tells the rest."""

MOST_READ = 256
"""Datagrams taken at a time: a flood must not starve the tick."""
MOST_SENT = 64
"""In one call. Source: UIO_MAXIOV of Linux."""
_NAME_BYTES = 28
"""sizeof(struct sockaddr_in6)."""

_MESSAGE = np.dtype(
    [
        ("name", "u8"), ("name_size", "u4"), ("", "u4"), ("parts", "u8"), ("part_count", "u8"),
        ("control", "u8"), ("control_size", "u8"), ("flags", "u4"), ("", "u4"), ("size", "u4"), ("", "u4"),
    ]
)  # fmt: skip
"""`struct mmsghdr` of 64-bit Linux."""
_PART = np.dtype([("at", "u8"), ("size", "u8")])
"""`struct iovec`."""


class Datagrams:
    """One bound, non-blocking socket, and the memory that it reads to (`inbox`) and sends from (`outbox`)."""

    def __init__(self, bound: socket.socket) -> None:
        self._socket = bound
        self.inbox, self.outbox = Rows(MOST_READ), Rows(MOST_SENT)

    def receive(self) -> tuple[Sequence[Peer], Sequence[int]]:
        """
        Read what has come into the rows of `inbox`.

        Returns: of each row, whom it is from and how long it is; datagrams too long to be valid may be cut.
        """
        read, view = self._socket.recvfrom, self.inbox.view
        peers: list[Peer] = []
        sizes: list[int] = []
        for _ in range(MOST_READ):
            try:
                data, peer = read(ROW_BYTES)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                continue  # a report about an earlier datagram (port unreachable): nobody waits for it
            start = self.inbox.starts[len(peers)]
            view[start : start + len(data)] = data
            peers.append(peer)
            sizes.append(len(data))
        return peers, sizes

    def send(self, peers: Sequence[Peer], sizes: Sequence[int]) -> int:
        """
        Send the first rows of `outbox`, one of each size to each peer.

        Returns: how many the kernel did not take (no room, no way to there): they are lost like others on the way.
        """
        send, lost = self._socket.sendto, 0
        for index, (peer, size) in enumerate(zip(peers, sizes, strict=True)):
            try:
                send(self.outbox.get(index, size), peer)
            except OSError:
                lost += 1
        return lost

    def host(self, peer: Peer) -> str:
        """The IP address of a peer."""
        return str(peer[0])


class _Batches(Datagrams):
    """The same by recvmmsg and sendmmsg."""

    def __init__(self, bound: socket.socket) -> None:
        super().__init__(bound)
        libc = ctypes.CDLL(None, use_errno=True)
        self._recvmmsg, self._sendmmsg = libc.recvmmsg, libc.sendmmsg
        self._fd = bound.fileno()
        self._v6 = bound.family == socket.AF_INET6
        name_bytes = _NAME_BYTES if self._v6 else 16
        self._from = np.zeros(MOST_READ, f"V{name_bytes}")
        self._in = _Messages(self.inbox, self._from.ctypes.data, name_bytes)
        self._in.parts["size"] = ROW_BYTES
        self._to = bytearray(MOST_SENT * name_bytes)
        self._out = _Messages(self.outbox, np.frombuffer(self._to, np.uint8).ctypes.data, name_bytes)
        self._used = 0
        """Messages that the last call has filled."""
        self._name_bytes = name_bytes

    def receive(self) -> tuple[Sequence[Peer], Sequence[int]]:
        """See `Datagrams.receive`."""
        arrived = self._in.headers
        # The kernel wrote there; all rows would be 16 KB to go through.
        arrived["name_size"][: self._used] = self._name_bytes
        count = self._used = max(self._recvmmsg(self._fd, self._in.at(0), MOST_READ, socket.MSG_DONTWAIT, None), 0)
        return self._from[:count].tolist(), arrived["size"][:count].tolist()

    def send(self, peers: Sequence[Peer], sizes: Sequence[int]) -> int:
        """See `Datagrams.send`."""
        count, sent, lost = len(peers), 0, 0
        self._to[: count * self._name_bytes] = b"".join(peers)
        self._out.parts["size"][:count] = sizes
        while sent < count:
            done = self._sendmmsg(self._fd, self._out.at(sent), count - sent, socket.MSG_DONTWAIT)
            if done > 0:
                sent += done
            elif ctypes.get_errno() in (errno.EAGAIN, errno.ENOBUFS):
                return lost + count - sent
            elif ctypes.get_errno() != errno.EINTR:
                lost, sent = lost + 1, sent + 1  # no way to this one
        return lost

    def host(self, peer: Peer) -> str:
        """See `Datagrams.host`."""
        return socket.inet_ntop(socket.AF_INET6, peer[8:24]) if self._v6 else socket.inet_ntoa(peer[4:8])


class _Messages:
    """`struct mmsghdr`s, one for each row and for each name, which lie side by side at `names`."""

    def __init__(self, rows: Rows, names: int, name_bytes: int) -> None:
        self.headers, self.parts = np.zeros(rows.count, _MESSAGE), np.zeros(rows.count, _PART)
        numbers = np.arange(rows.count, dtype=np.uint64)
        self.headers["name"] = np.uint64(names) + numbers * np.uint64(name_bytes)
        self.headers["name_size"] = name_bytes
        self.headers["parts"] = np.uint64(self.parts.ctypes.data) + numbers * np.uint64(_PART.itemsize)
        self.headers["part_count"] = 1
        self.parts["at"] = np.uint64(rows.address) + numbers * np.uint64(ROW_BYTES)
        self._address = self.headers.ctypes.data

    def at(self, index: int) -> ctypes.c_void_p:
        """Where a header is."""
        return ctypes.c_void_p(self._address + index * _MESSAGE.itemsize)


def open_datagrams(bound: socket.socket) -> Datagrams:
    """The best there is on this machine for a bound, non-blocking UDP socket."""
    fits = sys.platform == "linux" and ctypes.sizeof(ctypes.c_void_p) == 8 and sys.byteorder == "little"
    return _Batches(bound) if fits else Datagrams(bound)
