"""Messages: the codec is its own inverse, and no bytes do harm."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gameserver.protocol import messages as m
from gameserver.protocol.inputs import InputBuffer, InputSender
from gameserver.protocol.schema import Bool, Fields, Float, UInt

U16, U32 = st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1)
TEXT = st.text(max_size=40)
OBJECT = st.dictionaries(TEXT, st.integers() | TEXT | st.booleans(), max_size=4)
CLIENT = st.one_of(
    st.builds(m.Hello, token=TEXT, spectator=st.booleans()),
    st.builds(
        m.Input,
        ack_tick=U32, ack_event=U32, view=U32, first_seq=st.integers(1, 2**32 - 1), count=st.integers(1, 32), records=st.binary(max_size=64),
    ),
    st.builds(m.Ping, client_ms=U32),
)  # fmt: skip
SERVER = st.one_of(
    st.builds(m.Welcome, seat=U16, tick_rate_hz=U16, tick=U32, epoch=U32, room=OBJECT),
    st.builds(m.Snapshot, ack_input=U32, tick=U32, baseline=U32, body=st.binary(max_size=64)),
    st.builds(m.Event, seq=U32, tick=U32, data=OBJECT),
    st.builds(m.Pong, client_ms=U32, server_tick=U32),
    st.builds(m.Migrate, data=OBJECT),
    st.builds(m.Bye, code=st.integers(0, 255), reason=TEXT),
    st.builds(m.Fragment, id=U16, index=st.just(0), count=st.integers(1, 255), piece=st.binary(max_size=64)),
)


@given(CLIENT)
def test_client_messages_round_trip(message: Any) -> None:
    """Every client message comes back as it was."""
    assert m.decode_client(m.encode(message)) == message


@given(SERVER)
def test_server_messages_round_trip(message: Any) -> None:
    """Every server message comes back as it was."""
    assert m.decode_server(m.encode(message)) == message


def test_a_clients_bye() -> None:
    """A client's Bye has a type of its own."""
    assert m.decode_client(m.encode_client_bye(0, "done")) == m.Bye(code=0, reason="done")


@given(st.binary(max_size=80), CLIENT, st.data())
def test_any_bytes_are_read_or_refused(junk: bytes, message: Any, data: st.DataObject) -> None:
    """Junk and truncated messages raise nothing but MalformedMessage."""
    whole = m.encode(message)
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    for raw in (junk, cut, whole + b"\0"):
        for decode in (m.decode_client, m.decode_server):
            try:
                decode(raw)
            except m.MalformedMessage:
                pass


FIELDS = Fields(move=Float(-1, 1, 1 / 127), fire=Bool(), slot=UInt(8))


@given(st.lists(st.lists(st.integers(0, 30), max_size=4), max_size=20), st.integers(1, 4))
def test_each_input_is_applied_once_in_order(arrivals: list[list[int]], cap: int) -> None:
    """Whatever arrives, repeated or late: the game sees ascending numbers, each once, at most `cap` a tick."""
    sender, buffer, sent, applied = InputSender(FIELDS, repeat=8), InputBuffer(FIELDS), [], []
    for arrival in arrivals:
        sent.append(sender.add({"slot": sender.seq + 1}, ack_tick=0, ack_event=0, view=0))
        for index in arrival:
            if index < len(sent):
                buffer.push(sent[index])
        taken = buffer.take(cap)
        assert len(taken) <= cap
        applied += taken
    numbers = [taken.seq for taken in applied]
    assert numbers == sorted(set(numbers))
    assert all(taken.data["slot"] == min(taken.seq, 255) for taken in applied)


@given(st.binary(min_size=FIELDS.size_bytes, max_size=FIELDS.size_bytes))
def test_decoded_inputs_are_in_range(record: bytes) -> None:
    """Any record decodes to values within their declared ranges."""
    values = FIELDS.decode(record)
    assert -1 <= values["move"] <= 1
    assert values["fire"] in (True, False)
    assert 0 <= values["slot"] <= 255


def test_records_of_another_size_are_malformed() -> None:
    """Records that are not `count` of this game's are refused."""
    buffer = InputBuffer(FIELDS)
    with pytest.raises(m.MalformedMessage, match="3 bytes"):
        buffer.push(m.Input(ack_tick=0, ack_event=0, view=0, first_seq=1, count=2, records=b"12345"))
