"""The matchmaker's REST API as a fixture."""

from collections.abc import AsyncIterator

import pytest
from matchmaker_api import Api, running

from gameserver.sessions.client import StoreClient


@pytest.fixture
async def api(valkey: StoreClient) -> AsyncIterator[Api]:
    """The API alone; tickets stay where they are."""
    async with running(valkey) as served:
        yield served
