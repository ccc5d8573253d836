"""The Agones SDK, from the game server's side: typed, async, reconnecting."""
