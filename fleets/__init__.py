"""Fleets from YAML: the spec, the laptop's Agones, the command line. The top layer: it wires the others."""
