"""`warmfleet profile`: where a live game server spends its time, as a flame graph."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import httpx
import typer

from fleets.cli.options import MISUSED, DataDir, fail
from fleets.home import Home, NotRunning, Running

_UP = "up"
"""In place of a server: the process of `warmfleet up` itself."""


def profile(
    server: Annotated[str, typer.Argument(help="A game server's name, or `up` for the system's own process.")],
    seconds: Annotated[int, typer.Option(min=1, max=3600, help="For how long.")] = 10,
    rate: Annotated[int, typer.Option(min=1, max=1000, help="Samples a second.")] = 200,
    out: Annotated[Path | None, typer.Option(help="The SVG file; by default SERVER.svg.")] = None,
    native: Annotated[
        bool,
        typer.Option(
            "--native",
            help="Frames of C and C++ among Python's; the server is stopped for each sample. Before Python 3.12, whose functions perf names, the only way.",
        ),
    ] = False,
    idle: Annotated[bool, typer.Option("--idle", help="Count the time in which it waits, too.")] = False,
    data_dir: DataDir = Path(".warmfleet"),
) -> None:
    """Sample a running process of this machine with py-spy, without stopping it, and draw a flame graph (SVG, to open in a browser)."""
    tool = py_spy()
    if tool is None:
        fail("py-spy is not installed: pip install 'warmfleet[profile]'")
    try:
        running = Home(data_dir).running()
    except NotRunning as error:
        fail(str(error))
    pid = running.pid if server == _UP else _pid_of(server, running)
    target = out or Path(f"{server}.svg")
    command = [
        *(tool, "record", "--pid", str(pid), "--duration", str(seconds), "--rate", str(rate)),
        *("--format", "flamegraph", "--output", str(target), "--threads"),
        *(["--native"] if native else ["--nonblocking"]),
        *(["--idle"] if idle else []),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (the tool that was found)
    if done.returncode or not target.exists():
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        fail(f"py-spy: {said[-1] if said else 'no word'}{_mend(done.stderr)}")
    print(f"{target}: {seconds} s of {server} (process {pid}), {rate} samples a second")
    if native and not hasattr(sys, "activate_stack_trampoline"):
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        print(
            f"perf cannot name Python {version}'s functions, only 3.12's and newer ones': docs/tuning.md",
            file=sys.stderr,
        )


def py_spy() -> str | None:
    """The tool beside this interpreter, else on the path."""
    beside = Path(sys.executable).parent / "py-spy"
    return str(beside) if beside.exists() else shutil.which("py-spy")


def _pid_of(server: str, running: Running) -> int:
    try:
        headers = {"Authorization": f"Bearer {running.operator_token}"}
        reply = httpx.get(f"{running.url}/v1/fleets", headers=headers, timeout=5, trust_env=False)
        reply.raise_for_status()
    except httpx.HTTPError as error:
        fail(f"{running.url} does not answer: {error}")
    pids = {row["name"]: row["pid"] for fleet in reply.json()["fleets"] for row in fleet["servers"] if row["pid"]}
    if server not in pids:
        fail(f"no server {server!r} runs; there are: {', '.join(sorted(pids)) or 'none'}", MISUSED)
    return int(pids[server])


def _mend(said: str) -> str:
    if "ermission" not in said and "not permitted" not in said:
        return ""
    return "; looking into another process wants its user to be root, or kernel.yama.ptrace_scope to be 0"
