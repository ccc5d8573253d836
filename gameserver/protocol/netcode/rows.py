"""Memory for many packets, one to a row: what lies there is encrypted, decrypted, sent and received where it is, without a copy of it in between."""

from gameserver.protocol.netcode.crypto import address_of, make_room

ROW_BYTES = 1280
"""More than the longest valid packet: a longer datagram is cut, and ignored for its length."""


class Rows:
    """Rows of `ROW_BYTES`. The memory stays where it is; whoever fills a row says elsewhere how long its packet is."""

    __slots__ = ("_memory", "address", "count", "pointers", "starts", "view")

    def __init__(self, count: int) -> None:
        self.count = count
        self._memory, self.view = make_room(count * ROW_BYTES)
        """All of it as a buffer, whose slices are bytes."""
        self.starts = tuple(range(0, count * ROW_BYTES, ROW_BYTES))
        """Of each row in `view`."""
        self.pointers = tuple(self._memory + start for start in self.starts)
        """To each row, for libsodium; may be added to."""
        self.address = address_of(self._memory)
        """Of the first row, for the kernel."""

    def put(self, data: bytes) -> None:
        """Copy a datagram into the first row, as much as fits."""
        data = data[:ROW_BYTES]
        self.view[: len(data)] = data

    def get(self, index: int, size: int) -> bytes:
        """A copy of what is in a row, as far as it goes."""
        start = self.starts[index]
        data: bytes = self.view[start : start + min(size, ROW_BYTES)]
        return data
