"""
What managing fleets costs, and what the autoscaler is worth.

`python -m bench.fleets [PART…] [--quick] [--json FILE]`; without a part all of them. Each part is a module of this package with
`measure(report, quick)`, whose docstring says what is measured and how.
"""

from bench.fleets import console, demand, render, store
from bench.report import run_parts

PARTS = {"console": console.measure, "demand": demand.measure, "render": render.measure, "store": store.measure}

if __name__ == "__main__":
    run_parts("fleets", __doc__, PARTS)
