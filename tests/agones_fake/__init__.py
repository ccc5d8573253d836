"""
A faithful fake of Agones: one simulated cluster behind a real Kubernetes-API HTTP server and a real gRPC server with mTLS.

    async with FakeAgones(tmp_path) as fake:                    # fast by default; FakeAgones(tmp_path, Timing.real()) has Agones' own waits
        await fake.add_fleet("arena", ready=3)                  # returns once they are Ready
        fake.kubeconfig                                         # a file for KubernetesBackend or kubectl
        fake.grpc_address, fake.certificates.client             # for AgonesBackend
        fake.cluster.kill("arena-x2f9k")                        # Unhealthy, deleted, replaced
        fake.faults.add(Fault(on="allocate", effect=Effect.DROP_AFTER))        # it takes effect, and the reply is lost
        async with fake.api_away(): ...                         # connections break and are refused
        fake.kube.cut_watches(); fake.cluster.compact()         # disconnects; the next resume gets 410 Gone

What it is faithful in, by Agones' sources (pkg/gameserverallocations, cmd/allocator) and a live cluster:
* allocation: a plain sleep loop of `Timing.batch_s`, one for the HTTP and one for the gRPC side; each with a cache of servers, which lags by
  `Timing.cache_lag_s`; five tries on conflicts; `UnAllocated` with HTTP 201, `Contention`, RESOURCE_EXHAUSTED, ABORTED, 500 and UNKNOWN as there; 500
  without a Content-Type; Packed and Distributed, ordered selectors, counters, lists, priorities, metadata, last-allocated annotation, re-allocation of
  Allocated servers.
* the API: resourceVersions, conflicts, merge and JSON patches, label selectors, limit and continue, finalizers (a deleted server stays a moment with a
  deletionTimestamp), watches with bookmarks, timeoutSeconds, 410 Gone as an ERROR event, lag (`Timing.watch_lag_s`).
* lifecycle: PortAllocation to Ready step by step; a fleet replaces what is lost and never scales an Allocated server away; a new template makes a new
  GameServerSet.
* objects are held to the CRDs' schemas where ../shared/agones/crds.yaml is present (`schemas.PRESENT`).

Faults (`faults.py`) happen on either API: latency, a drop before or after the effect, a stall, any status. `python -m agones_fake` (with tests/ on the
path) serves one for other programs.
"""

from agones_fake.certificates import Certificates
from agones_fake.cluster import FakeCluster, Timing
from agones_fake.fake import FakeAgones
from agones_fake.faults import Effect, Fault, Faults

__all__ = ["Certificates", "Effect", "FakeAgones", "FakeCluster", "Fault", "Faults", "Timing"]
