"""gameserver/games."""
