"""The allocator for others: REST, and the gRPC service that clients of Agones speak."""
