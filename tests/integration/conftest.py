"""The matchmaker's store, and its REST API, as fixtures."""

from collections.abc import AsyncIterator

import pytest
from matchmaker_api import Api, running

import matchmaker.director
import matchmaker.placing
from gameserver.sessions.client import StoreClient
from matchmaker.store import TicketStore


@pytest.fixture
async def api(valkey: StoreClient) -> AsyncIterator[Api]:
    """The API alone; tickets stay where they are."""
    async with running(valkey) as served:
        yield served


@pytest.fixture
def store(valkey: StoreClient) -> TicketStore:
    return TicketStore(valkey)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases and orphans in tenths of a second: many takeovers fit into a test."""
    monkeypatch.setattr(matchmaker.director, "LEASE_S", 0.3)
    monkeypatch.setattr(matchmaker.director, "_ORPHAN_AFTER_S", 0.1)
    monkeypatch.setattr(matchmaker.director, "_TICK_S", 0.03)
    monkeypatch.setattr(matchmaker.director, "_RETRY_S", 0.03)
    monkeypatch.setattr(matchmaker.director, "_ADOPT_S", 0.03)
    monkeypatch.setattr(matchmaker.placing, "_RETRY_S", 0.03)
    monkeypatch.setattr(matchmaker.placing, "LAST_WORDS_S", 0.0)
