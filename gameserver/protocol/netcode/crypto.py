"""
The two AEADs of netcode, from libsodium (PyNaCl).

Packets use ChaCha20-Poly1305 by way of libsodium's own functions, from memory to memory (`AEAD_ENCRYPT`, `AEAD_DECRYPT`; `packets.py` calls them): a
packet costs a third to three quarters of what it does with `cryptography`'s cipher objects, and the smaller it is, the more is saved. PyNaCl's own
wrappers, which check and copy everything, serve where a packet more or less does not matter: connect tokens and challenge tokens.
"""

import struct
from typing import Any, NewType

from nacl._sodium import ffi, lib  # type: ignore[import-not-found]  # what nacl.bindings is made of
from nacl.bindings import (  # this import also chooses the code for the machine at hand
    crypto_aead_chacha20poly1305_ietf_decrypt,
    crypto_aead_chacha20poly1305_ietf_encrypt,
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

KEY_BYTES = 32
MAC_BYTES = 16
TOKEN_NONCE_BYTES = 24

Cipher = NewType("Cipher", bytes)
"""A key of the right size, which is all that libsodium wants to know."""

AEAD_ENCRYPT = lib.crypto_aead_chacha20poly1305_ietf_encrypt
"""(to, NULL, plain, its size, associated, its size, NULL, nonce, key)."""
AEAD_DECRYPT = lib.crypto_aead_chacha20poly1305_ietf_decrypt
"""(to, NULL, NULL, sealed, its size, associated, its size, nonce, key); 0 when nobody has changed anything."""
NULL = ffi.NULL
MAKE_NONCE = struct.Struct("<IQ").pack
"""(0, sequence number). Source: STANDARD.md, and erratum 2 of IMPLEMENTERS.md: four zero bytes come first."""


def make_cipher(key: bytes) -> Cipher:
    """Check a key. Raises ValueError."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key of {len(key)} bytes: {KEY_BYTES} are wanted")
    return Cipher(bytes(key))


def make_room(size_bytes: int) -> tuple[Any, Any]:
    """Memory to encrypt into: as a pointer, which may be added to, and as a buffer, whose slices are bytes."""
    memory = ffi.new("unsigned char[]", size_bytes)
    return memory, ffi.buffer(memory)


def address_of(memory: Any) -> int:
    """Where a pointer points to, as the kernel wants it."""
    return int(ffi.cast("uintptr_t", memory))


def encrypt(cipher: Cipher, sequence: int, data: bytes) -> bytes:
    """Encrypt, bound to nothing else."""
    return crypto_aead_chacha20poly1305_ietf_encrypt(data, None, MAKE_NONCE(0, sequence), cipher)


def decrypt(cipher: Cipher, sequence: int, data: bytes) -> bytes | None:
    """Decrypt and check; None for what this key did not encrypt."""
    try:
        return crypto_aead_chacha20poly1305_ietf_decrypt(data, None, MAKE_NONCE(0, sequence), cipher)
    except CryptoError:
        return None


def encrypt_token(data: bytes, associated: bytes, nonce: bytes, key: bytes) -> bytes:
    """Encrypt the private part of a connect token."""
    return crypto_aead_xchacha20poly1305_ietf_encrypt(data, associated, nonce, key)


def decrypt_token(data: bytes, associated: bytes, nonce: bytes, key: bytes) -> bytes | None:
    """Decrypt the private part of a connect token; None for one made with another key, protocol or expiry."""
    try:
        return crypto_aead_xchacha20poly1305_ietf_decrypt(data, associated, nonce, key)
    except CryptoError:
        return None
