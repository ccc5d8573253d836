"""
Compiles what a game server does for each message: `python compiled.py GAMESERVER FOLDER [PYTHON]`.

FOLDER gets a copy of the package `gameserver` whose busiest modules are machine code, made by mypyc (of mypy, which must be installed, beside setuptools, a C
compiler and Python's headers) from the same sources; PYTHON is the interpreter that has what those import, if it is another one. Whoever has FOLDER first on
its PYTHONPATH runs it; nothing else changes. Images are built with it; an installation is not: it takes half a minute. docs/decisions/0115 has the figures.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

MODULES = (
    "gate.py",
    "member.py",
    "protocol/inputs.py",
    "protocol/messages.py",
    "protocol/netcode/packets.py",
    "protocol/netcode/replay.py",
    "protocol/netcode/rows.py",
    "protocol/netcode/server.py",
    "protocol/snapshot.py",
    "room.py",
    "roster.py",
    "showing.py",
    "transports/datagrams.py",
    "transports/pump.py",
    "transports/udp.py",
    "transports/websocket_connection.py",
)
"""What runs for each input and each snapshot. Together: calls between compiled modules are the cheap ones."""


def build(gameserver: Path, folder: Path, python: str = sys.executable) -> None:
    """
    Copy a package, and compile the copy's modules where they lie. The folder must not exist, and is whole or absent afterwards.

    Raises: subprocess.CalledProcessError, with what the compiler said in its output.
    """
    making = folder.with_name(f"{folder.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    shutil.copytree(gameserver, making / "gameserver", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    subprocess.run(
        [
            sys.executable, "-m", "mypyc", "--config-file=", "--ignore-missing-imports", "--cache-dir", os.devnull, "--python-executable", python,
            *(f"gameserver/{module}" for module in MODULES),
        ],
        cwd=making, env=os.environ | {"MYPYC_OPT_LEVEL": "2", "MYPYC_DEBUG_LEVEL": "0"},
        check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    shutil.rmtree(making / "build")
    making.rename(folder)


if __name__ == "__main__":
    try:
        build(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve(), *sys.argv[3:])
    except subprocess.CalledProcessError as error:
        sys.exit(f"not compiled: a C compiler, Python's headers, mypy and setuptools are needed\n{error.output}")
