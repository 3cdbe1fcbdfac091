"""Pages of sessions: their size, and tokens that name the place after which the next begins."""

from __future__ import annotations

import base64
import binascii

from acclimate.runtime.errors import InvalidArgument
from acclimate.runtime.sessions.session import SessionKey

DEFAULT_PAGE, MAX_PAGE = 100, 1000


def page_size(size: int) -> int:
    """How many sessions a page holds; 0 asks for the usual number.

    Raises:
        InvalidArgument: a negative size.
    """
    if size < 0:
        raise InvalidArgument("PAGE_SIZE_INVALID", f"page_size is {size}; it must not be negative", page_size=size)
    return min(size or DEFAULT_PAGE, MAX_PAGE)


def encode(key: SessionKey) -> str:
    """The token of the page after this session."""
    return base64.urlsafe_b64encode("\0".join(key).encode()).decode()


def decode(token: str, tenant: str) -> SessionKey:
    """The place that a token names.

    Raises:
        InvalidArgument: it was not given out by this daemon, or to another tenant.
    """
    try:
        owner, model, session_id = base64.urlsafe_b64decode(token.encode()).decode().split("\0")
    except (ValueError, binascii.Error):
        owner, model, session_id = "\0", "", ""
    if owner != tenant:
        raise InvalidArgument(
            "PAGE_TOKEN_INVALID", "page_token was not given out by this daemon; start again without one"
        )
    return owner, model, session_id
