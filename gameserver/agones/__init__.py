"""gameserver/agones."""
