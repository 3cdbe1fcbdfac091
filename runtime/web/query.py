"""What stands after the `?`: checked, with errors that name the field, its value and the fix."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TypeVar

from starlette.requests import Request

from acclimate.runtime.errors import InvalidArgument

E = TypeVar("E", bound=StrEnum)


def number(request: Request, name: str, default: float, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number between two bounds.

    Raises:
        InvalidArgument: it is none.
    """
    given = request.query_params.get(name)
    if given is None:
        return default
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or not low <= value <= high:
        raise _invalid(name, given, f"send a number from {low:g} to {high:g}")
    return value


def choice(request: Request, name: str, among: type[E], default: E) -> E:
    """One of a few words.

    Raises:
        InvalidArgument: it is another one.
    """
    given = request.query_params.get(name)
    if given is None:
        return default
    if given not in tuple(among):
        raise _invalid(name, given, f"send one of {', '.join(among)}")
    return among(given)


def ticked(request: Request, name: str) -> bool:
    """Yes or no, by 1 or 0.

    Raises:
        InvalidArgument: it is neither.
    """
    given = request.query_params.get(name, "0")
    if given not in ("0", "1"):
        raise _invalid(name, given, "send 0 or 1")
    return given == "1"


def _invalid(name: str, given: str, fix: str) -> InvalidArgument:
    return InvalidArgument("QUERY_INVALID", f"{name} is {given[:40]!r}; {fix}", field=name, value=given[:40])
