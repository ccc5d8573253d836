"""Generated from allocation.proto by `make proto`; do not edit."""
