from __future__ import annotations

import asyncio
import re
import socket

import pytest

from instructmining_serving.http.sockets import Address, AddressError, bound


def test_the_port_that_the_system_chose_is_in_the_address() -> None:
    with bound("127.0.0.1", 0) as address:
        assert address.port > 0
        assert address.url == f"http://127.0.0.1:{address.port}"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", address.port))
        address.listen()
        socket.create_connection(("127.0.0.1", address.port)).close()


def test_answers_are_sent_at_once() -> None:
    """Without TCP_NODELAY, which asyncio sets on sockets of the protocol TCP alone, an answer may wait 40 ms."""
    found: list[int] = []

    async def look(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.append(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async def connect(address: Address) -> None:
        async with await asyncio.start_server(look, sock=address.sockets[0]):
            reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
            await reader.read()
            writer.close()

    with bound("127.0.0.1", 0) as address:
        asyncio.run(connect(address))
    assert found == [1]


def test_a_name_is_bound_on_all_its_addresses_with_one_port() -> None:
    with bound("localhost", 0) as address:
        assert {one.getsockname()[1] for one in address.sockets} == {address.port}
        assert address.url == f"http://localhost:{address.port}"


def test_a_port_that_is_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = f"127.0.0.1:{port}: address already in use; choose another --port"
        with pytest.raises(AddressError, match=f"^{re.escape(said)}$"), bound("127.0.0.1", port):
            pass


def test_a_port_that_another_took_meanwhile_is_named() -> None:
    with bound("127.0.0.1", 0) as address, bound("127.0.0.1", address.port) as other:
        other.listen()
        with pytest.raises(AddressError, match="address already in use; choose another --port"):
            address.listen()


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("203.0.113.1", "203.0.113.1:80: cannot assign requested address; choose another --host"),
        ("2001:db8::1", "[2001:db8::1]:80: "),
        ("a" * 70, "choose another --host"),
    ],
)
def test_a_host_that_is_not_this_machine_is_named(host: str, said: str) -> None:
    with pytest.raises(AddressError, match=re.escape(said)) as found, bound(host, 80):
        pass
    assert str(found.value).endswith("; choose another --host")
