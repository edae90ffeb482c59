from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from instructmining_serving.http.access import App, Receive, Scope, Send
from instructmining_serving.http.held import HeldBodies, hold
from instructmining_serving.scheduling.errors import OverloadedError
from instructmining_serving.service import TooLargeError

Ask = Callable[[bytes], Coroutine[Any, Any, None]]


def around(app: App, most_bytes: int) -> tuple[HeldBodies, Ask]:
    held = HeldBodies(app, most_bytes)

    async def nothing(*_: object) -> Any:  # noqa: ANN401
        return {}

    return held, lambda body: held({"type": "http", "body": body}, nothing, nothing)


def test_bodies_are_held_until_their_answers_are_sent_and_more_are_refused() -> None:
    let = asyncio.Event()

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        hold(scope, scope["body"])
        await let.wait()

    held, ask = around(app, 1000)

    async def main() -> None:
        first = asyncio.create_task(ask(b"x" * 600))
        await asyncio.sleep(0)
        assert held.bytes == 600
        with pytest.raises(OverloadedError, match="the bodies of other requests"):
            await ask(b"x" * 500)
        assert held.bytes == 600
        second = asyncio.create_task(ask(b"x" * 400))
        await asyncio.sleep(0)
        let.set()
        await asyncio.gather(first, second)
        assert held.bytes == 0
        await ask(b"x" * 1000)

    asyncio.run(main())


def test_a_body_counts_as_the_memory_that_its_values_take_and_no_other_is_to_blame() -> None:
    async def app(scope: Scope, _: Receive, __: Send) -> None:
        hold(scope, scope["body"])

    held, ask = around(app, 10_000)
    asyncio.run(ask(b"x" * 9_000))
    with pytest.raises(TooLargeError, match=r"more than 10,000 bytes of memory"):
        asyncio.run(ask(b"[" + b"{}," * 100 + b"{}]"))  # 304 bytes of text
    assert held.bytes == 0
