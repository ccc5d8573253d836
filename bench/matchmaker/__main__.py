"""
What matching costs and is worth.

`python -m bench.matchmaker [PART…] [--quick] [--json FILE]`; without a part all of them. Each part is a module of this package with
`measure(report, quick)`, whose docstring says what is measured and how.
"""

from bench.matchmaker import cycle, quality, service, takeover, wait, watchers
from bench.report import run_parts

PARTS = {
    "cycle": cycle.measure,
    "quality": quality.measure,
    "service": service.measure,
    "takeover": takeover.measure,
    "wait": wait.measure,
    "watchers": watchers.measure,
}

if __name__ == "__main__":
    run_parts("matchmaker", __doc__, PARTS)
