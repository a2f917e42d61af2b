"""What proxies say of a request that they pass on: only trusted ones are believed, and only what is well formed.

``X-Forwarded-For``, ``-Proto`` and ``-Host`` as every proxy writes them; ``Forwarded`` (RFC 7239) counts only where
none of them is there, because a proxy that writes one kind passes on what a stranger wrote in the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from itertools import islice
from typing import Any, NamedTuple

from common.http.wsgi_types import Application, Environ

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

# Longer chains of proxies don't exist; what is further left was written by a stranger.
_MOST_HOPS = 20
_FOR, _PROTO, _HOST = "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST"
_FORWARDED = "HTTP_FORWARDED"
_MAPPED = "::ffff:"
_V4_WITH_PORT = re.compile(r"([0-9.]+):[0-9]{1,5}")
_V6_IN_BRACKETS = re.compile(r"\[([0-9a-fA-F:.]+)\](?::[0-9]{1,5})?")
_NAMED_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9a-fA-F:.]{2,45}\])(?::[0-9]{1,5})?")
# A pair of RFC 7239: a token, and a token or a quoted text. IPv6 addresses and ports have to be quoted.
_PAIR = re.compile(r"""\s*(for|by|host|proto)=(?:"([^"\\]*)"|([^\s",;]+))\s*""", re.IGNORECASE)


class Hop(NamedTuple):
    """What one proxy says: who sent it the request, how, and for which host. Texts as they came, or empty."""

    sender: str = ""
    scheme: str = ""
    host: str = ""


def behind_proxies(app: Application, trusted: Sequence[Network]) -> Application:
    """The app behind a front that puts into the environ what trusted proxies say, and takes their headers out of it."""
    if not trusted:
        return app

    def front(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        resolve(environ, trusted)
        return app(environ, start_response)

    return front


def resolve(environ: Environ, trusted: Sequence[Network]) -> None:
    """Address, scheme and host of the request as its client sent it, if its peer is a proxy that is believed.

    The address is that of the rightmost hop that is no trusted proxy. What is malformed ends the way there: the last
    address that was well formed stands.
    """
    hops = _hops(environ)
    for name in (_FOR, _PROTO, _HOST, _FORWARDED):
        environ.pop(name, None)
    address = parsed(environ.get("REMOTE_ADDR", ""))
    believed = Hop()
    for hop in hops:
        if address is None or not _is_in(address, trusted):
            break
        # Whoever stands here is trusted, so what it wrote is true; as far as it wrote anything.
        believed = Hop(hop.sender, hop.scheme or believed.scheme, hop.host or believed.host)
        sender = parsed(hop.sender)
        if sender is None:
            break
        address = sender
        environ["REMOTE_ADDR"] = str(address)
    if believed.scheme.lower() in ("http", "https"):
        environ["wsgi.url_scheme"] = believed.scheme.lower()
    if _NAMED_HOST.fullmatch(believed.host):
        environ["HTTP_HOST"] = believed.host


def plain(peer: str) -> str:
    """The address of a peer as it is called everywhere here: an IPv4 one also where a listener of both kinds (``::``)
    tells of it as mapped."""
    return peer.removeprefix(_MAPPED) if "." in peer else peer


def parsed(text: str) -> Address | None:
    """The address in a text that may have a port; None for anything else. A mapped IPv4 address is that address."""
    found = _V6_IN_BRACKETS.fullmatch(text) or _V4_WITH_PORT.fullmatch(text)
    try:
        address = ip_address(found[1] if found else text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        # A zone names an interface of the machine that wrote it.
        return None if address.scope_id else address.ipv4_mapped or address
    return address


def _is_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _hops(environ: Mapping[str, Any]) -> list[Hop]:
    """What was said, the nearest proxy's word first."""
    said = [_items(environ.get(name)) for name in (_FOR, _PROTO, _HOST)]
    if not any(said):
        return _rfc7239(environ.get(_FORWARDED, ""))
    senders, schemes, hosts = said
    # Word by word: a proxy that overwrites a header instead of adding to it said the last one.
    return [Hop(sender, _at(schemes, index), _at(hosts, index)) for index, sender in enumerate(senders or [""])]


def _at(items: list[str], index: int) -> str:
    return items[index] if index < len(items) else ""


def _items(value: str | None) -> list[str]:
    """The parts of a header, the last one first."""
    return [each.strip(" \t") for each in islice(reversed(value.split(",")), _MOST_HOPS)] if value else []


def _rfc7239(value: str) -> list[Hop]:
    """The elements of a ``Forwarded`` header, the last one first, as far as they are well formed."""
    hops: list[Hop] = []
    for element in islice(reversed(value.split(",")), _MOST_HOPS) if value else ():
        pairs: dict[str, str] = {}
        for part in element.split(";"):
            found = _PAIR.fullmatch(part)
            if found is None or found[1].lower() in pairs:
                return hops
            pairs[found[1].lower()] = found[2] if found[2] is not None else found[3]
        hops.append(Hop(pairs.get("for", ""), pairs.get("proto", ""), pairs.get("host", "")))
    return hops
