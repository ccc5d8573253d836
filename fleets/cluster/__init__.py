"""A cluster seen from the command line: what would change, apply it, wait for it, look at it. Pure plans, one adapter."""
