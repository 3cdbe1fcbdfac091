"""`acclimate top`: the sessions of a running daemon, the worst first, kept up to date in a terminal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from acclimate.runtime.cli import session
from acclimate.runtime.cli.output import ExitCode, fail, write_json
from acclimate.runtime.cli.session import LOCAL, AsJson, Target, connected

if TYPE_CHECKING:
    from acclimate.runtime.client import Client
    from acclimate.runtime.ranking import Sort

# A daemon that does not answer for so long counts as gone, until it does.
TIMEOUT_SECONDS = 5.0
# The list is read again after this many times as long as reading it took: with very many sessions it takes a while.
REST = 10.0
SORTS = ("drift", "accuracy", "entropy", "rollbacks", "updates", "recent")


def top(
    model: Annotated[str | None, typer.Option(help="Only sessions of this model.")] = None,
    sort: Annotated[str, typer.Option(help=f"Order, the worst or most first: {', '.join(SORTS)}.")] = "drift",
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="Sessions to show; 0: as many as fit.")] = 0,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks, at least.")] = 2.0,
    once: Annotated[
        bool, typer.Option("--once", help="Look once and end; so it does where this is no terminal.")
    ] = False,
    target: Target = LOCAL,
    as_json: AsJson = False,
    token: session.Token = None,
    tenant: session.Tenant = None,
    tls: session.UseTls = False,
    ca: session.Authority = None,
    certificate: session.Certificate = None,
    key: session.Key = None,
) -> None:
    """Show models, sessions and events as they change. Keys: d a e r u l order, q quits."""
    from acclimate.runtime.ranking import Sort

    if sort not in tuple(Sort):
        fail(ExitCode.BAD_CONFIG, f"--sort is {sort!r}; choose one of {', '.join(Sort)}")
    session.access(token, tenant, tls, ca, certificate, key)
    once = once or as_json or not sys.stdout.isatty()
    with connected(target, timeout_seconds=TIMEOUT_SECONDS, reconnect=once) as client:
        if once:
            _look_once(client, target, model, Sort(sort), limit, as_json)
        else:
            _keep_looking(client, target, model, Sort(sort), limit, interval)


def _look_once(client: Client, target: str, model: str | None, sort: Sort, limit: int, as_json: bool) -> None:
    from rich.console import Console

    from acclimate.runtime.cli.top_draw import draw
    from acclimate.runtime.cli.top_rows import document, look

    frame = look(client, target, model, sort, limit)
    if as_json:
        write_json(document(frame))
        return
    console = Console()
    Console(width=None if console.is_terminal else 160).print(draw(frame, len(frame.sessions)))


def _keep_looking(client: Client, target: str, model: str | None, sort: Sort, limit: int, interval: float) -> None:
    from rich.console import Console
    from rich.live import Live

    from acclimate.runtime.cli.keys import Keys
    from acclimate.runtime.cli.top_draw import draw, rows_that_fit
    from acclimate.runtime.cli.top_rows import News, Screen

    console = Console()
    with (
        News(client, model) as news,
        Keys() as keys,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        screen = Screen(client, target, model, sort, news)
        while True:
            began = time.monotonic()
            screen.look()
            rest = max(interval, REST * (time.monotonic() - began))
            while True:
                frame = screen.frame()
                live.update(draw(frame, limit or rows_that_fit(frame, console.height)), refresh=True)
                pressed = keys.wait(max(0.0, began + rest - time.monotonic()))
                if pressed == "q":
                    return
                if not screen.order(pressed):
                    break
