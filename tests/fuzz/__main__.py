"""
Fuzz one target, guided by coverage: `python tests/fuzz TARGET [SECONDS]`; without a name, every target in turn. `make fuzz` installs what it needs.

A finding is written to `tests/fuzz/corpus/TARGET-…`; commit it with the mend, and the normal suite replays it ever after.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SECONDS = 60


def fuzz(name: str, seconds: int) -> None:
    """Fuzz one target in this process; exits with an error at the first finding."""
    import atheris

    with atheris.instrument_imports(
        include=["gameserver.protocol", "gameserver.client", "gameserver.gate", "gameserver.seats"]
    ):
        sys.path.insert(0, str(HERE))
        from targets import TARGETS
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(target.seeds):
            (Path(folder) / f"seed-{number}").write_bytes(seed)
        arguments = [
            sys.argv[0], folder, f"-max_total_time={seconds}", f"-artifact_prefix={HERE / 'corpus' / name}-",
            "-max_len=4096", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1", "-verbosity=0",
        ]  # fmt: skip
        atheris.Setup(arguments, target.run)
        atheris.Fuzz()


def main() -> int:
    """Run what the command line asks for."""
    arguments = sys.argv[1:]
    seconds = int(arguments.pop()) if arguments and arguments[-1].isdecimal() else SECONDS
    if arguments:
        fuzz(arguments[0], seconds)
        return 0
    sys.path.insert(0, str(HERE))
    from targets import TARGETS

    failed = [
        name
        for name in TARGETS
        if subprocess.run([sys.executable, str(HERE), name, str(seconds)], check=False, env=os.environ).returncode
    ]
    print("failed:" if failed else "no findings", *failed)
    return len(failed) > 0


if __name__ == "__main__":
    sys.exit(main())
