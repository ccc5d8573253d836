"""gameserver/games/arena."""
