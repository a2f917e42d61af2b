"""What proxies say of the requests that they pass on."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from common.http import forwarded

TRUSTED = tuple(ip_network(each) for each in ("10.0.0.0/8", "fd00::/8"))


def resolved(peer: str, **headers: str) -> dict[str, Any]:
    environ = {"REMOTE_ADDR": peer, "wsgi.url_scheme": "http", "HTTP_HOST": "inner:9380"}
    environ |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    forwarded.resolve(environ, TRUSTED)
    return environ


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("1.2.3.4, 203.0.113.9", "203.0.113.9"),
        ("1.2.3.4, 203.0.113.9, 10.0.0.7", "203.0.113.9"),
        ("1.2.3.4,203.0.113.9,10.0.0.7 ,\tfd00::1", "203.0.113.9"),
        ("10.0.0.9, 10.0.0.7", "10.0.0.9"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
    ],
)
def test_the_client_is_the_rightmost_hop_that_is_no_trusted_proxy(said: str, address: str) -> None:
    assert resolved("10.0.0.1", x_forwarded_for=said)["REMOTE_ADDR"] == address


@pytest.mark.parametrize("peer", ["203.0.113.1", "2001:db8::1", ""])
def test_a_peer_that_is_not_trusted_is_not_believed(peer: str) -> None:
    said = {"x_forwarded_for": "10.0.0.9", "x_forwarded_proto": "https", "x_forwarded_host": "other"}
    environ = resolved(peer, **said, forwarded="for=10.0.0.9")

    assert environ == {"REMOTE_ADDR": peer, "wsgi.url_scheme": "http", "HTTP_HOST": "inner:9380"}


def test_a_peer_whose_ipv4_address_came_in_ipv6_is_the_same_one() -> None:
    assert resolved("::ffff:10.0.0.1", x_forwarded_for="203.0.113.9")["REMOTE_ADDR"] == "203.0.113.9"


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("nobody", "10.0.0.1"),
        ("", "10.0.0.1"),
        ("203.0.113.9, unknown", "10.0.0.1"),
        ("203.0.113.9, , 10.0.0.7", "10.0.0.7"),
        ("203.0.113.9:", "10.0.0.1"),
        ("203.0.113.999", "10.0.0.1"),
        ("fe80::1%eth0", "10.0.0.1"),
        ("203.0.113.9\n", "10.0.0.1"),
        ("[::1", "10.0.0.1"),
    ],
)
def test_a_malformed_hop_ends_the_way(said: str, address: str) -> None:
    assert resolved("10.0.0.1", x_forwarded_for=said)["REMOTE_ADDR"] == address


def test_the_way_is_followed_for_some_hops_only() -> None:
    said = ",".join(["203.0.113.9", *["10.0.0.7"] * 1000])

    assert resolved("10.0.0.1", x_forwarded_for=said)["REMOTE_ADDR"] == "10.0.0.7"


@pytest.mark.parametrize(
    ("hops", "proto", "host", "scheme", "name"),
    [
        ("203.0.113.9", "https", "plane.example.org", "https", "plane.example.org"),
        ("203.0.113.9", "HTTPS", "plane.example.org:8443", "https", "plane.example.org:8443"),
        ("1.2.3.4, 203.0.113.9", "https, http", "spoofed, real", "http", "real"),
        ("203.0.113.9, 10.0.0.7", "https, http", "outer, inner", "https", "outer"),
        ("203.0.113.9, 10.0.0.7", "https", "outer", "https", "outer"),
        ("203.0.113.9", "gopher", "a b", "http", "inner:9380"),
        ("203.0.113.9", "", "a/b", "http", "inner:9380"),
        ("203.0.113.9", "", "[2001:db8::1]:8443", "http", "[2001:db8::1]:8443"),
        ("203.0.113.9", "", "a@b", "http", "inner:9380"),
    ],
)
def test_scheme_and_host_are_what_the_farthest_trusted_proxy_says(
    hops: str, proto: str, host: str, scheme: str, name: str
) -> None:
    environ = resolved("10.0.0.1", x_forwarded_for=hops, x_forwarded_proto=proto, x_forwarded_host=host)

    assert (environ["wsgi.url_scheme"], environ["HTTP_HOST"]) == (scheme, name)


def test_a_scheme_without_an_address_counts() -> None:
    environ = resolved("10.0.0.1", x_forwarded_proto="https")

    assert (environ["wsgi.url_scheme"], environ["REMOTE_ADDR"]) == ("https", "10.0.0.1")


@pytest.mark.parametrize(
    ("said", "address", "scheme", "host"),
    [
        ("for=203.0.113.9;proto=https;host=plane.example.org", "203.0.113.9", "https", "plane.example.org"),
        ('For="[2001:db8::1]:4711" ; Proto=https', "2001:db8::1", "https", "inner:9380"),
        ("for=1.2.3.4, for=203.0.113.9;proto=https, for=10.0.0.7;by=10.0.0.1", "203.0.113.9", "https", "inner:9380"),
        ("for=_hidden;proto=https", "10.0.0.1", "https", "inner:9380"),
        ("for=203.0.113.9;for=1.2.3.4", "10.0.0.1", "http", "inner:9380"),
        ('for="203.0.113.9', "10.0.0.1", "http", "inner:9380"),
        ("203.0.113.9", "10.0.0.1", "http", "inner:9380"),
    ],
)
def test_the_standard_header_is_read_too(said: str, address: str, scheme: str, host: str) -> None:
    environ = resolved("10.0.0.1", forwarded=said)

    assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"], environ["HTTP_HOST"]) == (address, scheme, host)


def test_what_a_stranger_wrote_in_the_other_kind_of_header_does_not_count() -> None:
    environ = resolved("10.0.0.1", x_forwarded_for="203.0.113.9", forwarded="for=1.2.3.4;proto=https;host=evil")

    assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"], environ["HTTP_HOST"]) == (
        "203.0.113.9",
        "http",
        "inner:9380",
    )


def test_nobody_behind_it_sees_the_headers() -> None:
    said = {"x_forwarded_for": "203.0.113.9", "x_forwarded_proto": "https", "x_forwarded_host": "a", "forwarded": "b"}

    assert not [name for name in resolved("10.0.0.1", **said) if "FORWARDED" in name]


def test_without_trusted_proxies_there_is_nothing_in_front() -> None:
    def app(*_: Any) -> list[bytes]:
        return []

    assert forwarded.behind_proxies(app, ()) is app
