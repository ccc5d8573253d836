"""Generated from the .proto files here by `make proto`; the wire facts are Agones' (proto/sdk)."""
