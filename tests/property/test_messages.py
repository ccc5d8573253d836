"""Messages: the codec is its own inverse, and no bytes do harm."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gameserver.protocol import messages as m
from gameserver.protocol.inputs import InputBuffer, InputSender, TakenInput
from gameserver.protocol.schema import F32, Bool, Fields, Float, Int, UInt

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
RECORD = Fields(move=Float(-1, 1, 1 / 127), fire=Bool(), slot=UInt(8), turn=Int(16), at=F32(), big=UInt(32))


@given(st.lists(st.lists(st.integers(0, 30), max_size=4), max_size=20), st.integers(1, 4))
def test_each_input_is_applied_once_in_order(arrivals: list[list[int]], cap: int) -> None:
    """Whatever arrives, repeated or late: the game sees ascending numbers, each once, at most `cap` a tick."""
    sender, buffer, sent, applied = InputSender(FIELDS, repeat=8), InputBuffer(FIELDS), [], []
    for arrival in arrivals:
        sent.append(sender.add({"slot": sender.seq + 1}, ack_tick=0, ack_event=0, view=0))
        for index in arrival:
            if index < len(sent):
                push(buffer, sent[index])
        taken = take(buffer, cap)
        assert len(taken) <= cap
        applied += taken
    numbers = [seq for seq, _, _ in applied]
    assert numbers == sorted(set(numbers))
    assert all(FIELDS.decode(record)["slot"] == min(seq, 255) for seq, _, record in applied)


def take(buffer: InputBuffer, most: int) -> list[TakenInput]:
    return [buffer.take() for _ in range(min(most, len(buffer.waiting)))]


def push(buffer: InputBuffer, message: m.Input) -> None:
    assert buffer.receive(m.encode(message)) == (message.ack_tick, message.ack_event)


@given(st.integers(0, 40), st.lists(st.tuples(st.integers(1, 60), st.integers(1, 32)), max_size=8), st.integers(1, 40))
def test_inputs_may_leave_gaps(already: int, batches: list[tuple[int, int]], cap: int) -> None:
    """Numbers that never came are passed over; the newest are kept, and every one that is not handed over is counted."""
    buffer = InputBuffer(FIELDS)
    seen: set[int] = set(range(1, already + 1))
    if already:
        record = bytes(FIELDS.size_bytes)
        push(buffer, m.Input(ack_tick=0, ack_event=0, view=0, first_seq=already, count=1, records=record))
        assert buffer.take()[0] == already
    pushed = new = 0
    for first, count in batches:
        push(
            buffer,
            m.Input(
                ack_tick=0, ack_event=0, view=0, first_seq=first, count=count, records=bytes(count * FIELDS.size_bytes)
            ),
        )
        fresh = {seq for seq in range(first, first + count) if seq > max(seen, default=0)}
        seen |= fresh
        pushed, new = pushed + count, new + len(fresh)
    waiting = [seq for seq, _, _ in buffer.waiting]
    assert waiting == sorted(waiting)
    assert len(waiting) == min(new, 32)
    assert buffer.dropped == pushed - len(waiting)
    assert [seq for seq, _, _ in take(buffer, cap)] == waiting[:cap]


@given(st.lists(st.binary(min_size=RECORD.size_bytes, max_size=RECORD.size_bytes), min_size=1, max_size=5))
def test_decoded_inputs_are_in_range(records: list[bytes]) -> None:
    """Any records decode to values within their declared ranges; together as one by one."""
    columns = RECORD.decode_many(b"".join(records))
    assert [{name: column[k].item() for name, column in columns.items()} for k in range(len(records))] == [
        RECORD.decode(record) for record in records
    ]
    values = FIELDS.decode(records[0])
    assert -1 <= values["move"] <= 1
    assert values["fire"] in (True, False)
    assert 0 <= values["slot"] <= 255


def test_records_of_another_size_are_malformed() -> None:
    """Records that are not `count` of this game's are refused."""
    buffer = InputBuffer(FIELDS)
    with pytest.raises(m.MalformedMessage, match="of 3 bytes"):
        push(buffer, m.Input(ack_tick=0, ack_event=0, view=0, first_seq=1, count=2, records=b"12345"))
