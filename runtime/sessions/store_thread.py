"""The threads on which a store is asked, so that none of its calls blocks the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from acclimate.runtime.store.base import Store

P = ParamSpec("P")
T = TypeVar("T")


class StoreThread:
    """Calls run one after the other, in the order in which they were asked for; those that only look, beside them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._looking = ThreadPoolExecutor(1, thread_name_prefix="store-look")

    async def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's result. A call that has begun goes on when its caller is cancelled."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(function, *args, **kwargs))

    async def look(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a function that writes nothing, and waits for no write."""
        return await asyncio.get_running_loop().run_in_executor(self._looking, partial(function, *args, **kwargs))

    async def close(self) -> None:
        """Close the store, after all that was asked of it, and give the threads up."""
        self._looking.shutdown(wait=True)
        await self.call(self.store.close)
        self._pool.shutdown(wait=False)
