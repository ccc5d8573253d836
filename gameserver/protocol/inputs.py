"""
A player's inputs on their way into the game: numbered, ordered, deduplicated, bounded.

`InputBuffer` is the server's side of one player. Clients may repeat inputs (over UDP they do until they are acknowledged); each number is
applied once, in order; a number below one already taken is late and dropped. Pure.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any

from gameserver.protocol.messages import Input, MalformedMessage
from gameserver.protocol.schema import Fields

MAX_WAITING = 32
"""Inputs that may wait; more drop the oldest: the newest say what the player wants now."""


@dataclass(frozen=True, slots=True)
class PlayerInput:
    """One input, decoded."""

    seq: int
    view: int
    """Tick × 256 that the player saw when it was made; 0 for unknown."""
    data: dict[str, Any]


class InputBuffer:
    """One player's inputs between arrival and tick."""

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._waiting: deque[PlayerInput] = deque(maxlen=MAX_WAITING)
        self._received = 0
        self.applied = 0
        """Highest sequence number handed to the game: what Snapshot acknowledges."""
        self.dropped = 0
        """Duplicates, late ones, and those pushed out by newer ones."""

    def push(self, message: Input) -> None:
        """Take a message in. Raises MalformedMessage when the records are not `count` records of this game."""
        size = self._fields.size_bytes
        if len(message.records) != message.count * size:
            raise MalformedMessage(
                f"{message.count} inputs of {size} bytes are wanted, got {len(message.records)} bytes"
            )
        for k in range(message.count):
            seq = message.first_seq + k
            if seq <= self._received:
                self.dropped += 1
                continue
            if len(self._waiting) == MAX_WAITING:
                self.dropped += 1
            self._received = seq
            self._waiting.append(PlayerInput(seq, message.view, self._fields.decode(message.records, k * size)))

    def take(self, most: int) -> list[PlayerInput]:
        """Hand over up to `most` inputs, oldest first; the rest wait for the next tick."""
        taken = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        if taken:
            self.applied = taken[-1].seq
        return taken

    def reset(self) -> None:
        """A new connection of the same player starts numbering at 1 again."""
        self._waiting.clear()
        self._received = self.applied = 0


class InputSender:
    """The client's side: numbers inputs and keeps the unacknowledged ones, for prediction and for repetition over UDP."""

    def __init__(self, fields: Fields, *, repeat: int = 1) -> None:
        """`repeat`: how many of the newest inputs each message carries (1 over WebSocket, up to 32 over UDP)."""
        self.fields = fields
        self._repeat = repeat
        self._unacknowledged: deque[tuple[int, bytes]] = deque(maxlen=MAX_WAITING)
        self._newest = b""
        self.seq = 0

    def add(self, values: dict[str, Any], *, ack_tick: int, ack_event: int, view: int) -> Input:
        """Number an input and make the message that carries it."""
        self.seq += 1
        self._newest = self.fields.encode(values)
        self._unacknowledged.append((self.seq, self._newest))
        return self._message(list(self._unacknowledged)[-self._repeat :], ack_tick, ack_event, view)

    def again(self, *, ack_tick: int, ack_event: int, view: int) -> Input | None:
        """Say the newest ones once more, for what the message acknowledges; None when there was none yet. A server drops what it knows."""
        if not self.seq:
            return None
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
