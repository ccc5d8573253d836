"""IP addresses with ports: as text, as tuples that sockets take, and as connect tokens carry them."""

import struct
from collections.abc import Hashable
from ipaddress import IPv4Address, IPv6Address, ip_address

Address = tuple[str, int]
"""(IP address in canonical text, port): what `socket.sendto` takes, and equal when the places are equal."""

_IPV4, _IPV6 = 1, 2


def parse_address(text: str) -> Address:
    """Read `1.2.3.4:5` or `[::1]:5`. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not port.isdecimal() or bracketed != (":" in host):
        raise ValueError(f"{text!r}: 1.2.3.4:5 or [::1]:5 is wanted")
    return make_address(host.strip("[]"), int(port))


def make_address(host: str, port: int) -> Address:
    """Bring an IP address and a port into canonical form. Raises ValueError for a host name or a port that is none."""
    if not 0 < port < 65536:
        raise ValueError(f"port {port} is not from 1 to 65535")
    return str(ip_address(host)), port


def network_of(host: str) -> Hashable:
    """What counts as one client where clients are limited: an IPv4 address, or the /64 of an IPv6 one, which has as many addresses as it likes."""
    if ":" not in host:
        return host
    address = ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped) if mapped is not None else int(address) >> 64


def format_address(address: Address) -> str:
    """Write an address so that `parse_address` reads it."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def encode_addresses(addresses: tuple[Address, ...]) -> bytes:
    """Number of addresses and the addresses, as in STANDARD.md "Connect Token": an IPv6 address is eight little-endian words."""
    parts = [struct.pack("<I", len(addresses))]
    for host, port in addresses:
        ip = ip_address(host)
        if isinstance(ip, IPv4Address):
            parts.append(struct.pack("<B4sH", _IPV4, ip.packed, port))
        else:
            parts.append(struct.pack("<B8HH", _IPV6, *struct.unpack(">8H", ip.packed), port))
    return b"".join(parts)


def decode_addresses(data: bytes, at: int) -> tuple[tuple[Address, ...], int]:
    """Read what `encode_addresses` wrote, from `at`; also returns where it ends. Raises ValueError, struct.error."""
    (count,) = struct.unpack_from("<I", data, at)
    if not 1 <= count <= 32:
        raise ValueError(f"{count} server addresses: 1 to 32 are wanted")
    at += 4
    addresses: list[Address] = []
    for _ in range(count):
        (kind,) = struct.unpack_from("<B", data, at)
        if kind == _IPV4:
            packed, port = struct.unpack_from("<4sH", data, at + 1)
            addresses.append((str(IPv4Address(packed)), port))
            at += 7
        elif kind == _IPV6:
            *words, port = struct.unpack_from("<8HH", data, at + 1)
            addresses.append((str(IPv6Address(struct.pack(">8H", *words))), port))
            at += 19
        else:
            raise ValueError(f"address type {kind}: 1 or 2 is wanted")
    return tuple(addresses), at
