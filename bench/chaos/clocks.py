"""
Wall clocks that jump: of one process each, by a small library of ours (`clock.c`) that is built for the run and preloaded.

Processes of one machine share its clock, and a time namespace moves only the monotonic ones. Debian's libfaketime moves the right one, but with it a
sleep by the monotonic clock fails (0.9.10), which a host whose clock is set does not do. Wants a C compiler.
"""

import random
import struct
from dataclasses import dataclass
from pathlib import Path

from bench.chaos.host import run

LEAST_S, MOST_S = 2.0, 12 * 3600.0
STORE_MOST_S = 50 * 60.0
"""Of the store's clock: what is over is remembered there for an hour, by that same clock."""
_OFFSET = struct.Struct("<q")


@dataclass(frozen=True, slots=True)
class Clocks:
    """The clocks of all processes that were started with `env`."""

    folder: Path

    @property
    def env(self) -> dict[str, str]:
        """What a process' environment must have."""
        return {"LD_PRELOAD": str(self.folder / "clock.so"), "WARMFLEET_CHAOS_CLOCKS": str(self.folder)}

    def set(self, pid: int, ahead_s: float) -> None:
        """Let the wall clock of a process be so far ahead of the machine's (behind, if negative); of one that is gone, nothing happens."""
        try:
            with (self.folder / str(pid)).open("r+b", buffering=0) as file:
                file.write(_OFFSET.pack(round(ahead_s * 1e9)))
        except FileNotFoundError:
            return


def own_clocks(folder: Path, skipped: dict[str, str]) -> Clocks | None:
    """Clocks for a run; None, and why in `skipped`, where the library cannot be built."""
    folder.mkdir(parents=True)
    source = Path(__file__).with_name("clock.c")
    failed = run("cc", "-O2", "-shared", "-fPIC", "-o", str(folder / "clock.so"), str(source), "-ldl")
    if failed:
        skipped["clock jumps"] = f"no C compiler: {failed}"
        return None
    return Clocks(folder)


def jump_s(rng: random.Random, most_s: float = MOST_S) -> float:
    """Ahead or back, by seconds as often as by hours."""
    return float(rng.choice((-1, 1)) * LEAST_S * (most_s / LEAST_S) ** rng.random())
