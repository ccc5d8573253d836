"""Who gets which server, measured: `python -m bench.allocator`."""
