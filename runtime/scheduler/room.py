"""When a step may commit: the learner's side of the bound on what a crash may lose."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

Room = Callable[[int, bool], Awaitable[bool]]
"""Awaited before so many sessions are committed, and whether a reply waits for them. False: they cannot be now."""


async def unbounded(commits: int, replying: bool) -> bool:
    """Where nothing is stored, nothing is waited for."""
    del commits, replying
    return True
