"""Lifecycle events: what they say, their streams, and where they are sent."""
