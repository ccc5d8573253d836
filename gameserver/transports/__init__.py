"""gameserver/transports."""
