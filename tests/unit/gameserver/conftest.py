"""Which event loop a test of the game server runs on: transports on the one that servers use, the rest on the plain one."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

ON_UVLOOP = {"test_websocket.py"}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """One loop for each test."""
    return {"loop": uvloop.new_event_loop if item.path.name in ON_UVLOOP else asyncio.new_event_loop}
