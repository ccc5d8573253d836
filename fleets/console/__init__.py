"""The operator's console: what a system does this second, and the few things that an operator does to it."""
