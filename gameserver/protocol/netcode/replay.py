"""Replay protection: each packet is taken once."""

WINDOW = 256
"""Packets of the past that are told apart; 256 is STANDARD.md's advice, a few seconds at any usual rate."""
_MASK = (1 << WINDOW) - 1


class ReplayProtection:
    """The sequence numbers that one receiver has taken from one sender."""

    __slots__ = ("_floor", "_missing", "lost", "newest")

    def __init__(self) -> None:
        self.lost = 0
        """Packets that had not come by the time that they would have been too old."""
        self.newest = -1
        """The highest number taken; nothing above it was."""
        self._missing = 0
        """Bit n: whether `newest - n` was not taken. Of a sender none of whose packets is lost it stays 0, which costs nothing to keep."""
        self._floor = 0
        """The first number that was expected: its sender's first packet, as far as anyone knows here."""

    def seen(self, sequence: int) -> bool:
        """
        Whether the packet was taken before, or is too old to know.

        Source: IMPLEMENTERS.md 1. The window is subtracted from the newest number, never added to `sequence`: that overflowed at the top of
        64 bits in the implementations that did it. Here integers do not overflow; the comparison is the same one.
        """
        age = self.newest - sequence
        return age >= 0 and (age >= WINDOW or not self._missing >> age & 1)

    def advance(self, sequence: int) -> None:
        """Note that the packet was taken; only after it has been decrypted."""
        step = sequence - self.newest
        if step == 1:  # as nearly always
            self.newest = sequence
            if self._missing:
                self._missing <<= 1
                if self._missing > _MASK:
                    self._drop(sequence)
        elif step <= 0:
            self._missing &= ~(1 << -step)
        elif self.newest < 0:
            self._floor = self.newest = sequence
            self._missing = _MASK >> max(WINDOW - 1 - sequence, 0) & ~1  # late ones from before may still come, once
        else:
            step = min(step, WINDOW)
            self._missing = self._missing << step | (1 << step) - 2
            if self._missing > _MASK:
                self._drop(self.newest + step)
            self.newest = sequence

    def _drop(self, newest: int) -> None:
        """Count and forget what is missing from before the window that ends at `newest`."""
        expected = newest - WINDOW - self._floor + 1
        if expected > 0:
            self.lost += (self._missing >> WINDOW & (1 << expected) - 1).bit_count()
        self._missing &= _MASK
