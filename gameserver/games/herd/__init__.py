"""Herd: dogs bring a flock home, together; a game of another kind than the arena, and small enough to begin one's own from."""

from gameserver.games.herd.game import Herd

__all__ = ["Herd"]
