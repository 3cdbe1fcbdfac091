"""`acclimate session fork`, `snapshot`, `restore`, `pause`, `resume` and `update`: the life of a session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from acclimate.runtime.cli.output import ExitCode, fail, write_json, write_table
from acclimate.runtime.cli.session import LOCAL, AsJson, Labels, Name, Target, app, connected, labels_of, parse, show

if TYPE_CHECKING:
    from acclimate.runtime.client import Budget, Session, SessionView

__all__ = ["app"]

Etag = Annotated[str, typer.Option(help="Do it only if this is the session's etag still.")]
SnapshotId = Annotated[str, typer.Argument(help="Id of a snapshot of the session.")]
Refill = Annotated[float | None, typer.Option(help="Milliseconds of adaptation granted per second.")]
Capacity = Annotated[float | None, typer.Option(help="Milliseconds of adaptation that can be saved up.")]
Ttl = Annotated[float | None, typer.Option(help="Seconds without use after which it is closed; 0: never.")]


@app.command("fork")
def fork(
    name: Name,
    to: Annotated[str | None, typer.Argument(help="Id of the copy. [default: one that the daemon makes]")] = None,
    snapshot: Annotated[str | None, typer.Option(help="Copy this snapshot of it, not what it is now.")] = None,
    refill_ms_per_s: Refill = None,
    capacity_ms: Capacity = None,
    ttl: Ttl = None,
    etag: Etag = "",
    target: Target = LOCAL,
    as_json: AsJson = False,
) -> None:
    """Open a copy of a session: all that it has learnt, with counters and a budget of its own."""
    model, session_id = parse(name)
    with connected(target) as client:
        session = client.session(model, session_id)
        budget = _budget(session, refill_ms_per_s, capacity_ms)
        view = session.fork(to, snapshot_id=snapshot, budget=budget, ttl_seconds=ttl, etag=etag).get()
    show(view, as_json)


@app.command("snapshot")
def snapshot(
    name: Name,
    snapshot_id: Annotated[str | None, typer.Argument(help="Id to keep it under. [default: made]")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the session's snapshots, and take none.")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Forget that snapshot, and take none.")] = False,
    etag: Etag = "",
    target: Target = LOCAL,
    as_json: AsJson = False,
) -> None:
    """Keep what a session has learnt so far, list what was kept, or forget it."""
    model, session_id = parse(name)
    if list_ and (delete or snapshot_id is not None):
        fail(ExitCode.BAD_CONFIG, "--list takes neither --delete nor the id of a snapshot")
    if delete and snapshot_id is None:
        fail(ExitCode.BAD_CONFIG, "--delete needs the id of a snapshot; --list tells those there are")
    with connected(target) as client:
        session = client.session(model, session_id)
        if list_:
            _list(session, as_json)
        elif delete and snapshot_id is not None:
            session.delete_snapshot(snapshot_id)
        else:
            show(session.snapshot(snapshot_id, etag=etag), as_json)


@app.command("restore")
def restore(
    name: Name, snapshot_id: SnapshotId, etag: Etag = "", target: Target = LOCAL, as_json: AsJson = False
) -> None:
    """Let a session be what it was at a snapshot, if the guards let that pass."""
    _change(name, target, as_json, lambda session: session.restore(snapshot_id, etag=etag))


@app.command("pause")
def pause(name: Name, etag: Etag = "", target: Target = LOCAL, as_json: AsJson = False) -> None:
    """Let a session learn nothing from now on; it answers as before."""
    _change(name, target, as_json, lambda session: session.pause(etag=etag))


@app.command("resume")
def resume(name: Name, etag: Etag = "", target: Target = LOCAL, as_json: AsJson = False) -> None:
    """Let a session learn again."""
    _change(name, target, as_json, lambda session: session.resume(etag=etag))


@app.command("update")
def update(
    name: Name,
    refill_ms_per_s: Refill = None,
    capacity_ms: Capacity = None,
    ttl: Ttl = None,
    label: Labels = None,
    unlabel: Annotated[list[str] | None, typer.Option(help="KEY of a label to take away; repeatable.")] = None,
    etag: Etag = "",
    target: Target = LOCAL,
    as_json: AsJson = False,
) -> None:
    """Change what a session may spend on learning, how long it may be idle, or its labels."""
    labels = labels_of(label) | dict.fromkeys(unlabel or ())
    if refill_ms_per_s is capacity_ms is ttl is None and not labels:
        remedy = "give --refill-ms-per-s, --capacity-ms, --ttl, --label or --unlabel"
        fail(ExitCode.BAD_CONFIG, f"nothing to change; {remedy}")

    def changed(session: Session) -> SessionView:
        budget = _budget(session, refill_ms_per_s, capacity_ms)
        return session.update(budget=budget, ttl_seconds=ttl, labels=labels, etag=etag)

    _change(name, target, as_json, changed)


def _change(name: str, target: str, as_json: bool, changed: Callable[[Session], SessionView]) -> None:
    model, session_id = parse(name)
    with connected(target) as client:
        view = changed(client.session(model, session_id))
    show(view, as_json)


def _budget(session: Session, refill_ms_per_s: float | None, capacity_ms: float | None) -> Budget | None:
    """The budget that the options ask for; one that is not given is the session's present one."""
    from acclimate.runtime.client import Budget

    if refill_ms_per_s is None and capacity_ms is None:
        return None
    now = session.get().budget
    return Budget(
        now.refill_ms_per_s if refill_ms_per_s is None else refill_ms_per_s,
        now.capacity_ms if capacity_ms is None else capacity_ms,
    )


def _list(session: Session, as_json: bool) -> None:
    views = list(session.snapshots())
    if as_json:
        write_json([asdict(view) for view in views])
        return
    rows = [(v.snapshot_id, v.version, v.state, f"{v.theta_distance:.3g}", v.nbytes) for v in views]
    write_table("", ("snapshot", "version", "state", "distance", "bytes"), rows)
