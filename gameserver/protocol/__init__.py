"""The wire protocol, pure: bytes in, values out, and back. Specified in docs/protocol.md."""
