"""fleets/spec."""
