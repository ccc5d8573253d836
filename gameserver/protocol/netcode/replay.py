"""Replay protection: each packet is taken once."""

WINDOW = 256
"""Packets of the past that are told apart; 256 is STANDARD.md's advice, a few seconds at any usual rate."""


class ReplayProtection:
    """The sequence numbers that one receiver has taken from one sender."""

    __slots__ = ("_first", "_newest", "_taken", "lost")

    def __init__(self) -> None:
        self.lost = 0
        """Packets that had not come by the time that they would have been too old."""
        self._first = -1
        self._newest = 0
        self._taken = [-1] * WINDOW
        """For each place of the window the highest number taken that falls on it."""

    def seen(self, sequence: int) -> bool:
        """
        Whether the packet was taken before, or is too old to know.

        Source: IMPLEMENTERS.md 1. The window is subtracted from the newest number, never added to `sequence`: that overflowed at the top of
        64 bits in the implementations that did it. Here integers do not overflow; the comparison is the same one.
        """
        return sequence <= self._newest - WINDOW or self._taken[sequence % WINDOW] >= sequence

    def advance(self, sequence: int) -> None:
        """Note that the packet was taken; only after it has been decrypted."""
        if self._first < 0:
            self._first = self._newest = sequence
        elif sequence > self._newest:
            oldest, newest = max(self._newest - WINDOW + 1, self._first), min(sequence - WINDOW, self._newest)
            for left in range(oldest, newest + 1):  # mostly one; never more than the window has
                self.lost += self._taken[left % WINDOW] != left
            self._newest = sequence
        self._taken[sequence % WINDOW] = sequence
