"""Session records: model, port and the Valkey adapter. Valkey is the authority on sessions."""
