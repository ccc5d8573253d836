"""The trade-off as a picture. Wants matplotlib, which a server does not: `pip install 'warmfleet[plot]'`."""

from collections.abc import Sequence
from pathlib import Path

from fleets.simulate.sweep import Point


class PlotUnavailable(Exception):
    """matplotlib is not installed; the message says how to install it."""


def plot(points: Sequence[Point], path: Path, *, title: str) -> None:
    """Draw cold starts against node-hours into an SVG or PNG file, by its suffix. Raises PlotUnavailable, ValueError, OSError."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise PlotUnavailable("pictures want matplotlib: pip install 'warmfleet[plot]'") from None
    # Text stays text, and the same points give the same bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "warmfleet"}):
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        for name, auto, colour, marker in (
            ("fixed buffer", False, "#8a8f98", "o"),
            ("buffer: auto", True, "#e4572e", "s"),
        ):
            chosen = sorted(
                (p for p in points if (p.setting.buffer is None) is auto), key=lambda point: point.outcome.node_hours
            )
            hours = [point.outcome.node_hours for point in chosen]
            # A share of none has no place on a logarithmic axis: half a match stands for it.
            shares = [100 * max(point.outcome.cold, 0.5) / max(point.outcome.matches, 1) for point in chosen]
            axes.plot(hours, shares, color=colour, marker=marker, label=name)
            for point, x, y in zip(chosen, hours, shares, strict=True):
                label = f"{point.setting.chance:g}" if auto else str(point.setting.buffer)
                axes.annotate(label, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=8, color=colour)
        axes.set(yscale="log", xlabel="node-hours", ylabel="matches with a cold start, %", title=title)
        axes.grid(alpha=0.25)
        axes.legend()
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
