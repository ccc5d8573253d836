"""`warmfleet serve`: one part of the system in a container, wired from its settings (docs/serve.md)."""
