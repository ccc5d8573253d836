"""Ping beacons: round trips measured near a region's servers, and signed."""
