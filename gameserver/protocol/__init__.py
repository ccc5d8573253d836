"""gameserver/protocol."""
