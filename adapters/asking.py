"""How a step asks: yield a request, be sent its reply, with the reply's type checked in one place."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

from acclimate.adapters.requests import Forward, Frozen, Gradient, Gradients, Outputs, Reply, Request, Serve

R = TypeVar("R", Outputs, Gradients)
Asking = Generator[Request, Reply, R]


def ask_outputs(request: Forward | Frozen | Serve) -> Asking[Outputs]:
    """Ask for a `Forward`, `Frozen` or `Serve` pass.

    Raises:
        TypeError: whoever drives the step sent something else; a defect of the driver.
    """
    return (yield from _ask(request, Outputs))


def ask_gradients(request: Gradient) -> Asking[Gradients]:
    """Ask for a vector-Jacobian product; see `ask_outputs` for what it raises."""
    return (yield from _ask(request, Gradients))


def _ask(request: Request, expected: type[R]) -> Asking[R]:
    reply = yield request
    if not isinstance(reply, expected):
        raise TypeError(f"{type(request).__name__} was answered with {type(reply).__name__}, not {expected.__name__}")
    return reply
