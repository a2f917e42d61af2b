"""Closes the egress of a server that is being fuzzed: no name is looked up, and only loopback can be reached."""

import ipaddress
import socket

_connect = socket.socket.connect


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _guarded_connect(self: socket.socket, address: object) -> None:
    if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_here(str(address[0])):
        raise ConnectionRefusedError("egress is closed")
    _connect(self, address)


def _guarded_look_up(lookup):
    def look_up(host, *arguments, **options):
        if host is not None and not _is_here(str(host)):
            raise socket.gaierror(socket.EAI_NONAME, "egress is closed")
        return lookup(host, *arguments, **options)

    return look_up


socket.socket.connect = _guarded_connect
socket.getaddrinfo = _guarded_look_up(socket.getaddrinfo)
