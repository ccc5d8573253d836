"""Transports: bytes of the wire protocol over WebSocket, UDP and, for tests, memory."""
