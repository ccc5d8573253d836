"""Arena: a top-down shooter, authoritative on the server, playable in a browser (`web/`)."""

from gameserver.games.arena.game import Arena

__all__ = ["Arena"]
