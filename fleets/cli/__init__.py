"""The command `warmfleet`: one file a command."""
