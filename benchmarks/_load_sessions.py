"""Thousands of sessions: what they cost in memory, how fast they are opened, and how they are found."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence

from acclimate.runtime.client import Client
from acclimate.v1 import session_service_pb2 as pb
from benchmarks._load_generator import INFER, Load, connected, cpu_clock, one_by_one, row, saturated
from benchmarks._load_phases import FEW, IN_FLIGHT, SERVICE, Outcome, Rows, wait
from benchmarks._load_subject import Subject
from benchmarks.startup import rss_mb


def many(subject: Subject, count: int) -> Outcome:
    """Thousands of sessions: what one costs when it is opened and when it has answered, and how it is found."""
    names = [f"cam-{number:05}" for number in range(count + FEW)]
    # Refuses nothing: each of them has to have its answer, on a busy machine too.
    with subject.serving(sessions={"max_sessions": count + FEW}, scheduler={"patience_ms": 0}) as daemon:
        opening = [
            pb.CreateSessionRequest(parent=f"models/{subject.model}", session_id=name).SerializeToString()
            for name in names
        ]
        with (
            connected(daemon.target, f"{SERVICE}CreateSession") as create,
            connected(daemon.target, f"{SERVICE}GetSession") as get,
            connected(daemon.target, INFER) as infer,
        ):
            few, many = _requests(subject, names[:FEW]), _requests(subject, names[FEW:])
            saturated(create, opening[:FEW], FEW)
            saturated(infer, [subject.infer(1, name) for name in names[:FEW]], FEW)
            lookup = [one_by_one(get, few, subject.seconds / 3)]
            base = rss_mb(daemon.pid)
            created = saturated(create, opening[FEW:], IN_FLIGHT)
            opened = rss_mb(daemon.pid)
            lookup.append(one_by_one(get, many, subject.seconds / 3))
            used = saturated(infer, [subject.infer(1, name, start=n) for n, name in enumerate(names[FEW:])], IN_FLIGHT)
            answered = rss_mb(daemon.pid)
    if created.failed or created.refused or used.failed or used.refused:
        raise RuntimeError(f"not every session was opened and used: {dict(created.codes)}, {dict(used.codes)}")
    streamed = _streamed(subject, names[FEW:])
    rows: Rows = [
        row(f"GetSession, {FEW} sessions", lookup[0]),
        row(f"CreateSession, {count} sessions", created, note=f"{IN_FLIGHT} under way"),
        row(f"CreateSessions, {count} sessions", streamed, note=f"{IN_FLIGHT} under way on one stream"),
        row(f"GetSession, {count} sessions", lookup[1]),
        row(f"the first answer of {count} sessions", used, note=f"{IN_FLIGHT} under way"),
    ]
    return {
        "bytes_per_session_10k": 1e6 * (opened - base) / count,
        "bytes_per_session_10k_answered": 1e6 * (answered - base) / count,
        "bytes_per_session_adapted": _adapted(subject, max(count // 10, FEW)),
        "sessions_created_per_s": created.per_second,
        "sessions_created_per_s_stream": streamed.per_second,
        "lookup_10_us": 1e3 * lookup[0].ms(50),
        "lookup_10k_us": 1e3 * lookup[1].ms(50),
    }, rows


def _streamed(subject: Subject, names: Sequence[str]) -> Load:
    """The same sessions, opened over one stream of a daemon that has none."""
    load, room, sent = Load(), threading.Semaphore(IN_FLIGHT), deque[float]()

    def messages() -> Iterator[bytes]:
        for name in names:
            opened = pb.CreateSessionRequest(parent=f"models/{subject.model}", session_id=name)
            payload = pb.CreateSessionsRequest(session=opened).SerializeToString()
            room.acquire()
            sent.append(time.perf_counter())
            yield payload

    with (
        subject.serving(sessions={"max_sessions": len(names)}) as daemon,
        connected(daemon.target, f"{SERVICE}CreateSessions", "stream_stream") as rpc,
    ):
        begun, clock = time.perf_counter(), cpu_clock(daemon.pid)
        spent = clock()
        for reply in rpc(messages()):
            load.accepted.append(time.perf_counter() - sent.popleft())
            load.codes["OK" if pb.CreateSessionsResponse.FromString(reply).HasField("session") else "refused"] += 1
            room.release()
        load.seconds, load.cpu_seconds = time.perf_counter() - begun, clock() - spent
    if load.codes["OK"] < len(names):
        raise RuntimeError(f"not every session was opened on the stream: {dict(load.codes)}")
    return load


def _adapted(subject: Subject, count: int) -> float:
    """Resident bytes of a session that has learnt, by so many copies of one."""
    name = "cam"
    learning = [subject.infer(1, name, start=number) for number in range(256)]
    with (
        subject.serving(sessions={"max_sessions": count + 1}) as daemon,
        Client(daemon.target) as client,
        connected(daemon.target, INFER) as infer,
        connected(daemon.target, f"{SERVICE}ForkSession") as fork,
    ):
        session = client.create_session(subject.model, name)
        wait(lambda: session.get().updates > 0, lambda: saturated(infer, learning, FEW))
        session.pause()
        copied = f"models/{subject.model}/sessions/{name}"
        copies = [pb.ForkSessionRequest(name=copied).SerializeToString() for _ in range(count)]
        base = rss_mb(daemon.pid)
        forked = saturated(fork, copies, IN_FLIGHT)
        grown = rss_mb(daemon.pid) - base
    if forked.failed or forked.refused:
        raise RuntimeError(f"not every session was copied: {dict(forked.codes)}")
    return 1e6 * grown / count


def _requests(subject: Subject, names: Sequence[str]) -> list[bytes]:
    prefix = f"models/{subject.model}/sessions/"
    return [pb.GetSessionRequest(name=prefix + name).SerializeToString() for name in names]
