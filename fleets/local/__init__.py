"""fleets/local."""
