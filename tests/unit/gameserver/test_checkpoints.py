"""Checkpoints as bytes: packed, read back, and damaged in every way."""

import zlib

import hypothesis.strategies as st
import pytest
from hypothesis import given

from gameserver.sessions.checkpoints import (
    COMPRESS_FROM_BYTES,
    MAX_STATE_BYTES,
    Checkpoint,
    DamagedCheckpoint,
    pack,
    unpack,
)
from gameserver.sessions.model import PlayerId

PLAYERS = st.frozensets(st.text(max_size=8).map(PlayerId), max_size=4)


@given(st.binary(max_size=200) | st.binary(max_size=50).map(lambda b: b * 1000), PLAYERS)
def test_what_is_packed_is_read_back(state: bytes, kicked: frozenset[PlayerId]) -> None:
    """Small and large states, with whoever was kicked."""
    checkpoint = Checkpoint(state=state, kicked=kicked)
    assert unpack(pack(checkpoint)) == checkpoint


def test_a_large_state_is_compressed() -> None:
    """From a size on, where it saves more than it costs."""
    assert len(pack(Checkpoint(state=b"a" * COMPRESS_FROM_BYTES))) < 200
    assert len(pack(Checkpoint(state=b"a" * (COMPRESS_FROM_BYTES - 1)))) > COMPRESS_FROM_BYTES


@given(st.binary(max_size=64))
def test_any_bytes_are_a_checkpoint_or_damaged(data: bytes) -> None:
    """Nothing else is raised."""
    for bytes_ in (data, b"WFC1" + data, b"WFC1\x01\x0d\0\0\0" + b'{"kicked":[]}' + data):
        try:
            unpack(bytes_)
        except DamagedCheckpoint:
            pass


@pytest.mark.parametrize("cut", [1, 5])
def test_a_state_that_is_cut_short_or_bursts_is_damaged(cut: int) -> None:
    """A compressed state must be whole, and no larger than a state may be."""
    packed = pack(Checkpoint(state=bytes(range(256)) * 256))
    with pytest.raises(DamagedCheckpoint):
        unpack(packed[:-cut])
    head, tail = packed[: packed.index(b"}") + 1], zlib.compress(bytes(MAX_STATE_BYTES + 1), 1)
    with pytest.raises(DamagedCheckpoint, match="too long"):
        unpack(head + tail)
