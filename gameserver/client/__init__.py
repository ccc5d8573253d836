"""gameserver/client."""
