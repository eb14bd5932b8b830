"""Closes the network for every Python process that has this folder on PYTHONPATH.

The notebook build and the tests start their kernels with it, which proves that the lessons work offline. Connections to
this machine (127.0.0.0/8, ::1, localhost, unix sockets) stay open, because Jupyter needs them. The code of a lesson cannot
remove an audit hook, and a child process inherits PYTHONPATH.
"""

from __future__ import annotations

import sys

_TO_ADDRESS = {"socket.connect", "socket.sendto", "socket.sendmsg"}  # arguments: socket, address
_TO_NAME = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}  # first argument: the host


def _is_local(host: object) -> bool:
    """Returns True if a host, as passed to the socket module, is this machine. Anything but text is no internet address."""
    import ipaddress

    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if not isinstance(host, str) or host.lower() in {"", "localhost", "localhost.localdomain"}:
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _guard(event: str, arguments: tuple) -> None:
    if event in _TO_ADDRESS:
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # a unix socket's address is a path, not a tuple
    elif event in _TO_NAME:
        host = arguments[0]
    else:
        return
    if not _is_local(host):
        raise OSError(f"the network is closed while lessons are built and tested: no connection to {host!r}")


sys.addaudithook(_guard)
