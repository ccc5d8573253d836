"""
A UDP socket's system calls: many datagrams in each.

`Datagrams` is what a transport reads and writes. On 64-bit Linux it is `_Batches`: recvmmsg and sendmmsg over arrays that are made once, so that a tick's
snapshots to hundreds of clients cost one call, and nothing is worked out for each of them in Python. Elsewhere, and for a few datagrams at a time, it is
recvfrom and sendto.
"""

import ctypes
import errno
import socket
import struct
import sys
from typing import Any

import numpy as np

Peer = tuple[Any, ...]
"""As `socket.recvfrom` says."""

MOST_READ = 256
"""Datagrams taken at a time: a flood must not starve the tick."""
_MOST_SENT = 1024
"""In one call. Source: UIO_MAXIOV of Linux."""
_FEW = 8
"""Up to here plain sendto costs less than filling the arrays."""
_ROW_BYTES = 1280
"""More than the longest valid datagram: a longer one is cut, and ignored for its length."""
_NAME_BYTES = 28
"""sizeof(struct sockaddr_in6)."""
_MOST_PEERS = 16_384
"""Peers whose address is kept in both forms; then all are forgotten, and worked out again."""

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
    """One bound, non-blocking socket."""

    def __init__(self, bound: socket.socket) -> None:
        self._socket = bound

    def receive(self) -> list[tuple[bytes, Peer]]:
        """What has come, at most `MOST_READ`; datagrams too long to be valid may be cut."""
        read, found = self._socket.recvfrom, []
        for _ in range(MOST_READ):
            try:
                found.append(read(_ROW_BYTES))
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                continue  # a report about an earlier datagram (port unreachable): nobody waits for it
        return found

    def send(self, out: list[tuple[Peer, bytes]]) -> int:
        """Send; returns how many the kernel did not take (no room, no way to there): they are lost like others on the way."""
        send, lost = self._socket.sendto, 0
        for peer, data in out:
            try:
                send(data, peer)
            except OSError:
                lost += 1
        return lost


class _Batches(Datagrams):
    """The same by recvmmsg and sendmmsg."""

    def __init__(self, bound: socket.socket) -> None:
        super().__init__(bound)
        libc = ctypes.CDLL(None, use_errno=True)
        self._recvmmsg, self._sendmmsg = libc.recvmmsg, libc.sendmmsg
        self._fd = bound.fileno()
        self._v6 = bound.family == socket.AF_INET6
        self._name_size = _NAME_BYTES if self._v6 else 16
        self._peers: dict[bytes, Peer] = {}
        self._names: dict[Peer, bytes] = {}
        rows = np.arange(MOST_READ, dtype=np.uint64)
        self._rows, self._from = bytearray(MOST_READ * _ROW_BYTES), bytearray(MOST_READ * _NAME_BYTES)
        self._in, self._in_parts = _messages(MOST_READ)
        self._in["name"] = _address(self._from) + rows * np.uint64(_NAME_BYTES)
        self._in_parts["at"] = _address(self._rows) + rows * np.uint64(_ROW_BYTES)
        self._in_parts["size"] = _ROW_BYTES
        self._used = MOST_READ
        """Rows that the last call has filled."""
        self._in_at = ctypes.c_void_p(self._in.ctypes.data)
        self._out, self._out_parts = _messages(_MOST_SENT)
        self._out["name_size"] = self._name_size
        self._offsets = np.arange(_MOST_SENT, dtype=np.uint64) * np.uint64(self._name_size)

    def receive(self) -> list[tuple[bytes, Peer]]:
        """See `Datagrams.receive`."""
        self._in["name_size"][: self._used] = (
            _NAME_BYTES  # the kernel wrote there; all rows would be 16 KB to go through
        )
        count = self._recvmmsg(self._fd, self._in_at, MOST_READ, socket.MSG_DONTWAIT, None)
        self._used = max(count, 0)
        if count <= 0:
            return []
        data, names = (
            bytes(memoryview(self._rows)[: count * _ROW_BYTES]),
            bytes(memoryview(self._from)[: count * _NAME_BYTES]),
        )
        known, width, found = self._peers, self._name_size, []
        at = name_at = 0
        for size in self._in["size"][:count].tolist():
            name = names[name_at : name_at + width]
            found.append((data[at : at + size], known.get(name) or self._peer(name)))
            at += _ROW_BYTES
            name_at += _NAME_BYTES
        return found

    def send(self, out: list[tuple[Peer, bytes]]) -> int:
        """See `Datagrams.send`."""
        if len(out) <= _FEW:
            return super().send(out)
        return sum(self._send_many(out[start : start + _MOST_SENT]) for start in range(0, len(out), _MOST_SENT))

    def _send_many(self, out: list[tuple[Peer, bytes]]) -> int:
        count, known = len(out), self._names
        data = b"".join([datagram for _, datagram in out])
        names = b"".join([known.get(peer) or self._name(peer) for peer, _ in out])
        sizes = np.array([len(datagram) for _, datagram in out], np.uint64)
        parts = self._out_parts[:count]
        parts["size"] = sizes
        parts["at"] = _address(data) + np.cumsum(sizes) - sizes
        self._out["name"][:count] = _address(names) + self._offsets[:count]
        sent = lost = 0
        while sent < count:
            done = self._sendmmsg(
                self._fd, ctypes.c_void_p(self._out[sent:].ctypes.data), count - sent, socket.MSG_DONTWAIT
            )
            if done > 0:
                sent += done
            elif ctypes.get_errno() in (errno.EAGAIN, errno.ENOBUFS):
                return lost + count - sent
            elif ctypes.get_errno() != errno.EINTR:
                lost, sent = lost + 1, sent + 1  # no way to this one
        return lost

    def _peer(self, name: bytes) -> Peer:
        """A peer by its `struct sockaddr`."""
        (port,) = struct.unpack_from(">H", name, 2)
        if self._v6:
            flow, host = struct.unpack_from(">I16s", name, 4)
            scope = int.from_bytes(name[24:28], sys.byteorder)
            return self._know((socket.inet_ntop(socket.AF_INET6, host), port, flow, scope), name)
        return self._know((socket.inet_ntop(socket.AF_INET, name[4:8]), port), name)

    def _name(self, peer: Peer) -> bytes:
        """A peer's `struct sockaddr`; for one that has sent nothing yet."""
        host, port = peer[:2]
        if self._v6:
            flow, scope = peer[2:4] if len(peer) == 4 else (0, 0)
            packed = socket.inet_pton(socket.AF_INET6, host)
            name = (
                struct.pack("=H", socket.AF_INET6)
                + struct.pack(">HI16s", port, flow, packed)
                + struct.pack("=I", scope)
            )
        else:
            name = struct.pack("=H", socket.AF_INET) + struct.pack(">H4s8x", port, socket.inet_aton(host))
        self._know(peer, name)
        return name

    def _know(self, peer: Peer, name: bytes) -> Peer:
        if len(self._peers) >= _MOST_PEERS:
            self._peers.clear()
            self._names.clear()
        self._peers[name], self._names[peer] = peer, name
        return peer


def open_datagrams(bound: socket.socket) -> Datagrams:
    """The best there is on this machine for a bound, non-blocking UDP socket."""
    fits = sys.platform == "linux" and ctypes.sizeof(ctypes.c_void_p) == 8 and sys.byteorder == "little"
    return _Batches(bound) if fits else Datagrams(bound)


def _messages(count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Message headers of one part each, and the parts."""
    messages, parts = np.zeros(count, _MESSAGE), np.zeros(count, _PART)
    messages["parts"] = np.uint64(parts.ctypes.data) + np.arange(count, dtype=np.uint64) * np.uint64(_PART.itemsize)
    messages["part_count"] = 1
    return messages, parts


def _address(memory: bytes | bytearray) -> np.uint64:
    """Where it is; only as long as it is."""
    return np.uint64(np.frombuffer(memory, np.uint8).ctypes.data)
