"""
What matching costs and is worth.

`python -m bench.matchmaker [PART…] [--quick] [--json FILE]`; without a part all of them. Each part is a module of this package with
`measure(report, quick)`, whose docstring says what is measured and how.
"""

from collections.abc import Callable, Mapping

from bench.matchmaker import cycle, quality, service
from bench.report import Report, arguments

COMMAND = "python -m bench.matchmaker"
PARTS: Mapping[str, Callable[[Report, bool], None]] = {
    "cycle": cycle.measure,
    "quality": quality.measure,
    "service": service.measure,
}


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
