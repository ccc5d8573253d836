"""
Writes tests/vectors/netcode.json: netcode packets with fixed keys, nonces and numbers, by our own encoder.

Checked against the reference: `vectors` of tests/integration/gameserver/test_netcode_reference.c makes the same artifacts by the functions of
mas-bandwidth/netcode's netcode.c, from the same inputs, and test_netcode_reference.py compares them byte for byte with the file (it runs
where WARMFLEET_NETCODE_REFERENCE names a checkout of that project). A change to the file is another protocol.

    python tests/vectors/generate_netcode.py
"""

import json
from pathlib import Path

from gameserver.protocol.netcode import packets as p
from gameserver.protocol.netcode.crypto import encrypt_token, make_cipher
from gameserver.protocol.netcode.tokens import (
    ConnectToken,
    PrivateToken,
    encode_connect_token,
    encode_private,
    encrypt_challenge,
    token_binding,
)

PROTOCOL_ID = 0x1122334455667788
SERVERS = (("127.0.0.1", 40000), ("2001:db8::1:2", 40001))
PRIVATE_KEY, TO_SERVER, TO_CLIENT, CHALLENGE_KEY = (bytes(range(at, at + 32)) for at in (0, 32, 64, 96))
NONCE = bytes(range(128, 152))
CREATED, EXPIRES, TIMEOUT = 1_700_000_000, 1_700_000_060, 5
CLIENT_ID = 0x0102030405060708
USER_DATA = bytes(range(255, -1, -1))
TOP = 1 << 63


def artifacts() -> dict[str, bytes]:
    """Name to bytes."""
    private = PrivateToken(
        client_id=CLIENT_ID, timeout_s=TIMEOUT, servers=SERVERS, client_to_server_key=TO_SERVER,
        server_to_client_key=TO_CLIENT, user_data=USER_DATA,
    )  # fmt: skip
    secret = encrypt_token(encode_private(private), token_binding(PROTOCOL_ID, EXPIRES), NONCE, PRIVATE_KEY)
    token = ConnectToken(
        protocol_id=PROTOCOL_ID, created_unix_s=CREATED, expires_unix_s=EXPIRES, nonce=NONCE, private=secret,
        timeout_s=TIMEOUT, servers=SERVERS, client_to_server_key=TO_SERVER, server_to_client_key=TO_CLIENT,
    )  # fmt: skip
    request = p.Request(protocol_id=PROTOCOL_ID, expires_unix_s=EXPIRES, nonce=NONCE, private=secret)
    challenge = p.encode_challenge(7, encrypt_challenge(CLIENT_ID, USER_DATA, 7, make_cipher(CHALLENGE_KEY)))
    associated = p.associated_data(PROTOCOL_ID)
    client, server = make_cipher(TO_SERVER), make_cipher(TO_CLIENT)
    long = bytes(k % 256 for k in range(p.MAX_PAYLOAD_BYTES))
    return {
        "connect_token": encode_connect_token(token),
        "request": p.encode_request(request),
        "challenge": p.seal(p.CHALLENGE, TOP, challenge, server, associated),
        "response": p.seal(p.RESPONSE, 0, challenge, client, associated),
        "denied": p.seal(p.DENIED, TOP + 1, b"", server, associated),
        "keep_alive": p.seal(p.KEEP_ALIVE, 1000, p.encode_keep_alive(3, 64), server, associated),
        "payload_long": p.seal(p.PAYLOAD, 2**64 - 1, long, client, associated),
        "payload_short": p.seal(p.PAYLOAD, 65535, long[:1], client, associated),
        "disconnect": p.seal(p.DISCONNECT, 65536, b"", client, associated),
    }


def document() -> dict[str, object]:
    """The file's content."""
    inputs = {
        "protocol_id": f"{PROTOCOL_ID:016x}", "servers": ["127.0.0.1:40000", "[2001:db8::1:2]:40001"],
        "private_key": PRIVATE_KEY.hex(), "client_to_server_key": TO_SERVER.hex(), "server_to_client_key": TO_CLIENT.hex(),
        "challenge_key": CHALLENGE_KEY.hex(), "nonce": NONCE.hex(), "created_unix_s": CREATED, "expires_unix_s": EXPIRES,
        "timeout_s": TIMEOUT, "client_id": f"{CLIENT_ID:016x}", "user_data": USER_DATA.hex(), "challenge_sequence": 7,
        "keep_alive": [3, 64],
    }  # fmt: skip
    return {"version": "NETCODE 1.02", "inputs": inputs, "artifacts": {k: v.hex() for k, v in artifacts().items()}}


if __name__ == "__main__":
    Path(__file__).with_name("netcode.json").write_text(json.dumps(document(), indent=1) + "\n")
