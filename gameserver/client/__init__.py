"""Clients: Python for bots and tests, JavaScript (`js/`) for browsers."""
