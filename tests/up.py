"""A whole `warmfleet up` as a process: what end-to-end tests hold and ask."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

EXAMPLE = Path(__file__).parents[1] / "fleets" / "examples" / "arena.yaml"


class Up:
    """A running system in a folder of its own."""

    def __init__(self, folder: Path, yaml: str, *options: str) -> None:
        self.folder = folder
        (folder / "studio.yaml").write_text(yaml)
        self.log = folder / "up.log"
        command = [sys.executable, "-m", "fleets.cli", "up", "--port", "0", *options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )
        self.url = ""

    def __enter__(self) -> "Up":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def until_ready(self, timeout_s: float = 40.0) -> "Up":
        found = self.until(lambda: re.search(r"warmfleet is up: (http://\S+)", self.said()), timeout_s)
        self.url = found[1]
        return self

    def until(self, check: Callable[[], Any], timeout_s: float = 20.0) -> Any:
        deadline = time.monotonic() + timeout_s
        while not (value := check()):
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)
        return value

    def said(self) -> str:
        return self.log.read_text()

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "fleets.cli", *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False)

    def status(self) -> dict[str, Any]:
        result = self.cli("status", "--json")
        assert result.returncode == 0, result.stderr
        value: dict[str, Any] = json.loads(result.stdout)
        return value

    def post(self, path: str, body: Any, token: str = "", **headers: str) -> httpx.Response:
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return httpx.post(self.url + path, json=body, headers=headers, timeout=10, trust_env=False)

    def get(self, path: str, token: str = "") -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.get(self.url + path, headers=headers, timeout=10, trust_env=False)

    def player(self, name: str = "") -> tuple[str, str]:
        body = self.post("/v1/dev/players", {"name": name}).json()
        return body["player"], body["token"]

    def ticket(self, player: str, token: str, queue: str = "duel", rating: float = 1000) -> dict[str, Any]:
        players = [{"id": player, "attributes": {"rating": rating}}]
        reply = self.post("/v1/tickets", {"queue": queue, "players": players}, token)
        assert reply.status_code == 201, reply.text
        value: dict[str, Any] = reply.json()
        return value

    def descendants(self) -> set[int]:
        """Every process below ours."""
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents[int(stat.parent.name)] = int(fields[1])
        found: set[int] = set()
        while new := {pid for pid, parent in parents.items() if parent in found | {self.process.pid}} - found:
            found |= new
        return found

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Stop it, and check that nothing of it is left."""
        children = self.descendants()
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(30)
        deadline = time.monotonic() + 10
        while left := [pid for pid in children if alive(pid)]:
            assert time.monotonic() < deadline, [Path(f"/proc/{pid}/cmdline").read_text() for pid in left]
            time.sleep(0.05)
        return code


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def server_pid(up: Up, name: str) -> int:
    servers = [server for fleet in up.status()["fleets"] for server in fleet["servers"]]
    return next(int(server["pid"]) for server in servers if server["name"] == name)
