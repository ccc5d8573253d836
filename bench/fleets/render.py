"""
What it costs to read, check, render and validate 1,000 fleets: CPU and memory of one process, as CI would run it.

Each round is a process of its own, so that its CPU time and the peak of its memory are the work's and nothing else's; an empty round (the same imports, no
fleets) is shown beside and subtracted from nothing. Every object is checked with Kubernetes' own schemas, and by the policies; Agones' schemas too where
$WARMFLEET_CRDS names them.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.report import Report

_PLATFORM = """---
apiVersion: warmfleet.dev/v1
kind: Platform
spec:
  {namespace: games, prometheusOperator: true, images: {repository: registry.example/warmfleet, tag: "1"}, admission: {issuer: {name: internal}}, services: {}}
"""
_FLEET = """---
apiVersion: warmfleet.dev/v1
kind: Fleet
metadata: {{name: arena-{index}, labels: {{region: region-{region}}}}}
spec:
  server: {{game: "g:G", image: "registry.example/arena:{index}", rooms: 8, seats: 16, transports: [websocket, udp]}}
  warm: {{shelf: 4, min: 2, max: 200}}
  lowLatency: {{network: host, cpu: 2, cpuPinning: true, memory: 512Mi, hugepages2Mi: 128Mi, nodePool: games, priority: {priority}}}
  disruption: {{drainTimeout: 300s, onDrain: migrate}}
"""


def measure(report: Report, quick: bool) -> None:
    """Add the rows."""
    count, rounds = (100, 1) if quick else (1000, 3)
    empty = [_round(0) for _ in range(rounds)]
    found = [_round(count) for _ in range(rounds)]
    for name, unit in (("cpu_s", "s"), ("peak_mib", "MiB")):
        label = {"cpu_s": "CPU", "peak_mib": "peak memory"}[name]
        report.add(f"render and validate {count} fleets, {label}", statistics.median(row[name] for row in found), unit)
        report.add("  the same with none, imports alone", statistics.median(row[name] for row in empty), unit)
    report.add("  objects", float(found[0]["objects"]), "")


def _round(count: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.fleets.render", str(count)], capture_output=True, text=True, check=True
    )
    row: dict[str, Any] = json.loads(done.stdout)
    return row


def once(count: int) -> dict[str, Any]:
    """One round, in this process."""
    import resource

    from fleets.render.checks import Severity, check
    from fleets.render.manifest import to_yaml
    from fleets.render.policies import policies
    from fleets.render.rendering import render
    from fleets.render.schemas import Schemas, read_crds
    from fleets.spec.loader import load

    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / "platform.yaml"]
        files[0].write_text(_PLATFORM, encoding="utf-8")
        for index in range(count):
            files.append(Path(folder) / f"{index}.yaml")
            files[-1].write_text(_FLEET.format(index=index, region=index % 9, priority=index % 3), encoding="utf-8")
        specs = load(files)
    assert specs.platform is not None
    findings = check(specs.fleets, specs.platform.spec)
    items = render(specs.fleets, specs.platform.spec, specs.documents)
    findings += policies(items)
    schemas = Schemas(crds=read_crds([Path(p) for p in os.environ.get("WARMFLEET_CRDS", "").split(os.pathsep) if p]))
    problems = [problem for item in items for problem in schemas.problems(item)]
    assert not problems, problems[:3]
    assert not [finding for finding in findings if finding.severity is Severity.ERROR]
    assert len(to_yaml(items)) > 1000
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"cpu_s": used.ru_utime + used.ru_stime, "peak_mib": used.ru_maxrss / 1024, "objects": len(items)}


if __name__ == "__main__":
    print(json.dumps(once(int(sys.argv[1]))))
