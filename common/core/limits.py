"""The arithmetic of limits: how long to wait, who counts as one caller, and what is said about it in headers."""

from __future__ import annotations

import ipaddress
import math
from typing import NamedTuple

FIRST_WAIT_S = 30.0
LONGEST_WAIT_S = 900.0


class Policy(NamedTuple):
    """So many in a window of so many seconds; ``name`` is what headers call it."""

    name: str
    most: int
    window_s: float


def login_wait_s(failures: int, free: int) -> float:
    """The seconds to wait after so many failures in a row of which ``free`` cost nothing: 30, 60, 120 … 900."""
    if failures < free:
        return 0.0
    # The exponent is bounded before it is used: failures are counted by whoever likes to.
    doublings = min(failures - free, 10)
    return min(FIRST_WAIT_S * 2.0**doublings, LONGEST_WAIT_S)


def network_of(address: str | None) -> str | None:
    """The /24 or /64 that an address belongs to; None for what is no address. IPv4 within IPv6 counts as IPv4."""
    return _network_of(address, 24, 64)


def source_of(address: str | None) -> str | None:
    """What one host can't change of its address: all of IPv4, the /64 of IPv6; None for what is no address."""
    return _network_of(address, 32, 64)


def _network_of(address: str | None, bits_of_4: int, bits_of_6: int) -> str | None:
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return str(ipaddress.ip_network((found, bits_of_4 if found.version == 4 else bits_of_6), strict=False))


def headers(policy: Policy, resets_in: float) -> dict[str, str]:
    """``RateLimit-Policy`` and ``RateLimit`` (draft-ietf-httpapi-ratelimit-headers-10) of a limit that is reached."""
    return {
        "RateLimit-Policy": f'"{policy.name}";q={policy.most};w={math.ceil(policy.window_s)}',
        "RateLimit": f'"{policy.name}";r=0;t={math.ceil(resets_in)}',
    }
