"""
What an allocation costs, how full servers are, and what the same costs without a shelf.

`python -m bench.allocator [PART…] [--quick] [--json FILE]`; without a part all of them. Each part is a module of this package with
`measure(report, quick)`, whose docstring says what is measured and how.
"""

from bench.allocator import agones, claims, packing, processes, recovery
from bench.report import run_parts

PARTS = {
    "claims": claims.measure,
    "processes": processes.measure,
    "packing": packing.measure,
    "agones": agones.measure,
    "recovery": recovery.measure,
}

if __name__ == "__main__":
    run_parts("allocator", __doc__, PARTS)
