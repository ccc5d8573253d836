"""Fragments: messages longer than a payload, in pieces; docs/protocol.md "Fragment" is the specification."""

from gameserver.protocol.messages import FRAGMENT_HEADER, Fragment

MAX_PLAIN_BYTES = 1100
"""A longer message is split; with every header below it stays under 1,200 bytes, which all but no path splits again."""
MAX_MESSAGE_BYTES = 255 * MAX_PLAIN_BYTES
_MAX_UNFINISHED = 8
"""Messages that may be in pieces at once; a newer one pushes out the oldest, whose lost piece is not coming."""


def split(message: bytes, number: int) -> list[bytes]:
    """Cut a message of up to `MAX_MESSAGE_BYTES` into Fragment messages; `number` tells it from its neighbours, modulo 65,536."""
    count = -(-len(message) // MAX_PLAIN_BYTES)
    # As `encode` does it, without a Fragment for each: where snapshots are long, every client has several a tick.
    return [
        FRAGMENT_HEADER.pack(0x87, number & 0xFFFF, index, count)
        + message[index * MAX_PLAIN_BYTES : (index + 1) * MAX_PLAIN_BYTES]
        for index in range(count)
    ]


class Reassembly:
    """Puts the pieces of one sender together again, in whatever order they come; bounded to eight messages."""

    def __init__(self) -> None:
        self._unfinished: dict[tuple[int, int], dict[int, bytes]] = {}

    def add(self, fragment: Fragment) -> bytes | None:
        """Take a piece in; the whole message, once its last piece is there."""
        key = fragment.id, fragment.count
        pieces = self._unfinished.get(key)
        if pieces is None:
            if len(self._unfinished) >= _MAX_UNFINISHED:
                del self._unfinished[next(iter(self._unfinished))]
            pieces = self._unfinished[key] = {}
        pieces[fragment.index] = fragment.piece
        if len(pieces) < fragment.count:
            return None
        del self._unfinished[key]
        return b"".join(pieces[index] for index in range(fragment.count))
