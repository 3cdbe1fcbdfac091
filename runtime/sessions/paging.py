"""Pages of sessions: their size, and tokens that name the place after which the next begins."""

from __future__ import annotations

import base64
import binascii
from hashlib import blake2b

from acclimate.runtime.errors import InvalidArgument
from acclimate.runtime.sessions.session import SessionKey
from acclimate.runtime.types import SessionQuery

DEFAULT_PAGE, MAX_PAGE = 100, 1000


def page_size(size: int) -> int:
    """How many sessions a page holds; 0 asks for the usual number.

    Raises:
        InvalidArgument: a negative size.
    """
    if size < 0:
        raise InvalidArgument("PAGE_SIZE_INVALID", f"page_size is {size}; it must not be negative", page_size=size)
    return min(size or DEFAULT_PAGE, MAX_PAGE)


def mark(query: SessionQuery) -> str:
    """What a token says of the list that it belongs to: empty for plain lists of one tenant's sessions."""
    if not query.filter and not query.every_tenant:
        return ""
    asked = repr((query.model, query.filter, query.every_tenant))
    return blake2b(asked.encode(), digest_size=8).hexdigest()


def encode(key: SessionKey, stamp: str = "") -> str:
    """The token of the page after this session, in the list that `stamp` marks."""
    parts = (*key, stamp) if stamp else key
    return base64.urlsafe_b64encode("\0".join(parts).encode()).decode()


def decode(token: str, tenant: str | None, stamp: str = "") -> SessionKey:
    """The place that a token names; `tenant` is whose sessions are listed, None: everybody's.

    Raises:
        InvalidArgument: it was not given out by this daemon, or to another tenant, or for another list.
    """
    try:
        owner, model, session_id, *rest = base64.urlsafe_b64decode(token.encode()).decode().split("\0")
    except (ValueError, binascii.Error):
        owner, model, session_id, rest = "\0", "", "", []
    if owner == "\0" or tenant not in (None, owner):
        raise InvalidArgument(
            "PAGE_TOKEN_INVALID", "page_token was not given out by this daemon; start again without one"
        )
    if rest != ([stamp] if stamp else []):
        raise InvalidArgument(
            "PAGE_TOKEN_INVALID", "page_token belongs to a list with another filter; start again without one"
        )
    return owner, model, session_id
