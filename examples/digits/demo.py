"""`acclimate demo`: eight cameras drift; each feeds a session that adapts and a twin that stays frozen.

The daemon is a process of its own, with nothing but NumPy and ONNX Runtime to compute with; the cameras reach it
over gRPC, one digit at a time. Labels are used to count right answers here, and never sent to the daemon.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from acclimate.examples.digits import demo_view, streams
from acclimate.examples.digits.data import Digits, load
from acclimate.examples.digits.demo_record import Clean, Record, share, summary
from acclimate.runtime.client import AsyncClient, AsyncSession
from acclimate.runtime.client.local import LocalDaemon, local_daemon

BUNDLE = Path(__file__).parent / "bundle"
MODEL = "digits"
# The last digits of the stream split are never streamed: they measure clean accuracy before and after.
PROBE = 300
PROBE_ROWS = 50
REFRESH_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Pair:
    """A camera with its adapting session and that session's frozen twin."""

    camera: streams.Camera
    adapting: AsyncSession
    frozen: AsyncSession
    record: Record


def run(options: Sequence[str]) -> int:
    """Run the demo; returns the exit code."""
    chosen = _parse(options)
    console = Console(stderr=chosen.json)
    digits = load().stream
    streamed, probe = digits.head(len(digits) - PROBE), digits.tail(PROBE)
    with local_daemon([BUNDLE]) as daemon:
        console.print(f"daemon {daemon.pid} was ready in {daemon.ready_seconds:.2f} s on {daemon.target}")
        result, records = asyncio.run(_stream(daemon, streamed, probe, chosen, console))
    console.print(demo_view.summary_table(result))
    for sentence in demo_view.sentences(result):
        console.print(sentence)
    demo_view.plot(records, chosen.plot)
    console.print(f"The picture: {chosen.plot}")
    if chosen.json:
        sys.stdout.write(json.dumps(result) + "\n")
    return 0


async def _stream(
    daemon: LocalDaemon, streamed: Digits, probe: Digits, chosen: argparse.Namespace, console: Console
) -> tuple[dict[str, Any], list[Record]]:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(AsyncClient.connect(daemon.target))
        pairs = [await _open(client, camera, chosen.recipe) for camera in streams.CAMERAS]
        before = await _clean_accuracy(pairs, probe)
        view = nullcontext() if chosen.json or not console.is_terminal else Live(console=console, auto_refresh=False)
        with view as live:
            watching = asyncio.create_task(_watch(pairs, chosen.frames, live))
            await asyncio.gather(*(_play(pair, streamed, chosen) for pair in pairs))
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        after = await _clean_accuracy(pairs, probe)
        for pair in pairs:
            pair.record.view = await pair.adapting.get()
        info = await client.server_info()
    facts = {
        "torch_imported": info.torch_imported,
        "daemon_rss_mb": info.rss_bytes / 1e6,
        "daemon_ready_seconds": daemon.ready_seconds,
    }
    records = [pair.record for pair in pairs]
    return summary(records, Clean(before, after), facts), records


async def _open(client: AsyncClient, camera: streams.Camera, recipe: str) -> Pair:
    return Pair(
        camera,
        await client.create_session(MODEL, f"{camera.name}-adapting", recipe=recipe),
        await client.create_session(MODEL, f"{camera.name}-frozen", recipe="source"),
        Record(camera.name, camera.corruption or "no drift"),
    )


async def _play(pair: Pair, digits: Digits, chosen: argparse.Namespace) -> None:
    """Send a camera's frames at its frame rate, each to both sessions, and note who was right."""
    period, start, record = 1.0 / chosen.fps, time.perf_counter(), pair.record
    for number, frame in enumerate(streams.stream(pair.camera, digits, chosen.frames, chosen.seed)):
        await asyncio.sleep(max(0.0, start + number * period - time.perf_counter()))
        sent = time.perf_counter()
        adapted = await pair.adapting.predict(frame.image)
        record.latency_ms.append((time.perf_counter() - sent) * 1e3)
        frozen = await pair.frozen.predict(frame.image)
        record.adapted.append(int(adapted.labels[0]) == frame.label)
        record.frozen.append(int(frozen.labels[0]) == frame.label)
        record.severity.append(frame.severity)


async def _watch(pairs: Sequence[Pair], frames: int, live: Live | None) -> None:
    """Ask the daemon about the sessions now and then, and show the table."""
    while True:
        for pair in pairs:
            pair.record.view = await pair.adapting.get()
        if live is not None:
            live.update(demo_view.live_table([pair.record for pair in pairs], frames), refresh=True)
        await asyncio.sleep(REFRESH_SECONDS)


async def _clean_accuracy(pairs: Sequence[Pair], probe: Digits) -> float:
    """Mean accuracy of the adapting sessions on clean digits that they do not learn from."""
    right: list[bool] = []
    for pair in pairs:
        for start in range(0, len(probe), PROBE_ROWS):
            rows = slice(start, start + PROBE_ROWS)
            answer = await pair.adapting.predict(probe.images[rows], adapt=False)
            right.extend((answer.labels == probe.labels[rows]).tolist())
    return share(right)


def _parse(options: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="acclimate demo digits", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object on stdout")
    parser.add_argument("--frames", type=int, default=800, help="digits per camera (default: %(default)s)")
    parser.add_argument("--fps", type=float, default=20.0, help="frames per second and camera (default: %(default)s)")
    parser.add_argument("--recipe", default="eata", help="recipe of the adapting sessions (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of order and corruption (default: %(default)s)")
    parser.add_argument("--plot", type=Path, default=Path("out/digits-demo.png"), help="PNG (default: %(default)s)")
    return parser.parse_args(options)
