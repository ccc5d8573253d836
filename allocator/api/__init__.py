"""allocator/api."""
