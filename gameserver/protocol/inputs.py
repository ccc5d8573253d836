"""
A player's inputs on their way into the game: numbered, ordered, deduplicated, bounded.

`InputBuffer` is the server's side of one player. Clients may repeat inputs (over UDP they do until they are acknowledged); each number is
applied once, in order; a number below one already taken is late and dropped. Pure.
"""

from collections import deque
from typing import Any

from gameserver.protocol.messages import INPUT_HEADER, MAX_INPUTS, Input, MalformedMessage, input_head
from gameserver.protocol.schema import Fields

_HEAD, _HEAD_BYTES = INPUT_HEADER.unpack_from, INPUT_HEADER.size
MAX_WAITING = 32
"""Inputs that may wait; more drop the oldest: the newest say what the player wants now."""


TakenInput = tuple[int, int, bytes]
"""
One input as it came: its number, the view (tick × 256 that the player saw when it was made; 0 for unknown), and its record, to be
decoded by `Fields.decode_many` together with those of the tick's other players. A plain tuple: thousands are made a second.
"""


class InputBuffer:
    """One player's inputs between arrival and tick."""

    __slots__ = ("_received", "_size_bytes", "applied", "dropped", "waiting")

    def __init__(self, fields: Fields) -> None:
        self._size_bytes = fields.size_bytes
        self.waiting: list[TakenInput] = []
        """Not taken yet, oldest first."""
        self._received = 0
        self.applied = 0
        """Highest sequence number handed to the game: what Snapshot acknowledges."""
        self.dropped = 0
        """Duplicates, late ones, and those pushed out by newer ones."""

    def receive(self, message: bytes) -> tuple[int, int]:
        """
        Take in an Input message.

        Returns: (ack_tick, ack_event), what else it says. Raises: MalformedMessage when it does not hold `count` records of this game.
        """
        size, record_size = len(message), self._size_bytes
        if size >= _HEAD_BYTES:
            _, ack_tick, ack_event, view, first_seq, count = _HEAD(message)
            newest = first_seq + count - 1
            if (
                newest == self._received + 1
                and size == _HEAD_BYTES + count * record_size
                and 0 < count <= MAX_INPUTS
                and len(self.waiting) < MAX_WAITING
            ):
                # The next one, alone (WebSocket) or behind repetitions (UDP), as nearly always.
                self._received = newest
                if count > 1:
                    self.dropped += count - 1
                self.waiting.append((newest, view, message[size - record_size :]))
                return ack_tick, ack_event
        ack_tick, ack_event, view, first_seq, count = input_head(message)
        self._push(first_seq, count, view, message)
        return ack_tick, ack_event

    def _push(self, first_seq: int, count: int, view: int, message: bytes) -> None:
        size, at = self._size_bytes, _HEAD_BYTES
        if len(message) != at + count * size:
            raise MalformedMessage(f"{count} inputs of {size} bytes are wanted, got {len(message) - at} bytes")
        waiting, newest = self.waiting, first_seq + count - 1
        known = self._received + 1 - first_seq
        if known > 0:  # the first ones are repeated, or all of them
            known = min(known, count)
            self.dropped += known
            first_seq, at = first_seq + known, at + known * size
            if known == count:
                return
        self._received = newest
        for seq in range(first_seq, newest + 1):
            waiting.append((seq, view, message[at : at + size]))
            at += size
        if (late := len(waiting) - MAX_WAITING) > 0:
            self.dropped += late
            del waiting[:late]

    def take(self) -> TakenInput:
        """Hand over the oldest that waits; there is one."""
        taken = self.waiting.pop(0)
        self.applied = taken[0]
        return taken

    def reset(self) -> None:
        """A new connection of the same player starts numbering at 1 again."""
        self.waiting.clear()
        self._received = self.applied = 0


class InputSender:
    """The client's side: numbers inputs and keeps the unacknowledged ones, for prediction and for repetition over UDP."""

    def __init__(self, fields: Fields, *, repeat: int = 1) -> None:
        """`repeat`: how many of the newest inputs each message carries (1 over WebSocket, up to 32 over UDP)."""
        self.fields = fields
        self._repeat = repeat
        self._unacknowledged: deque[tuple[int, bytes]] = deque(maxlen=MAX_WAITING)
        self._newest = fields.encode({})
        self.seq = 0

    def add(self, values: dict[str, Any], *, ack_tick: int, ack_event: int, view: int) -> Input:
        """Number an input and make the message that carries it."""
        self.seq += 1
        self._newest = self.fields.encode(values)
        self._unacknowledged.append((self.seq, self._newest))
        return self._message(list(self._unacknowledged)[-self._repeat :], ack_tick, ack_event, view)

    def again(self, *, ack_tick: int, ack_event: int, view: int) -> Input:
        """Say the newest ones once more, for what the message acknowledges; zeros with number 0 before the first. A server drops what it knows."""
        sent = list(self._unacknowledged)[-self._repeat :] or [(self.seq, self._newest)]
        return self._message(sent, ack_tick, ack_event, view)

    @staticmethod
    def _message(sent: list[tuple[int, bytes]], ack_tick: int, ack_event: int, view: int) -> Input:
        return Input(
            ack_tick=ack_tick, ack_event=ack_event, view=view, first_seq=sent[0][0], count=len(sent),
            records=b"".join(record for _, record in sent),
        )  # fmt: skip

    def acknowledge(self, seq: int) -> None:
        """Forget what the server has applied."""
        while self._unacknowledged and self._unacknowledged[0][0] <= seq:
            self._unacknowledged.popleft()
