"""The command `warmfleet`: one file a command."""

import os

# Read by gRPC when it is imported: children are started by exec, so it needs no handlers around fork (and says so on every start).
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
