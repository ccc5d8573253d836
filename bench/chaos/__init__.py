"""Faults injected into a whole system of real processes under players, and a checker that decides from what the players saw."""

import os

# gRPC's fork handlers run in every child that this process starts, and crash some of them before they have become what they are to be.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
