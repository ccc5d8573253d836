"""What a game server costs: see `__main__.py`."""
