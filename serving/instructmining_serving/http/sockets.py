"""The sockets that a service listens on, taken before its models are opened."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from instructmining.errors import InstructMiningError

_OF_PORT = frozenset({errno.EADDRINUSE, errno.EACCES})


class AddressError(InstructMiningError):
    """The service cannot listen on an address."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a service listens, on every address that its host has."""

    host: str
    port: int  # the real one, where the system chose it
    sockets: tuple[socket.socket, ...]

    @property
    def url(self) -> str:
        """Return the address as clients write it."""
        return f"http://{_shown(self.host, self.port)}"

    def listen(self) -> None:
        """Take connections; until then they are refused.

        Raises:
            AddressError: another process listens there since.
        """
        for one in self.sockets:
            try:
                one.listen()
            except OSError as error:
                raise _refused(self.host, self.port, error) from error


@contextmanager
def bound(host: str, port: int) -> Iterator[Address]:
    """Bind sockets, and close them after the block.

    Args:
        host: a name or an address.
        port: 0 lets the system choose.

    Raises:
        AddressError: there is no such host, or the port is not free.
    """
    with ExitStack() as stack:
        taken: list[socket.socket] = []
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, address in dict.fromkeys((entry[0], entry[4]) for entry in found):
                one = stack.enter_context(socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP))
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                one.bind((address[0], port, *address[2:]))
                port = one.getsockname()[1]
                taken.append(one)
        except (OSError, UnicodeError) as error:  # the latter of names that are none
            raise _refused(host, port, error) from error
        yield Address(host, port, tuple(taken))


def _refused(host: str, port: int, error: OSError | UnicodeError) -> AddressError:
    of_port = isinstance(error, OSError) and error.errno in _OF_PORT
    said = (isinstance(error, OSError) and error.strerror) or str(error)
    why = f"{said[:1].lower()}{said[1:]}"
    return AddressError(f"{_shown(host, port)}: {why}; choose another {'--port' if of_port else '--host'}")


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
