from __future__ import annotations

import asyncio

from instructmining_serving.scheduling.room import Room


def test_who_asks_first_gets_room_first_and_what_is_too_large_takes_all_of_it() -> None:
    async def run() -> list[str]:
        room, order = Room(10), []

        async def use(name: str, amount: int) -> None:
            async with room.taken(amount):
                order.append(name)
                await asyncio.sleep(0.01)
                order.append(f"end of {name}")

        await asyncio.gather(use("a", 6), use("large", 99), use("b", 1), use("c", 9))
        return order

    assert asyncio.run(run()) == ["a", "end of a", "large", "end of large", "b", "c", "end of b", "end of c"]


def test_who_is_cancelled_while_it_waits_takes_no_room() -> None:
    async def run() -> None:
        room = Room(10)
        await room.take(10)
        waiting = [asyncio.ensure_future(room.take(5)) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        room.give(10)
        await waiting[1]
        await asyncio.wait_for(room.take(5), 1)

    asyncio.run(run())
