"""Who a request is from.

The caller is held by a context variable: the edge sets it once for each rpc, in the task that runs the rpc, and what
keeps things of tenants (the session table, the event hub) reads it there. No method between the two passes it on, so
none can forget to. Code outside of an rpc, such as a background task, is nobody's: it sees what belongs to no tenant,
and reaches other sessions only through the objects it holds. docs/decisions/0009-callers.md argues this.
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum

# As it stands in token files, configuration and logs; the empty name is the one tenant of a daemon without tokens.
TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,63}")
NOBODY = ""


class Role(StrEnum):
    """What a caller may do; `access.py` says which rpcs that is."""

    ADMIN = "admin"
    TENANT = "tenant"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Caller:
    """A tenant's name, or the empty one, and the role under which the request is made.

    `subject` names the credential in logs: a token's id or a certificate.
    """

    tenant: str = NOBODY
    role: Role = Role.ADMIN
    subject: str = ""


# Without tokens and certificates whoever reaches the port may do everything, as nobody.
EVERYBODY = Caller()
_current: ContextVar[Caller] = ContextVar("caller", default=EVERYBODY)


def current() -> Caller:
    """The caller of the rpc under way; outside of one, nobody."""
    return _current.get()


def enter(caller: Caller) -> None:
    """Whatever else happens in this task is done for `caller`."""
    _current.set(caller)
