"""`python -m gameserver`: one game server, configured by its environment. Exit codes: 0 drained, 1 failed, 2 misconfigured."""

import asyncio
import faulthandler
import os
import signal
import sys

import structlog
import uvloop

from gameserver import tracing
from gameserver.agones.sdk import SDKUnavailable
from gameserver.process import serve
from gameserver.settings import Settings, SettingsError
from gameserver.telemetry import configure_logging

log = structlog.get_logger("gameserver")


async def _main(settings: Settings) -> None:
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    await serve(settings, stop, hurry)


def new_runner() -> asyncio.Runner:
    """What a game server runs in."""
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


def main(made: asyncio.Runner | None = None) -> int:
    """Run a game server until it has drained; in a runner that was `made` ahead, if there is one."""
    faulthandler.enable(2)  # what is written in C (gRPC without memory, say) ends a process without a word of its own
    configure_logging(json=not sys.stderr.isatty())
    try:
        settings = Settings.from_environment(os.environ)
        try:
            tracing.configure("warmfleet-gameserver", os.environ)
        except tracing.TracingMissing as error:
            # A whole fleet is not to stay away for want of traces: its image may lack the extra.
            log.warning("not_traced", why=str(error))
        with made or new_runner() as runner:
            runner.run(_main(settings))
    except (SettingsError, tracing.TracingError) as error:
        print(f"gameserver: {error}", file=sys.stderr)
        return 2
    except (SDKUnavailable, OSError) as error:
        print(f"gameserver: {error}", file=sys.stderr)
        return 1
    finally:
        tracing.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
