"""Matches out of tickets: pure, deterministic."""
