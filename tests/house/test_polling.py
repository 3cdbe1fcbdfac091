"""The waiting that other tests rely on."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from tests.polling import until, until_async


def test_until_returns_when_the_condition_holds() -> None:
    calls = count()
    until(lambda: next(calls) == 3, "the fourth call")
    assert next(calls) == 4


def test_until_async_lets_the_loop_run() -> None:
    async def flow() -> None:
        done = asyncio.Event()
        asyncio.get_running_loop().call_soon(done.set)
        await until_async(done.is_set, "the loop to run the callback")

    asyncio.run(flow())


def test_until_names_what_did_not_happen() -> None:
    with pytest.raises(AssertionError, match="waited 0 s for the impossible"):
        until(lambda: False, "the impossible", patience=0)
    with pytest.raises(AssertionError, match="waited 0 s for the impossible"):
        asyncio.run(until_async(lambda: False, "the impossible", patience=0))
