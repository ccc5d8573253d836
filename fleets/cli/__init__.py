"""fleets/cli."""
