"""Faults injected into a whole system of real processes under players, and a checker that decides from what the players saw."""
