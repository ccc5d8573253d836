"""allocator/backends."""
