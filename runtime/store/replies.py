"""Replies to requests that carried an id, in the SQLite store: the latest `REMEMBERED`, oldest first."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from acclimate.runtime.store.base import REMEMBERED, Reply

KEEP = (
    "INSERT OR REPLACE INTO replies (tenant, kind, resource, request_id, request, reply, model, session) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
FORGET = "DELETE FROM replies WHERE number <= (SELECT max(number) FROM replies) - ?"
RECALL = (
    "SELECT tenant, kind, resource, request_id, request, reply, model, session FROM replies "
    "ORDER BY number DESC LIMIT ?"
)


def keep(connection: sqlite3.Connection, replies: Sequence[Reply]) -> None:
    """Keep replies, and forget as many old ones."""
    if replies:
        connection.executemany(
            KEEP, [(r.tenant, r.kind, r.resource, r.request_id, r.request, r.reply, *r.session[1:]) for r in replies]
        )
        connection.execute(FORGET, (REMEMBERED,))


def recall(connection: sqlite3.Connection) -> list[Reply]:
    """What is kept."""
    rows = connection.execute(RECALL, (REMEMBERED,)).fetchall()
    return [
        Reply(tenant, kind, resource, request_id, request, reply, (tenant, model, session))
        for tenant, kind, resource, request_id, request, reply, model, session in reversed(rows)
    ]
