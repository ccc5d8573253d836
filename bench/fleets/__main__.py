"""
What managing fleets costs, and what the autoscaler is worth.

`python -m bench.fleets [PART…] [--quick] [--json FILE]`; without a part all of them. Each part is a module of this package with
`measure(report, quick)`, whose docstring says what is measured and how.
"""

from collections.abc import Callable, Mapping

from bench.fleets import demand, render
from bench.report import Report, arguments

COMMAND = "python -m bench.fleets"
PARTS: Mapping[str, Callable[[Report, bool], None]] = {"demand": demand.measure, "render": render.measure}


def main() -> None:
    """Run the benchmark."""
    options = arguments(__doc__, parts=tuple(PARTS))
    parts = options.parts or PARTS
    report = Report(" ".join([COMMAND, *options.parts, *(["--quick"] if options.quick else [])]))
    for part in parts:
        PARTS[part](report, options.quick)
    report.finish(options.json)


if __name__ == "__main__":
    main()
