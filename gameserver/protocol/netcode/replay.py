"""Replay protection: each packet is taken once."""

WINDOW = 256
"""Packets of the past that are told apart; 256 is STANDARD.md's advice, a few seconds at any usual rate."""
_MASK = (1 << WINDOW) - 1


class ReplayProtection:
    """The sequence numbers that one receiver has taken from one sender."""

    __slots__ = ("_first", "_newest", "_taken", "lost")

    def __init__(self) -> None:
        self.lost = 0
        """Packets that had not come by the time that they would have been too old."""
        self._first = self._newest = -1
        self._taken = 0
        """Bit n: whether `_newest - n` was taken. One number, not a table: with hundreds of clients it is the memory that costs."""

    def seen(self, sequence: int) -> bool:
        """
        Whether the packet was taken before, or is too old to know.

        Source: IMPLEMENTERS.md 1. The window is subtracted from the newest number, never added to `sequence`: that overflowed at the top of
        64 bits in the implementations that did it. Here integers do not overflow; the comparison is the same one.
        """
        age = self._newest - sequence
        return age >= 0 and (age >= WINDOW or self._taken >> age & 1 == 1)

    def advance(self, sequence: int) -> None:
        """Note that the packet was taken; only after it has been decrypted."""
        age = self._newest - sequence
        if age >= 0:
            self._taken |= 1 << age
            return
        if self._first < 0:
            self._first, self._taken = sequence, 1
        else:
            step = min(-age, WINDOW)
            leaving = self._taken >> WINDOW - step
            if leaving != (1 << step) - 1:
                # Those before the first one were never expected.
                expected = min(step, self._newest - WINDOW + step - self._first + 1)
                if expected > 0:
                    self.lost += expected - (leaving & (1 << expected) - 1).bit_count()
            self._taken = (self._taken << step | 1) & _MASK
        self._newest = sequence
